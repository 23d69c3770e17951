"""Whisper engine (faster-whisper) and its languages.

The model recognizes words, but not speakers. A diarizer follows the recording on another core. It
also detects speech, so that silence is not transcribed at all.

CTranslate2 cannot be stopped inside a window, so windows run on threads of their own. A cancelled
caller of live recognition returns at once, and the window runs to its end. To keep the cost for
other sessions small, an utterance has a few seconds and nothing is retried. If a window takes long,
only finals are recognized (`live.runtime.recognition_plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.engines.live_sessions import LiveSessions
from sidecar.errors import LanguageUnsupported, ModelLoadFailed
from sidecar.interfaces import engine_interface
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, language_code
from sidecar.interfaces.live_events import LiveEventCallback, LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.diarization.speaker_models import SpeakerModels
    from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer
    from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
    from sidecar.live.runtime.live_scheduler import EngineSession, LiveScheduler


SPEC = engine_interface.EngineSpec(
    name="whisper",
    factory="sidecar.engines.whisper:WhisperEngine",
    title="Whisper (faster-whisper)",
    sample_rate=SAMPLE_RATE,
    precisions=(
        engine_interface.Precision.INT8,
        engine_interface.Precision.FP16,
        engine_interface.Precision.FP32,
    ),
    languages=tuple(LANGUAGE_NAMES),
    diarizes=True,
    by_voices=True,
    requires=("faster_whisper", "ctranslate2"),
    steerable=True,
    counted=True,
    translates=True,
    resumes="whisper-2",  # changes whenever the meaning of resume points changes
    sessions=4,  # users who talk, with `tiny` on two cores; with `base` one (docs/models.md)
)


class WhisperEngine(LiveSessions):
    """Whisper engine: recognized words and speaker turns, joined into segments."""

    sample_rate = SPEC.sample_rate

    def __init__(self, speaker_models: SpeakerModels | None = None) -> None:
        """``speaker_models``: those of another engine in this process; None: `load` loads them."""
        self.model: WhisperRecognizer | None = None
        self._speaker_models = speaker_models
        self._thread = ThreadPoolExecutor(1, "whisper")

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the model onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        if options.checkpoint is None:
            raise ModelLoadFailed(
                "No Whisper model is set.", hint="Run 'vibevoice-asr pull whisper:small'."
            )
        yield 0.0
        from sidecar.engines.whisper import whisper_decoder

        self.model = whisper_decoder.load_whisper(options)
        yield 0.8
        if self._speaker_models is None:
            from sidecar.diarization.speaker_models import load_models

            self._speaker_models = load_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as windows are recognized; their speakers are final at the end."""
        return self.events(None, request)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `transcribe`, from the last resume point on."""
        return self.events(resume_points, request)

    def events(
        self,
        resume_points: Sequence[ResumePoint] | None,
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `transcribe_from`, or without resume points as `transcribe`."""
        from sidecar.diarization.diarizer import Diarizer
        from sidecar.engines.whisper.whisper_transcription import WhisperTranscription

        assert self.model is not None
        assert self._speaker_models is not None
        diarizer = Diarizer.wished(self._speaker_models, request.options)
        work = WhisperTranscription(self.model, self._thread, diarizer, request, resume_points)
        for event in work.events():
            if request.cancelled():
                return
            yield event

    def open(
        self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback
    ) -> EngineSession:
        """Open a live session as `LiveSessions.open`."""
        assert self.model is not None
        code = language_code(options.language)
        if code is not None and self.model.multilingual and not self.model.knows(code):
            raise LanguageUnsupported(f"This Whisper model does not support the language '{code}'.")
        return super().open(options, start, tell)

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.engines.whisper.whisper_decoder import live_workers
        from sidecar.live.runtime.recognition_plan import WorkPace

        assert self.model is not None
        at_once = live_workers("cuda" if self.model.on_gpu else "cpu")
        self._windows = ThreadPoolExecutor(at_once, "window")
        precision = self.model.precision
        return self._schedule(SPEC, precision, self.recognize, threads=at_once, pace=WorkPace())

    def recognize(self, request: SegmentRequest) -> RecognitionHypothesis | None:
        """Recognize a segment (`live.runtime.live_scheduler.RecognizeFunction`), with `BEAM_SIZE`
        hypotheses if the client prefers accuracy. It is at most one window: sessions cut utterances
        at half a minute (`live.sessions.session_limits`)."""
        from sidecar.diarization.diarizer import wait_unless_cancelled
        from sidecar.engines.whisper.whisper_decoder import BEAM_SIZE, WhisperRequest
        from sidecar.interfaces.recognition import RecognitionHypothesis

        assert self.model is not None
        if request.cancelled():
            return None
        options = request.options
        code = language_code(options.language)
        wish = WhisperRequest(
            code if code is None or self.model.knows(code) else None,
            options.prompt_with_hotwords,
            translate=options.translate and self.model.multilingual,
            beams=BEAM_SIZE if options.accurate else 1,
            retries=False,
            timed=options.words,
        )
        before = options.language_before or None
        hearing = self._windows.submit(self.model.recognize, request.audio, wish, before)
        found = wait_unless_cancelled(hearing, request.cancelled)
        if found is None:
            return None
        length_s = len(request.audio) / SAMPLE_RATE
        words = tuple(
            replace(word, start=min(word.start, length_s), end=min(word.end, length_s), text=text)
            for word in found.words
            if (text := word.text.strip())
        )
        spoken = found.language is not None
        return RecognitionHypothesis(
            found.text,
            words,
            language=found.language or "",
            sure=spoken and found.sure,
            likelihood=found.confidence,
            no_speech=found.no_speech,
        )
