"""TTS engine of moonshine-voice and its voices (Kokoro, Piper, ZipVoice).

The library comes without voices: `vibevoice-asr pull voice` downloads them to a folder, and this
module downloads nothing. A text is synthesized as a whole. ZipVoice can clone a voice; this engine
never uses that.

The engine calls the library by its C API: its Python API would download missing files, and returns
samples as a list of numbers. The exact version in pyproject.toml makes private names safe to use.
"""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.installation import is_frozen
from sidecar.interfaces import engine_interface
from sidecar.plugins.conversation.tts.installed_voices import (
    PulledVoice,
    PulledVoices,
    voice_for_language,
)

SPEC = engine_interface.TtsSpec(
    name="moonshine",
    factory="sidecar.plugins.conversation.tts.moonshine_tts:MoonshineTts",
    title="Voices of moonshine-voice (Kokoro, Piper, ZipVoice)",
    requires=("moonshine_voice",),
)

MAX_LOADED_VOICES = 2
"""Maximum number of voices in memory; the least recently used one is closed."""
MAX_PCM16 = 32_767

DEFAULT_LANGUAGE = "en-us"
VOICE_FAMILIES = ("kokoro_", "piper_", "zipvoice_")
"""Prefixes of voice names: the model of the voice. A request may omit the prefix."""
_OWN_CHOICE = re.compile(r"(?:(kokoro)/voices/(.+)\.kokorovoice|(piper)-voices/(.+)\.onnx)$")
VoiceCatalogue = Mapping[str, Sequence[str]]
"""Voice names by language tag, such as 'en-us'."""


class MoonshineTts:
    """TTS engine with downloaded voices of moonshine-voice."""

    def __init__(self, max_loaded_voices: int = MAX_LOADED_VOICES) -> None:
        self._max_loaded_voices = max_loaded_voices
        self._folder = Path()
        self._voices: tuple[PulledVoice, ...] = ()
        self.loaded: dict[PulledVoice, MoonshineSynthesizer] = {}
        """Loaded voices, the most recently used one last."""

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Find the voices in the folder and load the first one.

        Raises:
            errors.ModelLoadFailed: no voice is complete, or the first does not load.
        """
        assert options.checkpoint is not None
        pulled = PulledVoices.read(Path(options.checkpoint))
        self._folder, self._voices = pulled.folder, pulled.complete()
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
        """Synthesize as `TtsEngine.say`, with all audio at once.

        Raises:
            errors.EngineFailed: the synthesis fails.
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
                    hint=f"Use one of: {engine_interface.abbreviate_names(self.voices())}. More: "
                    "vibevoice-asr pull voice --list"
                )
        if options.language == engine_interface.AUTO:
            return voices[0]
        return voice_for_language(voices, options.language) or voices[0]

    def _synthesizer(self, voice: PulledVoice) -> MoonshineSynthesizer:
        one = self.loaded.pop(voice, None)
        if one is None:
            while len(self.loaded) >= self._max_loaded_voices:
                self.loaded.pop(next(iter(self.loaded))).close()
            one = MoonshineSynthesizer(voice.language, voice.name, self._folder)
        self.loaded[voice] = one
        return one


def _no_voice_error(pulled: PulledVoices) -> errors.ModelLoadFailed:
    if not pulled.voices:
        return errors.ModelLoadFailed(
            f"There is no voice in {pulled.folder}.",
            hint="Download one: vibevoice-asr pull voice --language en-us",
        )
    voice = pulled.voices[0]
    missing = engine_interface.abbreviate_names(pulled.missing_files(voice))
    return errors.ModelLoadFailed(
        f"The voice '{voice.name}' lacks the file {missing}.",
        hint=f"Download it: vibevoice-asr pull voice {voice.name} --language {voice.language}",
    )


def choose_moonshine_voice(
    catalogue: VoiceCatalogue, name: str = "", language: str = ""
) -> tuple[str, str]:
    """Return the voice and its language tag for ``name`` and ``language``, each of which may be ''.
    If the voice is '', the library chooses it.

    Raises:
        errors.VoiceUnknown: no voice has that name in that language.
    """
    if not name:
        return "", _language_tag(catalogue, language or DEFAULT_LANGUAGE)
    tags = (
        [_language_tag(catalogue, language)] if language else sorted(catalogue, key=_dialect_rank)
    )
    names = {name.lower(), *(f"{kind}{name}".lower() for kind in VOICE_FAMILIES)}
    for tag in tags:
        for voice in catalogue[tag]:
            if voice.lower() in names:
                return voice, tag
    there = engine_interface.abbreviate_names(catalogue[tags[0]]) if language else ""
    raise errors.VoiceUnknown(
        f"There is no voice '{name}'" + (f" for {tags[0]}." if language else "."),
        hint=f"There are: {there}." if there else "List them: vibevoice-asr pull voice --list",
    )


def library_default_voice(keys: Sequence[str]) -> str:
    """Return the library's default voice, found by the files (``keys``) that the library needs.

    Raises:
        errors.VoiceUnknown: none of the files is a voice.
    """
    for key in keys:
        if found := _OWN_CHOICE.search(key):
            kind, name = (part for part in found.groups() if part)
            return f"{kind}_{name}"
    raise errors.VoiceUnknown(hint="List them: vibevoice-asr pull voice --list")


