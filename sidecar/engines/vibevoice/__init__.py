"""VibeVoice-ASR engine, and malloc settings of its process.

The model generates a JSON list of segments with speaker, times and text. `vibevoice_decoder` runs
it, `transcripts.vibevoice_output` parses the list, and `transcripts.loop_guard` recovers from
repetition loops. Each request contains its memory plan.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.interfaces import engine_interface
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.engines.vibevoice.vibevoice_transcription import JoinedTranscriptions


SPEC = engine_interface.EngineSpec(
    name="vibevoice",
    factory="sidecar.engines.vibevoice:VibeVoiceEngine",
    title="VibeVoice-ASR 7B",
    sample_rate=VIBEVOICE_SAMPLE_RATE,
    precisions=(
        engine_interface.Precision.BF16,
        engine_interface.Precision.FP16,
        engine_interface.Precision.INT8,
        engine_interface.Precision.INT4,
        engine_interface.Precision.FP32,
    ),
    languages=(),
    diarizes=True,
    requires=("torch", "transformers", "accelerate", "bitsandbytes"),
    steerable=True,
    together=8,
    planned=True,
    resumes="vibevoice-1",  # changes whenever the meaning of resume points changes
)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 << 20
_MAX_BYTES = 32 << 20
"""Maximum of glibc's threshold for heap blocks on 64 bits (mallopt(3))."""


class VibeVoiceEngine:
    """VibeVoice-ASR engine. torch and transformers are imported by `load`."""

    sample_rate = SPEC.sample_rate

    def __init__(self) -> None:
        self._joined: JoinedTranscriptions | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        yield 0.0  # before torch is imported, which takes seconds
        prepare_process()
        from sidecar.engines.vibevoice import vibevoice_model
        from sidecar.engines.vibevoice.vibevoice_transcription import JoinedTranscriptions

        load = vibevoice_model.load_vibevoice
        loaded = yield from vibevoice_model.load_with_progress(options, load, SPEC.name)
        self._joined = JoinedTranscriptions(vibevoice_model.VibeVoiceModel(loaded))

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as the model closes them. With a shared memory plan, several threads may
        call this at once."""
        assert self._joined is not None
        yield from self._joined.events(request)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `transcribe`, from the last resume point on; there is one between two
        batches of windows."""
        assert self._joined is not None
        yield from self._joined.events(request, resume_points)


def prepare_process() -> None:
    """Set what torch reads when it is imported, and how malloc frees."""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # fragments less
    # torch creates a folder for compiled code when it is imported; nothing is compiled here.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Make malloc keep freed memory; do nothing if the C library is not glibc."""
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(_M_MMAP_THRESHOLD, _MAX_BYTES)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
