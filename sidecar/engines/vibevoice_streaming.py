"""VibeVoice-ASR-Streaming engine: who said what while people speak, and files with early words.

Its model hears windows of 3.47 s, each 2.93 s behind the one before, with one cache for a whole
session (`vibevoice.streaming_model`). Sessions that have a window at the same time share passes of
the decoder. Silence between segments of speech is not fed. The model says where a turn begins;
voices decide whose it is, in files by diarization and in live segments by embeddings, as with all
engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.engines.live_sessions import LiveSessions
from sidecar.engines.vibevoice import prepare_process
from sidecar.gpu_memory.streaming_memory import SESSION_TOKENS, WINDOWS_AT_ONCE
from sidecar.interfaces import engine_interface
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.engines.vibevoice.streaming_model import StreamingModel
    from sidecar.live.runtime.live_scheduler import LiveScheduler

SPEC = engine_interface.EngineSpec(
    name="vibevoice-streaming",
    factory="sidecar.engines.vibevoice_streaming:VibeVoiceStreamingEngine",
    title="VibeVoice-ASR-Streaming",
    sample_rate=VIBEVOICE_SAMPLE_RATE,
    precisions=(
        engine_interface.Precision.BF16,
        engine_interface.Precision.INT4,  # before int8, of which a step cannot be a graph
        engine_interface.Precision.INT8,
        engine_interface.Precision.FP32,
    ),
    languages=("de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "zh"),
    diarizes=True,
    requires=("torch", "transformers", "accelerate", "bitsandbytes"),
    steerable=True,
    prompt_only=True,
    counted=True,
    by_voices=True,
    sessions=100,  # an upper limit, as for Voxtral
)


class VibeVoiceStreamingEngine(LiveSessions):
    """VibeVoice-ASR-Streaming with many sessions on one model."""

    sample_rate = SPEC.sample_rate

    def __init__(self, *, session_tokens: int = SESSION_TOKENS) -> None:
        """``session_tokens``: positions of the cache of a session."""
        self.model: StreamingModel | None = None
        self._session_tokens = session_tokens

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        yield 0.0  # before torch is imported, which takes seconds
        prepare_process()
        from sidecar.diarization.speaker_models import load_models
        from sidecar.engines.vibevoice import streaming_model, vibevoice_model

        options = replace(options, precision=SPEC.resolve_precision(options.precision))
        load = streaming_model.load_streaming_model
        loaded = yield from vibevoice_model.load_with_progress(options, load, SPEC.name)
        plan = engine_interface.MemoryPlan(cache_tokens=self._session_tokens)
        self.model = streaming_model.StreamingModel(loaded, plan)
        self.sample_rate = loaded.format.rate
        if options.live:
            self._speaker_models = load_models()

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield the turns of a recording as they end."""
        from sidecar.engines.vibevoice.streaming_transcription import StreamingTranscription

        assert self.model is not None
        yield from StreamingTranscription(self.model, request).events()

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.engines.vibevoice.streaming_live import SharedModel
        from sidecar.interfaces.recognition import PartialSchedule

        assert self.model is not None
        recognize, form = SharedModel(self.model).recognize, self.model.format
        first_s, step_s = form.window_samples / form.rate, form.chunk_samples / form.rate
        return self._schedule(
            SPEC,
            self.model.loaded.precision,
            partial(recognize, last=True),
            partial(recognize, last=False),
            threads=WINDOWS_AT_ONCE,
            schedule=PartialSchedule(first_s, step_s, grows=True, turns=True),
        )
