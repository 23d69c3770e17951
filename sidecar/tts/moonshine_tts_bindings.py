"""moonshine-voice's TTS library by its C API. Imported when the engine loads.

Its Python side would download what is missing, and hands out samples as a list of numbers. The
exact version in pyproject.toml makes it safe to reach past it.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np

from sidecar import errors

MAX_PCM16 = 32_767


def voice_catalogue() -> dict[str, list[str]]:
    """The voices that the library knows for each language, here or not.

    Raises:
        errors.ModelLoadFailed: the library does not load.
    """
    listed = json.loads(_library_api().moonshine_get_tts_voices_string(None, None))
    return {language: [voice["id"] for voice in voices] for language, voices in listed.items()}


def voice_files(language: str, voice: str = "") -> list[str]:
    """The files that a voice takes, below one folder; '' is the library's choice of a voice.

    Raises:
        errors.ModelLoadFailed: the library does not load.
        errors.VoiceUnknown: it knows no such language.
    """
    api = _library_api()
    try:
        wanted = {"voice": voice} if voice else {}
        keys = api.moonshine_get_tts_dependencies_string(language, wanted)
    except api.MoonshineError as error:
        raise errors.VoiceUnknown(f"No voice for '{language}': {error}.") from None
    return [key for key in json.loads(keys) if "/" in key]  # others are labels, not files


def voice_server_url() -> str:
    """Return the address of those files at the makers of the library.

    Raises:
        errors.ModelLoadFailed: the library does not load.
    """
    _library_api()
    from moonshine_voice import TTS_CDN_BASE_URL

    return str(TTS_CDN_BASE_URL)


class MoonshineSynthesizer:
    """One voice in memory. Of a voice that lacks a file the library takes another one, or says
    'Unknown error': who makes one has looked before."""

    def __init__(self, language: str, voice: str, folder: Path) -> None:
        """Load it.

        Raises:
            errors.ModelLoadFailed: the library does not load, or not this voice.
        """
        self._api = _library_api()
        self._library: Any = self._api._MoonshineLib().lib
        wanted = {"voice": voice, "g2p_root": str(folder)}
        options, count, _kept = self._api.moonshine_options_array(wanted)
        self._handle: int = self._library.moonshine_create_tts_synthesizer_from_files(
            language.encode(), None, 0, options, count, self._api.MOONSHINE_HEADER_VERSION
        )
        if self._handle < 0:
            raise errors.ModelLoadFailed(
                f"The voice '{voice}' cannot be loaded: {self._reason(self._handle)}.",
                hint=(
                    f"Check and repair its files: vibevoice-asr pull voice {voice} --language "
                    f"{language}"
                ),
            )

    def say(self, text: str, speed: float) -> tuple[bytes, int]:
        """``text`` as 16-bit samples, and how many of them a second.

        Raises:
            errors.EngineFailed: the library will not.
        """
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
        """Give its memory back."""
        self._library.moonshine_free_tts_synthesizer(self._handle)

    def _reason(self, code: int) -> str:
        said = self._library.moonshine_error_to_string(code)
        return said.decode("utf-8", "replace") if said else f"error {code}"


def _library_api() -> Any:
    try:
        from moonshine_voice import moonshine_api

        moonshine_api._MoonshineLib()
    except (ImportError, OSError) as error:
        raise _library_error(error) from None
    except moonshine_api.MoonshineError as error:
        raise _library_error(error) from None
    return moonshine_api


def _library_error(error: Exception) -> errors.ModelLoadFailed:
    return errors.ModelLoadFailed(
        f"The library moonshine-voice cannot be loaded: {error}.",
        hint="pip install --force-reinstall moonshine-voice==0.0.73",
    )
