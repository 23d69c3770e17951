"""Live recognition by Whisper.

CTranslate2 cannot be stopped inside a window, so windows run on threads of their own. A cancelled
caller returns at once, and the window runs to its end. To keep the cost for other sessions small,
an utterance has a few seconds and nothing is retried. If a window takes long, only finals are
recognized (`live.runtime.partial_results`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.loudness import quietest_sample
from sidecar.diarization.diarizer import wait_unless_cancelled
from sidecar.diarization.speaker_models import SpeakerEncoder, SpeakerModels
from sidecar.engines.whisper import whisper_model
from sidecar.engines.whisper.whisper_transcription import CUT_SEARCH_S, WINDOW_S
from sidecar.interfaces.engine_interface import AUTO, CancelCheck
from sidecar.interfaces.live_engine import LiveSession, LiveSessionStart
from sidecar.interfaces.live_events import LiveEventCallback
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
from sidecar.live.runtime.partial_results import RecognitionHypothesis, WorkPace
from sidecar.live.runtime.vad import load_vad
from sidecar.transcripts.transcript import Word, join_texts

_PAUSE_S = 0.1


class WhisperLiveRecognizer:
    """Threads of the windows, and scheduler of the live sessions."""

    def __init__(
        self, model: whisper_model.WhisperRecognizer, name: str, voices: SpeakerModels
    ) -> None:
        """Raises:
        errors.LiveUnavailable: voice activity detection is not available.
        """
        detector = load_vad()
        self._model = model
        at_once = whisper_model.live_workers("cuda" if model.on_gpu else "cpu")
        self._threads = ThreadPoolExecutor(at_once, "window")
        recognizers = LiveRecognizers(self.hear, self.glimpse, encoder=SpeakerEncoder(voices))
        self._scheduler = LiveScheduler(
            recognizers, detector, name, model.precision.value, at_once, WorkPace()
        )

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """Open a live session.

        Raises:
            errors.LanguageUnsupported: this model does not support the language.
        """
        code = _language_code(options.language)
        if code is not None and self._model.multilingual and not self._model.knows(code):
            raise errors.LanguageUnsupported(
                f"This Whisper model does not support the language '{code}'."
            )
        return self._scheduler.open(options, begin, tell)

    def hear(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize a finished segment (`live.runtime.live_scheduler.RecognizeFunction`), with
        `BEAM_SIZE` hypotheses if the client prefers accuracy."""
        found: list[whisper_model.WhisperResult] = []
        for window in _cut_windows(audio):
            beams = whisper_model.BEAM_SIZE if options.accurate else 1
            heard = self._window(window, self._wish(options, beams, timed=options.words), cancelled)
            if heard is None:
                return None
            found.append(heard)
        return _hypothesis(
            found, [len(window) / whisper_model.SAMPLE_RATE for window in _cut_windows(audio)]
        )

    def glimpse(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize the last half minute of a segment in progress, quickly."""
        window = audio[-round(WINDOW_S * whisper_model.SAMPLE_RATE) :]
        wish = self._wish(options, beams=1, timed=False)
        heard = self._window(window, wish, cancelled)
        return None if heard is None else _hypothesis([heard], [0.0])

    def _wish(
        self, options: LiveOptions, beams: int, *, timed: bool
    ) -> whisper_model.WhisperRequest:
        code = _language_code(options.language)
        return whisper_model.WhisperRequest(
            code if code is None or self._model.knows(code) else None,
            options.prompt,
            translate=options.translate and self._model.multilingual,
            beams=beams,
            retries=False,
            timed=timed,
        )

    def _window(
        self, audio: Block, wish: whisper_model.WhisperRequest, cancelled: CancelCheck
    ) -> whisper_model.WhisperResult | None:
        if cancelled():
            return None
        return wait_unless_cancelled(self._threads.submit(self._model.hear, audio, wish), cancelled)


def _language_code(language: str) -> str | None:
    """Return Whisper's code for a language tag; `None` for `AUTO`."""
    return None if language == AUTO else language.split("-")[0].lower()


def _cut_windows(audio: Block) -> list[Block]:
    """Cut a segment into windows; only a client that configures long segments needs several."""
    longest, found = round(WINDOW_S * whisper_model.SAMPLE_RATE), []
    while len(audio) > longest:
        late = longest - round(CUT_SEARCH_S * whisper_model.SAMPLE_RATE)
        cut = late + quietest_sample(audio[late:longest], whisper_model.SAMPLE_RATE, _PAUSE_S)
        found.append(audio[:cut])
        audio = audio[cut:]
    return [*found, audio]


def _hypothesis(
    found: list[whisper_model.WhisperResult], lengths_s: list[float]
) -> RecognitionHypothesis:
    """Join the results of consecutive windows; the first detected language counts."""
    words: list[Word] = []
    before = 0.0
    for heard, length_s in zip(found, lengths_s, strict=True):
        words += [
            Word(before + min(word.start, length_s), before + min(word.end, length_s), text)
            for word in heard.words
            if (text := word.text.strip())
        ]
        before += length_s
    spoken = next((heard for heard in found if heard.language is not None), None)
    return RecognitionHypothesis(
        join_texts(heard.text for heard in found if heard.text),
        tuple(words),
        language=(spoken.language or "") if spoken else "",
        sure=spoken.sure if spoken else False,
    )
