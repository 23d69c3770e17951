"""Moonshine ASR engine: the embedded engine of moonshine-voice.

It runs on any CPU and recognizes English only. Diarization covers the whole recording; audio is
kept until it is recognized, so that memory is flat at any length. An utterance is
recognized as soon as it ends, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from sidecar.audio import SAMPLE_RATE
from sidecar.engines.live_sessions import LiveSessions
from sidecar.interfaces import engine_interface
from sidecar.transcripts.language_detection import EnglishCheck, with_language_notice
from sidecar.transcripts.transcript import ResumePoint, Transcript, TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.audio import Block
    from sidecar.engines.moonshine.moonshine_recognizer import (
        MoonshineHypothesis,
        MoonshineRecognizer,
    )
    from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
    from sidecar.live.runtime.live_scheduler import LiveScheduler

log = logging.getLogger(__name__)

SPEC = engine_interface.EngineSpec(
    name="moonshine",
    factory="sidecar.engines.moonshine:MoonshineEngine",
    title="Embedded CPU engine (moonshine tiny-en)",
    sample_rate=SAMPLE_RATE,
    precisions=(engine_interface.Precision.INT8,),  # the wheel's weights are quantized to 8 bits
    languages=("en",),
    diarizes=True,
    by_voices=True,
    counted=True,
    hotwords=True,
    words=True,
    requires=("moonshine_voice", "onnxruntime"),
    # with users who mostly listen; `live.runtime.load_shedding` measures how many may speak
    sessions=500,
    resumes="moonshine-4",  # changes whenever the meaning of resume points changes
)


class MoonshineEngine(LiveSessions):
    """Moonshine engine: recognized words and speaker turns, joined into segments."""

    sample_rate = SPEC.sample_rate

    def __init__(self, *, others: bool = False) -> None:
        """``others``: another engine transcribes other languages."""
        self._recognizer: MoonshineRecognizer | None = None
        self._others = others

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the models (about 0.5 s).

        Raises:
            errors.ModelLoadFailed: one is missing, or onnxruntime does not run it.
        """
        from sidecar.engines.moonshine import moonshine_recognizer

        folder = moonshine_recognizer.model_folder()
        self._recognizer = moonshine_recognizer.MoonshineRecognizer(folder)
        yield 0.5
        from sidecar.diarization.speaker_models import load_models

        self._speaker_models = load_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as speech ends; their speakers are final at the end."""
        return self.events(None, request)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe from the last resume point on."""
        return self.events(resume_points, request)

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.engines.moonshine.moonshine_recognizer import warm_up_audio

        precision = engine_interface.Precision.INT8
        return self._schedule(
            SPEC, precision, self._recognize, contexts=True, sample=warm_up_audio()
        )

    def _recognize(self, request: SegmentRequest) -> RecognitionHypothesis | None:
        assert self._recognizer is not None
        before = request.preceding_context
        found = self._recognizer.recognize(
            request.audio,
            cast(
                "MoonshineHypothesis | None",
                request.draft_hypothesis and request.draft_hypothesis.draft,
            ),
            request.cancelled,
            words=request.options.words,
            given=before.said if before else (),
            samples=before.samples if before else 0,
            hotwords=request.options.hotwords,
        )
        return None if found is None else _hypothesis(found)

    def events(
        self,
        resume_points: Sequence[ResumePoint] | None,
        request: engine_interface.TranscriptionRequest,
        check: EnglishCheck | None = None,
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `transcribe_from`, or without resume points as `transcribe`. If ``check``
        finds another language, end without `Finished`."""
        from sidecar.diarization.diarizer import Diarizer
        from sidecar.engines.utterance_transcription import UtteranceTranscription

        recognizer, options = self._recognizer, request.options
        assert recognizer is not None
        assert self._speaker_models is not None

        def recognize(audio: Block, words: bool) -> RecognitionHypothesis | None:
            found = recognizer.recognize(
                audio, None, request.cancelled, words=words, hotwords=options.hotwords
            )
            return None if found is None else _hypothesis(found)

        diarizer = Diarizer.wished(self._speaker_models, options)
        work = UtteranceTranscription(
            recognize, diarizer, self._gap_vad, request, SPEC, resumable=resume_points is not None
        )

        def complete(transcript: Transcript) -> Transcript:
            return with_language_notice(transcript, work.confidence, others=self._others)

        yield from work.run(resume_points, engine_interface.Precision.INT8, complete, check)


def _hypothesis(hypothesis: MoonshineHypothesis) -> RecognitionHypothesis:
    from sidecar.interfaces.recognition import RecognitionHypothesis

    return RecognitionHypothesis(
        hypothesis.text,
        hypothesis.words,
        language="en",
        draft=hypothesis,
        tokens=tuple(hypothesis.tokens),
        confidence=hypothesis.confidence,
        likelihood=hypothesis.confidence.mean,
    )
