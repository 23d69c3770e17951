"""Diarization of a recording in a background thread while it is decoded."""

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
"""Maximum lead of diarization over recognition: one core diarizes the next half minute while
another recognizes the last."""

CANCEL_POLL_S = 0.05
"""Interval at which a waiting caller checks for cancellation."""


class StreamingDiarizer(Protocol):
    """Diarizer of a stream: speaker turns, or speech regions only; times in seconds."""

    @property
    def told_s(self) -> float:
        """Return the time up to which speech regions are known; the first may move a little."""

    @property
    def turns(self) -> Sequence[SpeakerTurn]:
        """Return the speaker turns so far."""

    def feed(self, block: Block) -> None:
        """Append audio of the recording, shape (samples,)."""

    def finish(self) -> None:
        """End the recording; the turns are final then."""


@runtime_checkable
class ResumableDiarizer(StreamingDiarizer, Protocol):
    """Streaming diarizer with snapshots, from which another diarizer can resume."""

    @property
    def windows(self) -> int:
        """Return the number of windows."""

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Return its state without the first ``after`` windows, as plain values."""

    def go_on(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Resume from snapshots."""

    def replay_audio(self, block: Block) -> None:
        """Append audio that the snapshots cover."""


@dataclass(frozen=True, slots=True)
class DiarizationUpdate:
    """State of a diarization after ``end_s`` seconds.

    ``snapshot``: the changes since the last checkpoint, if one is due.
    """

    end_s: float
    told_s: float
    turns: Sequence[SpeakerTurn]
    snapshot: Mapping[str, Any] | None = None


class _DiarizationState:
    """State of a recording's diarization, and the schedule of its checkpoints."""

    def __init__(self, follower: StreamingDiarizer, settle_s: float | None) -> None:
        self._follower = follower
        self._settle_s = settle_s
        self._settled = follower.windows if isinstance(follower, ResumableDiarizer) else 0
        self._settled_s: float | None = None
        self.latest = DiarizationUpdate(0.0, 0.0, ())

    def hear(self, end_s: float, block: Block) -> DiarizationUpdate:
        """Diarize one more block, which ends at ``end_s``, and return the state."""
        self._follower.feed(block)
        told_s = self._follower.told_s
        turns = self._follower.turns if told_s > self.latest.told_s else self.latest.turns
        self.latest = DiarizationUpdate(end_s, told_s, turns)
        return replace(self.latest, snapshot=self._snapshot(end_s))

    def finish(self) -> DiarizationUpdate:
        """End the recording and return the final state."""
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

    The diarization runs on another thread. Once there is speech to recognize, it is at most
    `MAX_LEAD_S` seconds ahead; on a machine with one core it is not ahead at all. When
    ``cancelled()`` returns `True`, this generator ends. The thread then finishes its block alone,
    which takes a second on a busy machine; without ``cancelled`` it is waited for. ``settle_s``:
    interval of checkpoints, if the diarizer supports them.
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
    """Return the result of a thread, or `None` when ``cancelled()`` returns `True`.

    Work that has started by then ends by itself.
    """
    while cancelled is not None and not wait([future], CANCEL_POLL_S).done:
        if cancelled():
            future.cancel()
            return None
    return future.result()
