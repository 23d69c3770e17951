"""Engine 'transformers': recordings and live audio by a recognizer of utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sidecar.audio import SAMPLE_RATE
from sidecar.checkpoints.checkpoint import checkpoint_name, read_config
from sidecar.engines.live_sessions import LiveSessions
from sidecar.errors import ModelLoadFailed
from sidecar.interfaces.engine_interface import AUTO, LoadOptions, Precision, TranscriptionRequest
from sidecar.plugins.transformers_asr import SPEC
from sidecar.plugins.transformers_asr.architectures import spec_of
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import (
    TRUNCATED,
    Notice,
    ResumePoint,
    Transcript,
    TranscriptionEvent,
)

if TYPE_CHECKING:
    from sidecar.audio import Block
    from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
    from sidecar.live.runtime.live_scheduler import LiveScheduler
    from sidecar.plugins.transformers_asr.recognizer import Recognizer


STREAM_STEP_S = 0.24
"""Seconds of live speech between two steps of a streaming model; it takes whole chunks."""


class TransformersEngine(LiveSessions):
    """Engine with one model of transformers."""

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        self.recognizer: Recognizer | None = None
        """The loaded model; None before `load`."""
        self._precision = Precision.FP32
        self._spec, self._name = SPEC, ""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Load the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        if options.checkpoint is None:
            raise ModelLoadFailed(f"No model is set for the engine '{SPEC.name}'.")
        yield 0.0
        folder = Path(options.checkpoint)
        self._spec, self._name = spec_of(read_config(folder, "")), checkpoint_name(folder)
        from sidecar.plugins.transformers_asr.model_loading import load_recognizer

        self.recognizer, self._precision = load_recognizer(options)
        yield 0.9
        from sidecar.diarization.speaker_models import load_models

        self._speaker_models = load_models()
        yield 1.0

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        """Yield segments as speech ends; their speakers are final at the end."""
        yield from self._events(None, request)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe from the last resume point on."""
        yield from self._events(resume_points, request)

    def _events(
        self, resume_points: Sequence[ResumePoint] | None, request: TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        from sidecar.diarization.diarizer import Diarizer
        from sidecar.engines.utterance_transcription import UtteranceTranscription

        recognizer = self.recognizer
        assert recognizer is not None
        if not recognizer.architecture.told:  # nor does a transcript repeat what was asked for
            request = replace(request, options=replace(request.options, language=AUTO))
        wanted = request.options
        assert self._speaker_models is not None
        cut = 0

        def recognize(audio: Block, words: bool) -> RecognitionHypothesis | None:
            nonlocal cut
            found = recognizer.recognize(audio, wanted, request.cancelled, words=words)
            cut += found is not None and found.unheard
            return found

        def complete(transcript: Transcript) -> Transcript:
            if cut:
                transcript = transcript.with_notice(
                    Notice(TRUNCATED, f"The output of the model ended early in {cut} utterances.")
                )
            return replace(transcript, model=self._name)

        work = UtteranceTranscription(
            recognize,
            Diarizer.wished(self._speaker_models, wanted),
            self._gap_vad,
            request,
            self._spec,
            resumable=resume_points is not None,
            longest_s=recognizer.architecture.longest_s,
        )
        yield from work.run(resume_points, self._precision, complete)

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.interfaces.recognition import PartialSchedule
        from sidecar.live.runtime.recognition_plan import WorkPace

        assert self.recognizer is not None
        # There is one model, so one thread.
        if self.recognizer.architecture.streams:
            return self._schedule(
                self._spec,
                self._precision,
                partial(self.stream, ended=True),
                partial(self.stream, ended=False),
                threads=1,
                schedule=PartialSchedule(first_s=STREAM_STEP_S, step_s=STREAM_STEP_S, grows=True),
            )
        return self._schedule(
            self._spec, self._precision, self.recognize, threads=1, pace=WorkPace()
        )

    def recognize(self, request: SegmentRequest) -> RecognitionHypothesis | None:
        """Recognize a segment (`live.runtime.live_scheduler.RecognizeFunction`)."""
        recognizer, options = self.recognizer, request.options
        assert recognizer is not None
        found = recognizer.recognize(request.audio, options, request.cancelled, words=options.words)
        return found and self._reported(found)

    def _reported(self, found: RecognitionHypothesis) -> RecognitionHypothesis:
        """Return what a session reports: not the language of its options if the model cannot be
        told it, and no doubt about English, which is for an engine that knows only that."""
        assert self.recognizer is not None
        language = found.language or ("" if self.recognizer.architecture.told else AUTO)
        return replace(found, language=language, confidence=Confidence())

    def stream(self, request: SegmentRequest, *, ended: bool) -> RecognitionHypothesis | None:
        """Recognize the segment after the draft; all of it if the draft is not its beginning."""
        from sidecar.plugins.transformers_asr.nemotron_stream import NemotronStream

        draft = request.draft_hypothesis
        stream: Any = draft.draft if draft is not None else None
        if stream is None or not stream.goes_on(len(request.audio)):
            stream = NemotronStream(cast(Any, self.recognizer), request.options)
        found: RecognitionHypothesis = stream.recognize(
            request.audio, request.cancelled, ended=ended
        )
        if ended and request.cancelled():
            return None
        words = found.words if request.options.words else ()
        return self._reported(replace(found, draft=stream, words=words))
