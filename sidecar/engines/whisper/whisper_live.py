"""Live recognition by Whisper.

CTranslate2 cannot be stopped inside a window, so windows run on threads of their own. A cancelled
caller returns at once, and the window runs to its end. To keep the cost for other sessions small,
an utterance has a few seconds and nothing is retried. If a window takes long, only finals are
recognized (`live.runtime.partial_results`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.diarizer import wait_unless_cancelled
from sidecar.diarization.speaker_models import SpeakerEncoder, SpeakerModels
from sidecar.engines.whisper import whisper_decoder
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.interfaces.live_events import LiveEventCallback, LiveSession, LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
from sidecar.live.runtime.partial_results import RecognitionHypothesis, WorkPace
from sidecar.live.runtime.vad import load_vad
from sidecar.transcripts.transcript import Word


class WhisperLiveRecognizer:
    """Threads of the windows, and scheduler of the live sessions."""

    def __init__(
        self, model: whisper_decoder.WhisperRecognizer, name: str, voices: SpeakerModels
    ) -> None:
        """Raises:
        errors.LiveUnavailable: voice activity detection is not available.
        """
        detector = load_vad()
        self.model = model
        at_once = whisper_decoder.live_workers("cuda" if model.on_gpu else "cpu")
        self._threads = ThreadPoolExecutor(at_once, "window")
        recognizers = LiveRecognizers(self.hear, self.glimpse, encoder=SpeakerEncoder(voices))
        self.scheduler = LiveScheduler(
            recognizers, detector, name, model.precision.value, at_once, WorkPace()
        )

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """Open a live session.

        Raises:
            errors.LanguageUnsupported: this model does not support the language.
        """
        code = whisper_decoder.language_code(options.language)
        if code is not None and self.model.multilingual and not self.model.knows(code):
            raise errors.LanguageUnsupported(
                f"This Whisper model does not support the language '{code}'."
            )
        return self.scheduler.open(options, begin, tell)

    def hear(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize a finished segment (`live.runtime.live_scheduler.RecognizeFunction`), with
        `BEAM_SIZE` hypotheses if the client prefers accuracy."""
        beams = whisper_decoder.BEAM_SIZE if options.accurate else 1
        return self._window(audio, options, cancelled, beams, timed=options.words)

    def glimpse(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize a segment in progress, quickly."""
        return self._window(audio, options, cancelled, beams=1, timed=False)

    def _window(
        self, audio: Block, options: LiveOptions, cancelled: CancelCheck, beams: int, *, timed: bool
    ) -> RecognitionHypothesis | None:
        """Recognize audio of at most one window: sessions cut utterances at half a minute
        (`live.sessions.session_limits`)."""
        if cancelled():
            return None
        code = whisper_decoder.language_code(options.language)
        wish = whisper_decoder.WhisperRequest(
            code if code is None or self.model.knows(code) else None,
            options.prompt,
            translate=options.translate and self.model.multilingual,
            beams=beams,
            retries=False,
            timed=timed,
        )
        before = options.language_before or None
        hearing = self._threads.submit(self.model.hear, audio, wish, before)
        heard = wait_unless_cancelled(hearing, cancelled)
        if heard is None:
            return None
        length_s = len(audio) / SAMPLE_RATE
        words = tuple(
            Word(min(word.start, length_s), min(word.end, length_s), text)
            for word in heard.words
            if (text := word.text.strip())
        )
        spoken = heard.language is not None
        return RecognitionHypothesis(
            heard.text, words, language=heard.language or "", sure=spoken and heard.sure
        )
