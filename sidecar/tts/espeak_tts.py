"""espeak-ng TTS engine.

It is under the GPL, version 3: an extra, in a process of its own, and in no executable of ours. The
library and its data come with the package `espeakng-loader`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.interfaces import engine_interface

if TYPE_CHECKING:
    from sidecar.tts.espeak_library import EspeakLibrary

SPEC = engine_interface.TtsSpec(
    name="espeak",
    title="espeak-ng",
    requires=("espeakng_loader",),
    streams=True,
    marks=True,
)

DEFAULT_VOICE = "en-us"
WORDS_PER_MINUTE = 175
"""The library's own speed."""


class EspeakTts:
    """Its voices are languages and regions: 'en-us', 'de', 'pt-br'."""

    def __init__(self) -> None:
        self._library: EspeakLibrary | None = None
        self._voices: tuple[str, ...] = ()

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Some milliseconds.

        Raises:
            errors.ModelLoadFailed: the library does not start.
        """
        from sidecar.tts.espeak_library import EspeakLibrary

        self._library = EspeakLibrary()
        others = sorted({*self._library.voices()} - {DEFAULT_VOICE})
        self._voices = (DEFAULT_VOICE, *others)
        yield 1.0

    def voices(self) -> Sequence[str]:
        """American English first."""
        return self._voices

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """As `TtsEngine.say`; what is made of a sentence is there in a thousandth of its time."""
        assert self._library is not None
        speed = round(WORDS_PER_MINUTE * options.speed)
        for pcm, marks in self._library.say(text, self._voice(options), speed, cancelled):
            yield engine_interface.SynthesizedAudio(
                pcm, self._library.rate, tuple(engine_interface.WordMark(*mark) for mark in marks)
            )

    def _voice(self, options: engine_interface.SynthesisOptions) -> str:
        if options.voice:
            if options.voice not in self._voices:
                there = engine_interface.abbreviate_names(self._voices)
                raise errors.VoiceUnknown(hint=f"There are: {there}.")
            return options.voice
        if options.language == engine_interface.AUTO:
            return DEFAULT_VOICE
        return espeak_voice_for(options.language.lower(), self._voices)


def espeak_voice_for(language: str, voices: Sequence[str]) -> str:
    """The voice for a tag: its own, that of the language, one of its regions, else the first."""
    general = language.split("-")[0]
    for wanted in (language, general):
        if wanted in voices:
            return wanted
    return next((one for one in voices if one.split("-")[0] == general), voices[0])
