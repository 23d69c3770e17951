"""Live segments of VibeVoice-ASR-Streaming: windows of several sessions in shared passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import soxr
import torch

from sidecar.audio import Block
from sidecar.engines.vibevoice.streaming_checkpoint import StreamingFormat
from sidecar.engines.vibevoice.streaming_model import ChunkText, StreamingModel, StreamingSession
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.live.runtime.partial_results import RecognitionHypothesis, SegmentRequest
from sidecar.transcripts.streamed_turns import StreamedTurn, StreamedTurns
from sidecar.transcripts.transcript import mean_confidence

WINDOWS_AT_ONCE = 8
"""Sessions that share passes of the decoder; others wait for the next ones."""
_SESSION = "streaming_session"


class StreamedSegment:
    """Segment of speech as the model hears it: its windows, and the turns of its text.

    It begins at the sample ``start`` of the session, at `LIVE_RATE`.
    """

    def __init__(self, start: int, form: StreamingFormat) -> None:
        self.fed = start
        """Sample of the session up to which audio has come."""
        self.usable = True
        """False once it was stopped between two windows."""
        self.turns = StreamedTurns()
        self._form, self._start_s = form, start / LIVE_RATE
        self._resampler = soxr.ResampleStream(LIVE_RATE, form.rate, 1, dtype="float32")
        self._held = np.zeros(0, np.float32)
        self._heard = 0

    def feed(self, audio: Block, *, last: bool) -> None:
        """Add audio behind that so far; ``last``: no more comes."""
        self.fed += len(audio)
        self._held = np.concatenate([self._held, self._resampler.resample_chunk(audio, last)])

    def window(self, *, last: bool) -> Block | None:
        """Return the next window; None if its audio has not come. ``last``: it may be short."""
        enough = len(self._held) >= self._form.window_samples or (last and len(self._held))
        return self._held[: self._form.window_samples] if enough else None

    def say(self, chunk: ChunkText) -> Iterator[StreamedTurn]:
        """Add the text of that window; yield the turns that it closes."""
        samples = min(self._form.chunk_samples, len(self._held))
        begin_s = self._start_s + self._heard / self._form.rate
        self._held = self._held[samples:]
        self._heard += samples
        end_s = self._start_s + self._heard / self._form.rate
        yield from self.turns.feed(chunk.text, begin_s, end_s, chunk.likelihoods)


@dataclass(slots=True)
class _WaitingWindow:
    session: StreamingSession
    window: Block
    chunk: ChunkText | None = None


class SharedModel:
    """Model for several threads, each with a segment of its own: windows that wait for the model
    at the same time share its passes."""

    def __init__(self, model: StreamingModel) -> None:
        self._model = model
        self._lock = Lock()
        self._waiting: list[_WaitingWindow] = []

    def recognize(self, request: SegmentRequest, *, last: bool) -> RecognitionHypothesis | None:
        """Recognize the windows of a segment that are complete; ``last``: all of its audio. None
        once it is cancelled."""
        draft = request.draft.draft if request.draft is not None else None
        segment = draft if isinstance(draft, StreamedSegment) and draft.usable else None
        segment = segment or StreamedSegment(request.start, self._model.format)
        segment.feed(request.audio[segment.fed - request.start :], last=last)
        turns: list[StreamedTurn] = []
        while (window := segment.window(last=last)) is not None:
            if request.cancelled():
                segment.usable = False
                return None
            turns += segment.say(self._transcribe(self._session(request), window))
        if last:
            turns += segment.turns.finish()
            text = turns.pop() if turns else None
        else:
            text = segment.turns.open
        said = _hypothesis(text)
        earlier = tuple((round(one.end * LIVE_RATE), _hypothesis(one)) for one in turns)
        return RecognitionHypothesis(
            said.text, draft=segment, likelihood=said.likelihood, earlier=earlier
        )

    def _session(self, request: SegmentRequest) -> StreamingSession:
        """Return the session of the request in the model, which begins with its first window."""
        session = request.session.get(_SESSION)
        if session is None:
            with self._lock, torch.inference_mode():
                session = request.session[_SESSION] = self._model.open(request.options.prompt)
        found: StreamingSession = session
        return found

    def _transcribe(self, session: StreamingSession, window: Block) -> ChunkText:
        """Wait for the model, and transcribe this window with all others that wait."""
        mine = _WaitingWindow(session, window)
        self._waiting.append(mine)
        while mine.chunk is None:
            with self._lock:
                if mine.chunk is not None:
                    break
                due, self._waiting = (
                    self._waiting[:WINDOWS_AT_ONCE],
                    self._waiting[WINDOWS_AT_ONCE:],
                )
                with torch.inference_mode():
                    chunks = self._model.transcribe(
                        [one.session for one in due], [one.window for one in due]
                    )
                for one, chunk in zip(due, chunks, strict=True):
                    one.chunk = chunk
        return mine.chunk


def _hypothesis(turn: StreamedTurn | None) -> RecognitionHypothesis:
    if turn is None:
        return RecognitionHypothesis("")
    return RecognitionHypothesis(turn.text.strip(), likelihood=mean_confidence(turn.likelihoods))
