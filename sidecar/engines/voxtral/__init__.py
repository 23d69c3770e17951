"""Voxtral Realtime live engine.

It hears live audio and nothing else: thirteen languages, a token each 80 ms. Every stretch of
speech is a stream of its own (`stream`), so that silence costs nothing and caches stay small.
Turns, voices and sessions are those of all live engines (`live.runtime.live_scheduler`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_engine import LiveSession, LiveSessionStart
from sidecar.interfaces.live_events import LiveEventCallback
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.audio import Block
    from sidecar.diarization.speaker_models import SpeakerModels
    from sidecar.engines.voxtral.voxtral_stream import VoxtralModel
    from sidecar.live.runtime.live_scheduler import LiveScheduler
    from sidecar.live.runtime.partial_results import RecognitionHypothesis

SPEC = engine_interface.EngineSpec(
    name="voxtral",
    title="Voxtral Realtime (live only)",
    sample_rate=LIVE_RATE,
    precisions=(engine_interface.Precision.BF16, engine_interface.Precision.FP32),
    languages=("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh"),
    diarizes=True,
    requires=("torch", "transformers"),
    # of which `gpu_memory.memory_footprint` leaves as many as there is room for, and those who
    sessions=100,
    # are there let in as many as they do not have to wait for (`live.runtime.load_shedding`)
)
DTYPES = {engine_interface.Precision.BF16: "bfloat16", engine_interface.Precision.FP32: "float32"}
STEP_S, MAX_DELAY_TOKENS = 0.08, 30
"""Seconds of a token, and how many of them the words may be behind at most."""
SLICE_SAMPLES = LIVE_RATE
"""Samples between two looks at whether anybody still wants it."""


class VoxtralEngine:
    """One model, many streams."""

    def __init__(self) -> None:
        self._voxtral: VoxtralModel | None = None
        self._voices: SpeakerModels | None = None
        self._scheduler: LiveScheduler | None = None
        self._precision = engine_interface.Precision.FP32

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Read the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is not there, or no good, or does not fit.
        """
        if options.checkpoint is None:
            raise errors.ModelLoadFailed("No Voxtral Realtime checkpoint is set.")
        yield 0.0
        from sidecar.engines.voxtral import voxtral_stream

        wanted = options.precision
        self._precision = wanted if wanted in DTYPES else engine_interface.Precision.BF16
        folder, dtype = Path(options.checkpoint), DTYPES[self._precision]
        self._voxtral = voxtral_stream.load_voxtral(folder, options.device, dtype)
        yield 0.9
        from sidecar.diarization.speaker_models import shared_speaker_models

        self._voices = shared_speaker_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Files are not for it.

        Raises:
            errors.EngineUnavailable: always.
        """
        raise errors.EngineUnavailable("The engine 'voxtral' transcribes live audio only.")

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """A session among others.

        Raises:
            errors.LiveUnavailable: the detector is not to be had here.
        """
        if self._scheduler is None:
            self._scheduler = self._opened()
        return self._scheduler.open(options, begin, tell)

    def _opened(self) -> LiveScheduler:
        from sidecar.diarization.speaker_models import SpeakerEncoder
        from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
        from sidecar.live.runtime.partial_results import PartialSchedule
        from sidecar.live.runtime.vad import load_vad

        encoder = None if self._voices is None else SpeakerEncoder(self._voices)
        return LiveScheduler(
            LiveRecognizers(self._hear, self._glimpse, encoder=encoder),
            load_vad(),
            SPEC.name,
            self._precision.value,
            threads=1,  # the model is one, and what is not in it holds Python's lock
            manner=PartialSchedule(first_s=2 * STEP_S, step_s=2 * STEP_S, grows=True),
        )

    def _hear(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize the audio behind the draft, and the end; all of it if the draft is not its
        beginning."""
        found = self._glimpse(audio, draft, options, cancelled)
        if cancelled():
            return None
        stream: Any = found.draft
        stream.end()
        return _hypothesis(stream)

    def _glimpse(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> RecognitionHypothesis:
        from sidecar.engines.voxtral.voxtral_stream import VoxtralStream

        assert self._voxtral is not None
        delay = delay_tokens(options.delay_s, self._voxtral.tekken.delay)
        stream: Any = draft.draft if draft is not None else None
        if stream is None or not stream.goes_on(len(audio)):
            stream = VoxtralStream(self._voxtral, delay)
        for at in range(stream.fed, len(audio), SLICE_SAMPLES):
            if cancelled():
                break
            stream.feed(audio[at : at + SLICE_SAMPLES])
        return _hypothesis(stream)


def delay_tokens(wanted_s: float | None, usual: int) -> int:
    """Tokens that words are behind: the nearest that there is to what is wanted."""
    if wanted_s is None:
        return usual
    return min(MAX_DELAY_TOKENS, max(1, round(wanted_s / STEP_S)))


def _hypothesis(stream: Any) -> RecognitionHypothesis:
    from sidecar.live.runtime.partial_results import RecognitionHypothesis

    return RecognitionHypothesis(stream.text.strip(), draft=stream)
