"""TTS engine of moonshine-voice and its voices (Kokoro, Piper, ZipVoice).

The library comes without voices: `vibevoice-asr pull voice` brings them to a folder, and nothing is
downloaded here. A text is one piece of work, made whole. ZipVoice could speak with anybody's voice;
that is never asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.checkpoints.installed_checkpoints import PulledVoice, PulledVoices, voice_for_language
from sidecar.interfaces import engine_interface

if TYPE_CHECKING:
    from sidecar.tts.moonshine_tts_bindings import MoonshineSynthesizer


SPEC = engine_interface.TtsSpec(
    name="moonshine",
    title="Voices of moonshine-voice (Kokoro, Piper, ZipVoice)",
    requires=("moonshine_voice",),
)

MAX_LOADED_VOICES = 2
"""Voices in memory at a time; the one that was heard longest ago goes."""


class MoonshineTts:
    """TTS with downloaded voices of moonshine-voice."""

    def __init__(self) -> None:
        self._folder = Path()
        self._voices: tuple[PulledVoice, ...] = ()
        self._loaded: dict[PulledVoice, MoonshineSynthesizer] = {}
        """The one that was heard last comes last."""

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """See whose voices are in the folder, and bring the first into memory.

        Raises:
            errors.ModelLoadFailed: none is whole, or the first does not load.
        """
        assert options.checkpoint is not None
        pulled = PulledVoices.read(Path(options.checkpoint))
        self._folder, self._voices = pulled.folder, pulled.whole()
        if not self._voices:
            raise _no_voice_error(pulled)
        yield 0.1
        self._synthesizer(self._voices[0])
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return the downloaded voices, the default first."""
        return tuple(dict.fromkeys(voice.name for voice in self._voices))

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """As `TtsEngine.say`, all in one piece.

        Raises:
            errors.EngineFailed: the library will not.
            errors.ModelLoadFailed: the voice does not load.
        """
        voice = self._voice(options)
        if cancelled() or not any(letter.isalnum() for letter in text):
            return
        pcm, rate = self._synthesizer(voice).say(text, options.speed)
        if pcm and not cancelled():
            yield engine_interface.SynthesizedAudio(pcm, rate)

    def _voice(self, options: engine_interface.SynthesisOptions) -> PulledVoice:
        voices = self._voices
        if options.voice:
            voices = tuple(one for one in voices if one.name == options.voice)
            if not voices:
                raise errors.VoiceUnknown(
                    hint=(
                        f"Use one of: {engine_interface.abbreviate_names(self.voices())}. More: "
                        "vibevoice-asr pull voice --list"
                    )
                )
        if options.language == engine_interface.AUTO:
            return voices[0]
        return voice_for_language(voices, options.language) or voices[0]

    def _synthesizer(self, voice: PulledVoice) -> MoonshineSynthesizer:
        from sidecar.tts.moonshine_tts_bindings import MoonshineSynthesizer

        one = self._loaded.pop(voice, None)
        if one is None:
            while len(self._loaded) >= MAX_LOADED_VOICES:
                self._loaded.pop(next(iter(self._loaded))).close()
            one = MoonshineSynthesizer(voice.language, voice.name, self._folder)
        self._loaded[voice] = one
        return one


def _no_voice_error(pulled: PulledVoices) -> errors.ModelLoadFailed:
    if not pulled.voices:
        return errors.ModelLoadFailed(
            f"There is no voice in {pulled.folder}.",
            hint="Download one: vibevoice-asr pull voice --language en-us",
        )
    voice = pulled.voices[0]
    lacking = engine_interface.abbreviate_names(pulled.lacking(voice))
    return errors.ModelLoadFailed(
        f"The voice '{voice.name}' lacks the file {lacking}.",
        hint=f"Download it: vibevoice-asr pull voice {voice.name} --language {voice.language}",
    )


DEFAULT_LANGUAGE = "en-us"
VOICE_FAMILIES = ("kokoro_", "piper_", "zipvoice_")
"""Prefixes of a voice's name: the model it is of. People may leave it out."""
_OWN_CHOICE = re.compile(r"(?:(kokoro)/voices/(.+)\.kokorovoice|(piper)-voices/(.+)\.onnx)$")

VoiceCatalogue = Mapping[str, Sequence[str]]
"""Tags such as 'en-us', and the names of the voices for each."""


@dataclass(frozen=True, slots=True)
class MoonshineVoiceChoice:
    """A voice and what it is to speak; ``name`` '' leaves the voice to the library."""

    name: str
    language: str


def choose_moonshine_voice(
    catalogue: VoiceCatalogue, name: str = "", language: str = ""
) -> MoonshineVoiceChoice:
    """The voice that is meant by ``name`` and ``language``, of which either may be ''.

    Raises:
        errors.VoiceUnknown: there is none.
    """
    if not name:
        return MoonshineVoiceChoice("", _language_tag(catalogue, language or DEFAULT_LANGUAGE))
    tags = (
        [_language_tag(catalogue, language)] if language else sorted(catalogue, key=_dialect_rank)
    )
    wanted = {name.lower(), *(f"{kind}{name}".lower() for kind in VOICE_FAMILIES)}
    for tag in tags:
        for voice in catalogue[tag]:
            if voice.lower() in wanted:
                return MoonshineVoiceChoice(voice, tag)
    there = engine_interface.abbreviate_names(catalogue[tags[0]]) if language else ""
    raise errors.VoiceUnknown(
        f"There is no voice '{name}'" + (f" for {tags[0]}." if language else "."),
        hint=f"There are: {there}." if there else "List them: vibevoice-asr pull voice --list",
    )


def library_default_voice(keys: Sequence[str]) -> str:
    """The voice that the library takes by itself, by the files it says it needs.

    Raises:
        errors.VoiceUnknown: none of them is a voice's.
    """
    for key in keys:
        if found := _OWN_CHOICE.search(key):
            kind, name = (part for part in found.groups() if part)
            return f"{kind}_{name}"
    raise errors.VoiceUnknown(hint="List them: vibevoice-asr pull voice --list")


def _language_tag(catalogue: VoiceCatalogue, language: str) -> str:
    """The tag that is meant: itself, or the first region of a language."""
    wanted = language.strip().lower().replace("_", "-")
    general = [tag for tag in sorted(catalogue, key=_dialect_rank) if tag.split("-")[0] == wanted]
    if wanted in catalogue:
        return wanted
    if general:
        return general[0]
    raise errors.VoiceUnknown(
        f"There is no voice for '{language}'.",
        hint=f"There are voices for: {engine_interface.abbreviate_names(sorted(catalogue))}.",
    )


def _dialect_rank(tag: str) -> tuple[int, str]:
    """American English first, then languages where they come from ('es-es' before 'es-ar')."""
    language, _, region = tag.partition("-")
    return (0 if tag == DEFAULT_LANGUAGE else 1 if language == region else 2, tag)
