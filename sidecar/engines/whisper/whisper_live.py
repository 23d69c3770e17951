"""Live recognition by Whisper.

CTranslate2 cannot be stopped inside a window, so windows are heard on threads of their own: who is
cancelled is answered at once and leaves the window to end by itself. What that costs the others is
kept small: a piece of speech has some seconds, nothing is tried again, and where a window takes
long only finals are heard (`live.runtime.speech_segments`).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.loudness import quietest
from sidecar.diarization.speaker_models import Models, SpeakerEncoder
from sidecar.engines.whisper.whisper_model import BEAMS, SAMPLE_RATE, Heard, Model, Wish, workers
from sidecar.engines.whisper.whisper_transcription import SEARCH_S, WINDOW_S
from sidecar.interfaces.engine_interface import AUTO, Cancelled
from sidecar.interfaces.live_engine import Begin, LiveOptions, LiveSession
from sidecar.interfaces.live_events import Tell
from sidecar.live.runtime.live_scheduler import Ears, Hall
from sidecar.live.runtime.speech_segments import Hypothesis, Pace
from sidecar.live.runtime.vad import load_detector
from sidecar.transcripts.transcript import Word, joined

_ASKED_S = 0.05
_PAUSE_S = 0.1


class Ear:
    """Owns the threads of the windows, and the hall (`live.runtime.live_scheduler.Hall`) that the
    sessions sit in."""

    def __init__(
        self, model: Model, name: str, voices: Models | None, *, short_windows: bool = False
    ) -> None:
        """``voices``: by which speakers are told apart. ``short_windows``: what goes on is
        heard in windows as long as it is.

        Raises:
            errors.LiveUnavailable: the detector is not to be had here.
        """
        detector = load_detector()
        self._model = model
        self._short = short_windows
        at_once = workers("cuda" if model.on_gpu else "cpu")
        self._threads = ThreadPoolExecutor(at_once, "window")
        encoder = None if voices is None else SpeakerEncoder(voices)
        ears = Ears(self.hear, self.glimpse, encoder=encoder)
        self._hall = Hall(ears, detector, name, model.precision.value, at_once, Pace())

    def open(self, options: LiveOptions, begin: Begin, tell: Tell) -> LiveSession:
        """A session.

        Raises:
            errors.LanguageUnsupported: this model does not know the language.
        """
        code = _code(options.language)
        if code is not None and self._model.multilingual and not self._model.knows(code):
            raise errors.LanguageUnsupported(f"This Whisper model does not know '{code}'.")
        return self._hall.open(options, begin, tell)

    def hear(
        self, audio: Block, draft: Hypothesis | None, options: LiveOptions, cancelled: Cancelled
    ) -> Hypothesis | None:
        """What has ended (`live.runtime.live_scheduler.Hear`): `BEAMS` hypotheses where it is to be
        accurate."""
        found: list[Heard] = []
        for window in _windows(audio):
            beams = BEAMS if options.accurate else 1
            heard = self._window(window, self._wish(options, beams, timed=options.words), cancelled)
            if heard is None:
                return None
            found.append(heard)
        return _hypothesis(found, [len(window) / SAMPLE_RATE for window in _windows(audio)])

    def glimpse(
        self, audio: Block, draft: Hypothesis | None, options: LiveOptions, cancelled: Cancelled
    ) -> Hypothesis | None:
        """What goes on: its last half minute, quickly."""
        window = audio[-round(WINDOW_S * SAMPLE_RATE) :]
        wish = self._wish(options, beams=1, timed=False, padded=not self._short)
        heard = self._window(window, wish, cancelled)
        return None if heard is None else _hypothesis([heard], [0.0])

    def _wish(self, options: LiveOptions, beams: int, *, timed: bool, padded: bool = True) -> Wish:
        code = _code(options.language)
        return Wish(
            code if code is None or self._model.knows(code) else None,
            options.prompt,
            translate=options.translate and self._model.multilingual,
            beams=beams,
            retries=False,
            timed=timed,
            padded=padded,
        )

    def _window(self, audio: Block, wish: Wish, cancelled: Cancelled) -> Heard | None:
        hearing: Future[Heard] = self._threads.submit(self._model.hear, audio, wish)
        while not cancelled():
            if wait([hearing], _ASKED_S).done:
                return hearing.result()
        hearing.cancel()
        return None


def _code(language: str) -> str | None:
    """Whisper's code for a tag; None for none."""
    return None if language == AUTO else language.split("-")[0].lower()


def _windows(audio: Block) -> list[Block]:
    """A piece is one window, unless a client wants pieces that are longer than any."""
    longest, found = round(WINDOW_S * SAMPLE_RATE), []
    while len(audio) > longest:
        late = longest - round(SEARCH_S * SAMPLE_RATE)
        cut = late + quietest(audio[late:longest], SAMPLE_RATE, _PAUSE_S)
        found.append(audio[:cut])
        audio = audio[cut:]
    return [*found, audio]


def _hypothesis(found: list[Heard], lengths_s: list[float]) -> Hypothesis:
    """What windows say that follow each other; of their languages the first counts."""
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
    return Hypothesis(
        joined(heard.text for heard in found if heard.text),
        tuple(words),
        language=(spoken.language or "") if spoken else "",
        sure=spoken.sure if spoken else False,
    )
