"""Diarization thread that follows a recording while it is decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from sidecar.audio import Block
from sidecar.transcripts.speaker_turns import SpeakerTurn

Result = TypeVar("Result")

MAX_LEAD_S = 30.0
"""As far may be heard ahead of what is recognized: the voices of the next half minute are told
apart on one core while the words of the last are recognized on another."""

CANCEL_POLL_S = 0.05
"""Interval at which a waiting caller checks for cancellation."""


class StreamingDiarizer(Protocol):
    """Speaker turns, or speech regions only; times in seconds from the start."""

    @property
    def told_s(self) -> float:
        """Up to here it is told where there is speech; the first words may move a little."""

    @property
    def turns(self) -> Sequence[SpeakerTurn]:
        """Return the speaker turns so far."""

    def feed(self, block: Block) -> None:
        """More of the recording, shape (samples,)."""

    def finish(self) -> None:
        """It is over; the turns stay as they are."""


@runtime_checkable
class ResumableDiarizer(StreamingDiarizer, Protocol):
    """One that can say what it knows, for another to go on from."""

    @property
    def windows(self) -> int:
        """Return the number of windows."""

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Return its state behind the first ``after``, as plain values."""

    def go_on(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Know all that the snapshots say."""

    def replay_audio(self, block: Block) -> None:
        """Sound of which that is known."""


@dataclass(frozen=True, slots=True)
class DiarizationUpdate:
    """State of a diarization after ``end_s`` seconds; now and then, as a checkpoint, all of it
    since the last time."""

    end_s: float
    told_s: float
    turns: Sequence[SpeakerTurn]
    snapshot: Mapping[str, Any] | None = None


class _DiarizationState:
    """State of a recording's diarization, and when it is sent in full."""

    def __init__(self, follower: StreamingDiarizer, settle_s: float | None) -> None:
        self._follower = follower
        self._settle_s = settle_s
        self._settled = follower.windows if isinstance(follower, ResumableDiarizer) else 0
        self._settled_s: float | None = None
        self.latest = DiarizationUpdate(0.0, 0.0, ())

    def hear(self, end_s: float, block: Block) -> DiarizationUpdate:
        """After one more block, which ends at ``end_s``."""
        self._follower.feed(block)
        told_s = self._follower.told_s
        turns = self._follower.turns if told_s > self.latest.told_s else self.latest.turns
        self.latest = DiarizationUpdate(end_s, told_s, turns)
        return replace(self.latest, snapshot=self._snapshot(end_s))

    def finish(self) -> DiarizationUpdate:
        """After the last block."""
        self._follower.finish()
        return DiarizationUpdate(self.latest.end_s, float("inf"), self._follower.turns)

    def _snapshot(self, end_s: float) -> Mapping[str, Any] | None:
        if self._settle_s is None or not isinstance(self._follower, ResumableDiarizer):
            return None
        if self._settled_s is None:
            self._settled_s = end_s
        if end_s - self._settled_s < self._settle_s:
            return None
        snapshot = self._follower.snapshot(self._settled)
        self._settled, self._settled_s = self._follower.windows, end_s
        return snapshot


def diarize_in_background(
    follower: StreamingDiarizer,
    blocks: Iterable[tuple[float, Block]],
    cancelled: Callable[[], bool] | None = None,
    settle_s: float | None = None,
) -> Iterator[DiarizationUpdate]:
    """Yield the state after each block of (its end in seconds, samples), and at the end.

    The diarization is on another thread, `MAX_LEAD_S` seconds ahead at most, once there is
    something to recognize; without a second core it has to wait for its turn. Once ``cancelled()``
    it ends, and leaves the thread to finish its block, which takes it a second on a busy machine;
    without that it is waited for. ``settle_s``: how often a checkpoint is due, if it can make one.
    """
    ahead_s = MAX_LEAD_S if (os.cpu_count() or 1) > 1 else 0.0
    knowledge = _DiarizationState(follower, settle_s)
    asked: deque[tuple[float, Future[DiarizationUpdate]]] = deque()
    thread = ThreadPoolExecutor(1, "voices")
    try:
        for end_s, block in blocks:
            asked.append((end_s, thread.submit(knowledge.hear, end_s, block)))
            while asked:
                allowed_s = ahead_s if knowledge.latest.told_s else 0.0
                if not asked[0][1].done() and end_s - asked[0][0] < allowed_s:
                    break
                if (heard := wait_unless_cancelled(asked.popleft()[1], cancelled)) is None:
                    return
                yield heard
        asked.append((0.0, thread.submit(knowledge.finish)))
        while asked:
            if (heard := wait_unless_cancelled(asked.popleft()[1], cancelled)) is None:
                return
            yield heard
    finally:
        thread.shutdown(wait=cancelled is None, cancel_futures=True)


def wait_unless_cancelled(
    future: Future[Result], cancelled: Callable[[], bool] | None
) -> Result | None:
    """Return what a thread makes; None once that is not wanted any more. Work that has begun by
    then ends by itself."""
    while cancelled is not None and not wait([future], CANCEL_POLL_S).done:
        if cancelled():
            future.cancel()
            return None
    return future.result()
