"""espeak-ng TTS engine.

espeak-ng is under the GPL, version 3. It is therefore an extra, runs in a process of its own, and
is in no executable of this project. The package `espeakng-loader` has the library and its data.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from sidecar import errors
from sidecar.interfaces import engine_interface

SPEC = engine_interface.TtsSpec(
    name="espeak",
    factory="sidecar.plugins.conversation.tts.espeak_tts:EspeakTts",
    title="espeak-ng",
    requires=("espeakng_loader",),
    marks=True,
)

DEFAULT_VOICE = "en-us"
WORDS_PER_MINUTE = 175
"""Default speed of the library."""


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
    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_char_p)]  # the rest is not read


_SYNTH_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)


class EspeakTts:
    """espeak-ng TTS engine; its voices are languages and regions: 'en-us', 'de', 'pt-br'.

    The C library synthesizes one text at a time.
    """

    def __init__(self) -> None:
        self._c: Any = None
        self._rate = 0
        self._voices: tuple[str, ...] = ()
        self._made: list[engine_interface.SynthesizedAudio] = []
        self._cancelled: engine_interface.CancelCheck = bool
        self._last = 0
        self._callback = _SYNTH_CALLBACK(self._hear)  # the library keeps no reference

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load and initialize the library, which takes some milliseconds.

        Raises:
            errors.ModelLoadFailed: the library does not start.
        """
        import espeakng_loader

        try:
            self._c = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise errors.ModelLoadFailed(f"espeak-ng cannot be loaded: {error}") from None
        path = espeakng_loader.get_data_path().encode()
        self._rate = self._c.espeak_Initialize(SYNCHRONOUS, CHUNK_MS, path, 0)
        if self._rate <= 0:
            raise errors.ModelLoadFailed("espeak-ng cannot find its data files.")
        self._c.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_EspeakVoiceStruct))
        self._c.espeak_SetSynthCallback(self._callback)
        others = sorted({*self._language_tags()} - {DEFAULT_VOICE})
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
        """Synthesize as `TtsEngine.say`; synthesis takes a thousandth of the audio's duration.

        Raises:
            errors.EngineFailed: the library rejects the voice, or synthesis fails.
        """
        voice = self._voice(options)
        self._made, self._cancelled, self._last = [], cancelled, 0
        if self._c.espeak_SetVoiceByName(voice.encode()) != EE_OK:
            raise errors.EngineFailed(f"espeak-ng rejects the voice '{voice}'.")
        words_per_minute = round(WORDS_PER_MINUTE * options.speed)
        speed = max(MIN_WORDS_PER_MINUTE, min(words_per_minute, MAX_WORDS_PER_MINUTE))
        self._c.espeak_SetParameter(RATE, speed, 0)
        raw = text.replace("\0", " ").encode()
        done = self._c.espeak_Synth(raw, len(raw) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        if done != EE_OK:
            raise errors.EngineFailed("espeak-ng failed.")
        made, self._made = self._made, []
        yield from made

    def _voice(self, options: engine_interface.SynthesisOptions) -> str:
        if options.voice:
            if options.voice not in self._voices:
                voices = engine_interface.abbreviate_names(self._voices)
                raise errors.VoiceUnknown(hint=f"Use one of: {voices}.")
            return options.voice
        if options.language == engine_interface.AUTO:
            return DEFAULT_VOICE
        return espeak_voice_for(options.language.lower(), self._voices)

    def _language_tags(self) -> Iterator[str]:
        """Yield the language tags that the library knows."""
        listed = self._c.espeak_ListVoices(None)
        for voice in iter(listed):
            if not voice:
                return
            tag = voice.contents.languages[1:]  # the first byte is a priority
            yield tag.decode("ascii", "replace")

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        """Append samples and word marks: the callback of the library."""
        if self._cancelled():
            return ABORT
        words: list[engine_interface.WordMark] = []
        for event in iter(events):
            if event.type == LIST_END:
                break
            if event.type == WORD and event.text_position > self._last:
                self._last = event.text_position  # all words of a number begin at one position
                begins_s = event.audio_position / 1000
                words.append(engine_interface.WordMark(event.text_position - 1, begins_s))
        if samples and (count or words):
            pcm = ctypes.string_at(samples, 2 * count)
            self._made.append(engine_interface.SynthesizedAudio(pcm, self._rate, tuple(words)))
        return CONTINUE


def espeak_voice_for(language: str, voices: Sequence[str]) -> str:
    """Return the voice for a language tag.

    The order is: the tag itself, its language, another region of the language, the first voice.
    """
    general = language.split("-")[0]
    for tag in (language, general):
        if tag in voices:
            return tag
    return next((one for one in voices if one.split("-")[0] == general), voices[0])
