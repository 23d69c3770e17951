"""Engine 'vibevoice-ggml': recordings by VibeVoice-ASR in a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.errors import ModelLoadFailed
from sidecar.gpu_memory.gpu_devices import host_free_bytes
from sidecar.interfaces.engine_interface import LoadOptions, TranscriptionRequest
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent
from vibevoice_asr_ggml import SPEC, files
from vibevoice_asr_ggml.gguf_file import read_header
from vibevoice_asr_ggml.library import Device, Library
from vibevoice_asr_ggml.model import GgmlModel


class GgmlEngine:
    """Engine with one file; it transcribes a recording at a time."""

    sample_rate = VIBEVOICE_SAMPLE_RATE

    def __init__(self) -> None:
        self.model: GgmlModel | None = None
        """The loaded model; None before `load`."""
        self._footprint: files.GgmlFootprint | None = None

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Load the file of the precision onto its device.

        Raises:
            errors.ModelLoadFailed, errors.BadCheckpoint: it is missing or not usable, or does not
                fit, or the library is missing or of another version.
        """
        yield 0.0
        there = files.files_in(Path(options.checkpoint)) if options.checkpoint is not None else {}
        precision = SPEC.resolve_precision(options.precision)
        if options.precision not in SPEC.precisions and there:
            precision = next(iter(there))
        if precision not in there:
            raise ModelLoadFailed(f"There is no file in {precision}.")
        file = read_header(there[precision])
        folder = os.environ.get(files.LIBRARIES)
        library = Library(Path(folder) if folder else None)
        device = Device(library, options.device, files.thread_count())
        for step in GgmlModel.load(file, SPEC, precision, device):
            if isinstance(step, GgmlModel):
                self.model = step
                files.Pace(*step.pace).write(there[precision])
            else:
                yield step
        self._footprint = files.footprint_of(file, precision)
        yield 1.0

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        """Yield segments as the model closes them."""
        yield from self._events(request, None)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe from the last resume point on; there is one between two windows."""
        yield from self._events(request, resume_points)

    def _events(
        self, request: TranscriptionRequest, resume_points: Sequence[ResumePoint] | None
    ) -> Iterator[TranscriptionEvent]:
        model, footprint = self.model, self._footprint
        assert model is not None
        assert footprint is not None
        device = model.loaded.device
        free_bytes = host_free_bytes() if device.type == "cpu" else device.free_bytes()
        options = files.planned(request.options, footprint, free_bytes)
        work = VibeVoiceTranscription(
            model, replace(request, options=options), resume_points=resume_points
        )
        yield from work.events()
