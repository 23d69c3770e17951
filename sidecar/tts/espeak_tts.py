"""espeak-ng TTS engine.

espeak-ng is under the GPL, version 3. It is therefore an extra, runs in a process of its own, and
is in no executable of this project. The package `espeakng-loader` has the library and its data.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sidecar import errors
from sidecar.interfaces import engine_interface

SPEC = engine_interface.TtsSpec(
    name="espeak",
    title="espeak-ng",
    requires=("espeakng_loader",),
    streams=True,
    marks=True,
)

DEFAULT_VOICE = "en-us"
WORDS_PER_MINUTE = 175
"""Default speed of the library."""


class EspeakTts:
    """espeak-ng TTS engine; its voices are languages and regions: 'en-us', 'de', 'pt-br'."""

    def __init__(self) -> None:
        self._library: EspeakLibrary | None = None
        self._voices: tuple[str, ...] = ()

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the library, which takes some milliseconds.

        Raises:
            errors.ModelLoadFailed: the library does not start.
        """
        self._library = EspeakLibrary()
        others = sorted({*self._library.voices()} - {DEFAULT_VOICE})
        self._voices = (DEFAULT_VOICE, *others)
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return the voices, American English first."""
        return self._voices

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """Synthesize as `TtsEngine.say`; synthesis takes a thousandth of the audio's duration."""
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
                raise errors.VoiceUnknown(hint=f"Use one of: {there}.")
            return options.voice
        if options.language == engine_interface.AUTO:
            return DEFAULT_VOICE
        return espeak_voice_for(options.language.lower(), self._voices)


def espeak_voice_for(language: str, voices: Sequence[str]) -> str:
    """Return the voice for a language tag.

    The order is: the tag itself, its language, another region of the language, the first voice.
    """
    general = language.split("-")[0]
    for wanted in (language, general):
        if wanted in voices:
            return wanted
    return next((one for one in voices if one.split("-")[0] == general), voices[0])


SYNCHRONOUS = 2
"""`AUDIO_OUTPUT_SYNCHRONOUS`: `espeak_Synth` returns when synthesis is done and calls the callback
meanwhile. With the other mode (1) the library is silent after the first text."""
CHUNK_MS = 60
UTF8 = 1
CHARACTERS = 1
RATE = 1
MIN_WORDS_PER_MINUTE, MAX_WORDS_PER_MINUTE = 80, 450
"""Limits of the library's speed, in words per minute."""
LIST_END, WORD = 0, 1
EE_OK = 0
CONTINUE, ABORT = 0, 1


class _EspeakEvent(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class _EspeakVoiceStruct(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
    ]  # the rest is not read


PcmWithMarks = tuple[bytes, list[tuple[int, float]]]
"""16-bit samples, and the words that begin in them: character offset and seconds."""
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)


class EspeakLibrary:
    """C library espeak-ng; it synthesizes one text at a time."""

    def __init__(self) -> None:
        """Load and initialize the library.

        Raises:
            errors.ModelLoadFailed: the library does not start.
        """
        import espeakng_loader

        try:
            self._c: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise errors.ModelLoadFailed(f"espeak-ng cannot be loaded: {error}") from None
        path = espeakng_loader.get_data_path().encode()
        self.rate: int = self._c.espeak_Initialize(SYNCHRONOUS, CHUNK_MS, path, 0)
        if self.rate <= 0:
            raise errors.ModelLoadFailed("espeak-ng cannot find its data files.")
        self._c.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_EspeakVoiceStruct))
        self._made: list[PcmWithMarks] = []
        self._cancelled: Callable[[], bool] = bool
        self._last = 0
        self._heard = _SYNTH_CALLBACK(self._hear)  # the library keeps no reference
        self._c.espeak_SetSynthCallback(self._heard)

    def voices(self) -> Iterator[str]:
        """Yield the language tags that the library knows."""
        listed = self._c.espeak_ListVoices(None)
        for voice in iter(listed):
            if not voice:
                return
            tag = voice.contents.languages[1:]  # the first byte is a priority
            yield tag.decode("ascii", "replace")

    def say(
        self, text: str, voice: str, words_per_minute: int, cancelled: Callable[[], bool]
    ) -> list[PcmWithMarks]:
        """Return the audio of ``text``; if ``cancelled`` becomes true, the audio made until then.

        Raises:
            errors.EngineFailed: the library rejects the voice, or synthesis fails.
        """
        self._made, self._cancelled, self._last = [], cancelled, 0
        if self._c.espeak_SetVoiceByName(voice.encode()) != EE_OK:
            raise errors.EngineFailed(f"espeak-ng rejects the voice '{voice}'.")
        speed = max(MIN_WORDS_PER_MINUTE, min(words_per_minute, MAX_WORDS_PER_MINUTE))
        self._c.espeak_SetParameter(RATE, speed, 0)
        raw = text.replace("\0", " ").encode()
        done = self._c.espeak_Synth(raw, len(raw) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        if done != EE_OK:
            raise errors.EngineFailed("espeak-ng failed.")
        made, self._made = self._made, []
        return made

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        """Append samples and word marks: the callback of the library."""
        if self._cancelled():
            return ABORT
        words: list[tuple[int, float]] = []
        for event in iter(events):
            if event.type == LIST_END:
                break
            if event.type == WORD and event.text_position > self._last:
                self._last = event.text_position  # all words of a number begin at one position
                words.append((event.text_position - 1, event.audio_position / 1000))
        if samples and (count or words):
            self._made.append((ctypes.string_at(samples, 2 * count), words))
        return CONTINUE