def _language_tag(catalogue: VoiceCatalogue, language: str) -> str:
    """Return the tag for ``language``: itself, or the first region of that language.

    Raises:
        errors.VoiceUnknown: there is no voice for the language.
    """
    wanted_tag = language.strip().lower().replace("_", "-")
    if wanted_tag in catalogue:
        return wanted_tag
    for tag in sorted(catalogue, key=_dialect_rank):
        if tag.split("-")[0] == wanted_tag:
            return tag
    raise errors.VoiceUnknown(
        f"There is no voice for '{language}'.",
        hint=f"There are voices for: {engine_interface.abbreviate_names(sorted(catalogue))}.",
    )


def _dialect_rank(tag: str) -> tuple[int, str]:
    """Return a sort key: American English, then tags like 'es-es', then others like 'es-ar'."""
    language, _, region = tag.partition("-")
    return (0 if tag == DEFAULT_LANGUAGE else 1 if language == region else 2, tag)


def voice_catalogue() -> dict[str, list[str]]:
    """Return the voices that the library knows for each language, downloaded or not.

    Raises:
        errors.ModelLoadFailed: the library does not load.
    """
    listed = json.loads(_library_api().moonshine_get_tts_voices_string(None, None))
    return {language: [voice["id"] for voice in voices] for language, voices in listed.items()}


def voice_files(language: str, voice: str = "") -> list[str]:
    """Return the files of a voice, relative to one folder; if ``voice`` is '', the library chooses.

    Raises:
        errors.ModelLoadFailed: the library does not load.
        errors.VoiceUnknown: the library has no such voice or language.
    """
    api = _library_api()
    try:
        library_options = {"voice": voice} if voice else {}
        keys = api.moonshine_get_tts_dependencies_string(language, library_options)
    except api.MoonshineError as error:
        raise errors.VoiceUnknown(f"No voice for '{language}': {error}.") from None
    return [key for key in json.loads(keys) if "/" in key]  # others are labels, not files


def voice_server_url() -> str:
    """Return the URL of the server from which the makers of the library offer the files.

    Raises:
        errors.ModelLoadFailed: the library does not load.
    """
    _library_api()
    from moonshine_voice import TTS_CDN_BASE_URL

    return str(TTS_CDN_BASE_URL)


class MoonshineSynthesizer:
    """One voice in memory.

    If a voice lacks a file, the library loads another voice or reports 'Unknown error'. The caller
    must therefore check the files first.
    """

    def __init__(self, language: str, voice: str, folder: Path) -> None:
        """Load the voice.

        Raises:
            errors.ModelLoadFailed: the library or this voice does not load.
        """
        self._api = _library_api()
        self._library: Any = self._api._MoonshineLib().lib
        library_options = {"voice": voice, "g2p_root": str(folder)}
        options, count, _kept = self._api.moonshine_options_array(library_options)
        self._handle: int = self._library.moonshine_create_tts_synthesizer_from_files(
            language.encode(), None, 0, options, count, self._api.MOONSHINE_HEADER_VERSION
        )
        if self._handle < 0:
            raise errors.ModelLoadFailed(
                f"The voice '{voice}' cannot be loaded: {self._reason(self._handle)}.",
                hint=f"Check and repair its files: vibevoice-asr pull voice {voice} --language "
                f"{language}",
            )

    def say(self, text: str, speed: float) -> tuple[bytes, int]:
        """Return ``text`` as 16-bit samples, and their sample rate.

        Raises:
            errors.EngineFailed: the synthesis fails.
        """
        import numpy as np

        options, count, _kept = self._api.moonshine_options_array({"speed": speed})
        samples = ctypes.POINTER(ctypes.c_float)()
        size, rate = ctypes.c_uint64(), ctypes.c_int32()
        raw = text.replace("\0", " ").encode()
        into = (ctypes.byref(samples), ctypes.byref(size), ctypes.byref(rate))
        failed = self._library.moonshine_text_to_speech(self._handle, raw, options, count, *into)
        if failed:
            raise errors.EngineFailed(f"The voice failed: {self._reason(failed)}.")
        if not samples or not size.value:
            return b"", rate.value
        try:
            made = np.ctypeslib.as_array(samples, (size.value,))
            whole = np.nan_to_num(made, posinf=0.0, neginf=0.0).clip(-1.0, 1.0) * MAX_PCM16
            return whole.round().astype("<i2").tobytes(), rate.value
        finally:
            self._api.moonshine_free(ctypes.cast(samples, ctypes.c_void_p).value)

    def close(self) -> None:
        """Free the memory of the voice."""
        self._library.moonshine_free_tts_synthesizer(self._handle)

    def _reason(self, code: int) -> str:
        said = self._library.moonshine_error_to_string(code)
        return said.decode("utf-8", "replace") if said else f"error {code}"


def _library_api() -> Any:
    try:
        from moonshine_voice import moonshine_api

        moonshine_api._MoonshineLib()
    except Exception as error:  # of the import, the system's loader or the library
        hint = "pip install --force-reinstall moonshine-voice==0.0.73"
        if is_frozen():
            hint = "Use a build with voices (VOICES=1): this one was made without them."
        raise errors.ModelLoadFailed(
            f"The library moonshine-voice cannot be loaded: {error}.", hint=hint
        ) from None
    return moonshine_api
