"""The moonshine-voice library: imported here and nowhere else, when an engine loads.

Its Python side takes samples one by one (1 ms per second of audio, twice a line: a tenth of
recognition). `feed` and `recognize` hand it the array's memory instead. They, and `forget`, reach
into the library's inside, which the exact version in pyproject.toml makes safe.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.audio import Block

if TYPE_CHECKING:
    from moonshine_voice.moonshine_api import Transcript
    from moonshine_voice.transcriber import Stream, Transcriber

SAMPLE_RATE = 16_000
_DETECTOR = "_ZN21VoiceActivityDetector10silero_vadE"
_DESTROY_DETECTOR = "_ZN9SileroVadD1Ev"


def load_library(options: dict[str, str]) -> Transcriber:
    """A transcriber of the library over the weights in its wheel.

    Raises:
        errors.ModelLoadFailed: the library or its weights are not there.
    """
    try:
        from moonshine_voice import ModelArch, MoonshineError, get_model_path
        from moonshine_voice.transcriber import Transcriber
    except (ImportError, OSError) as error:
        raise errors.ModelLoadFailed(
            f"The library moonshine-voice does not load: {error}.",
            hint="pip install --force-reinstall moonshine-voice==0.0.73",
        ) from None
    try:
        return Transcriber(
            get_model_path("tiny-en"),
            ModelArch.TINY,
            options={"return_audio_data": "false", **options},
        )
    except MoonshineError as error:
        raise errors.ModelLoadFailed(str(error)) from None


def forget(library: Transcriber) -> bool:
    """Give the process's voice detector a fresh memory; no stream may be open.

    The library has one detector per process, which remembers the recording before: borders of
    lines move by a few hundredths of a second with what was heard last, and now and then a word
    changes. Its builds for Linux and macOS export the pointer to it, and make a new one where it
    is null. False where they do not.
    """
    try:
        slot = ctypes.c_void_p.in_dll(library._lib, _DETECTOR)
        destroy = library._lib[_DESTROY_DETECTOR]
    except (ValueError, AttributeError):
        return False
    old, slot.value = slot.value, None
    if old is not None:
        destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
        destroy(old)
        free = ctypes.CDLL(None).free
        free.argtypes, free.restype = [ctypes.c_void_p], None
        free(old)
    return True


def feed(stream: Stream, audio: Block) -> Transcript:
    """Let a stream hear ``audio``, shape (samples,), at `SAMPLE_RATE`; what it holds now.

    Raises:
        moonshine_voice.MoonshineError: the library refuses.
    """
    from moonshine_voice.errors import check_error

    samples, count = _pointer(audio)
    check_error(
        stream._lib.moonshine_transcribe_add_audio_to_stream(
            stream._transcriber._handle, stream._handle, samples, count, SAMPLE_RATE, 0
        )
    )
    return stream.update_transcription()


def recognize(library: Transcriber, audio: Block) -> Transcript:
    """The lines of ``audio``, shape (samples,), at `SAMPLE_RATE`.

    Raises:
        moonshine_voice.MoonshineError: the library refuses.
    """
    from moonshine_voice.errors import check_error
    from moonshine_voice.moonshine_api import TranscriptC

    samples, count = _pointer(audio)
    found = ctypes.POINTER(TranscriptC)()
    check_error(
        library._lib.moonshine_transcribe_without_streaming(
            library._handle, samples, count, SAMPLE_RATE, 0, ctypes.byref(found)
        )
    )
    return library._parse_transcript(found)


def _pointer(audio: Block) -> tuple[Any, int]:
    """The memory of an array, which must live until the library has copied it."""
    import numpy as np

    samples = np.ascontiguousarray(audio, dtype=np.float32)
    return samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(samples)
