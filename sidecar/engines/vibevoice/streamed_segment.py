"""Windows and turns of a live segment, or of a whole recording, for VibeVoice-ASR-Streaming."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.transcripts.streamed_turns import LoopOverChunks, StreamedTurn, StreamedTurns
from sidecar.transcripts.transcript import mean_confidence

log = logging.getLogger(__name__)


class StreamWindows(Protocol):
    """Windows of a streaming model: `window_samples` at `rate` each, the next one begins
    `chunk_samples` behind."""

    @property
    def rate(self) -> int:
        """Return the samples per second."""

    @property
    def chunk_samples(self) -> int:
        """Return the samples from one window to the next."""

    @property
    def window_samples(self) -> int:
        """Return the samples of a window."""


@dataclass(frozen=True, slots=True)
class ChunkText:
    """Text of a chunk. ``likelihoods``: the natural logarithm of each token's probability.
    ``looped``: a repetition was cut off, or the text did not end. ``renewed``: the cache began
    again before it. ``forget``: take it out of the session, before the next chunk."""

    text: str
    likelihoods: tuple[float, ...] = ()
    looped: bool = False
    renewed: bool = False
    forget: Callable[[], None] = lambda: None


class StreamedSegment:
    """Audio from the sample ``start`` on: its windows, and the turns of its text.

    Its state changes only in `feed`, `say` and `take`: a window whose transcription fails is there
    once more.
    """

    def __init__(self, windows: StreamWindows, start: int = 0) -> None:
        self.fed = start
        """Sample up to which audio has come."""
        self.turns = StreamedTurns()
        self.loops = 0
        """Chunks with a repetition, which is cut off."""
        self._loop = LoopOverChunks()
        self._ended: list[StreamedTurn] = []
        self._windows, self._start_s = windows, start / windows.rate
        self._held = np.zeros(0, np.float32)
        self._said_samples = 0

    @property
    def end_s(self) -> float:
        """Return the seconds up to which there is text."""
        return self._start_s + self._said_samples / self._windows.rate

    def feed(self, audio: Block) -> None:
        """Add audio."""
        self.fed += len(audio)
        self._held = np.concatenate([self._held, audio])

    def window(self, *, last: bool) -> Block | None:
        """Return the next window; None if its audio has not come. ``last``: it may be short."""
        enough = len(self._held) >= self._windows.window_samples or (last and len(self._held))
        return self._held[: self._windows.window_samples] if enough else None

    def say(self, chunk: ChunkText) -> Block:
        """Add the text of that window; return the audio that it is the text of."""
        start_s, audio = self.end_s, self._held[: self._windows.chunk_samples]
        self._held = self._held[len(audio) :]
        self._said_samples += len(audio)
        text, likelihoods = self._loop.words_before(chunk.text), chunk.likelihoods
        self.loops += chunk.looped or text != chunk.text
        if chunk.text and not text:
            chunk.forget()
            likelihoods = ()
        self._ended += self.turns.feed(text, start_s, self.end_s, likelihoods)
        return audio

    def take(self, *, last: bool = False) -> list[StreamedTurn]:
        """Return the turns that have ended since the last call; ``last``: the open one, too."""
        ended, self._ended = self._ended, []
        return [*ended, *self.turns.finish()] if last else ended


WindowTranscriber = Callable[[SegmentRequest, StreamedSegment, Block], ChunkText]
"""Transcription of the next window of a segment; a short one is its last audio."""


def recognize_windows(
    windows: StreamWindows,
    transcribe: WindowTranscriber,
    request: SegmentRequest,
    *,
    last: bool,
) -> RecognitionHypothesis:
    """Recognize the windows of a live segment that are complete; ``last``: all of its audio. A
    window that fails is tried once more; the words before it stay.

    Raises:
        errors.DeviceLost: nothing in this process can use the device again.
    """
    draft = request.draft_hypothesis.draft if request.draft_hypothesis is not None else None
    segment = draft if isinstance(draft, StreamedSegment) else None
    segment = segment or StreamedSegment(windows, request.start)
    assert segment.fed >= request.start, "audio between two segments is fed to neither"
    segment.feed(request.audio[segment.fed - request.start :])
    faults = 0
    while (window := segment.window(last=last)) is not None:
        if request.cancelled() or faults > 1:
            break
        try:
            segment.say(transcribe(request, segment, window))
        except errors.DeviceLost:
            raise
        except Exception as error:
            known = isinstance(error, errors.SidecarError)
            log.warning("a window of a live segment failed: %s", error, exc_info=not known)
            faults += 1
    turns = [one for one in segment.take(last=last) if not one.is_sound]
    open_ = (turns.pop() if turns else None) if last else segment.turns.open
    earlier = tuple((round(one.end * LIVE_RATE), _hypothesis(one)) for one in turns)
    return replace(_hypothesis(open_, segment, earlier), unheard=last and window is not None)


def _hypothesis(
    turn: StreamedTurn | None,
    segment: StreamedSegment | None = None,
    earlier_hypotheses: tuple[tuple[int, RecognitionHypothesis], ...] = (),
) -> RecognitionHypothesis:
    said = None if turn is None or turn.is_sound else turn
    confidence = None if said is None else mean_confidence(said.likelihoods)
    text = "" if said is None else said.text.strip()
    return RecognitionHypothesis(
        text, draft=segment, likelihood=confidence, earlier=earlier_hypotheses
    )
