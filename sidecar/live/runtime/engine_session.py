"""Session inside a live engine: its input in order, its output events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces.live_events import LiveEvent, LiveEventCallback
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.load_shedding import ArrivingUtterance, ServedSession, SpeechShare
from sidecar.live.runtime.stream_recognizer import StreamRecognizer

if TYPE_CHECKING:
    from sidecar.live.runtime.live_scheduler import LiveScheduler

MAX_FRAMES_AT_ONCE = 64
"""Frames of one session that are looked at in one go: two seconds."""

SessionCommand: TypeAlias = Callable[[float], Iterable[LiveEvent]]
"""Command after received audio, at a time; it returns events."""


class EngineSession:
    """A session with others (`interfaces.live_engine.LiveSession`). ``state``: what the detector
    remembers of its sound. A caller that uses more of it than a `LiveSession` has, holds the
    lock that all share."""

    def __init__(
        self,
        scheduler: LiveScheduler,
        hearing: StreamRecognizer,
        tell: LiveEventCallback,
        client: str,
        state: Any,
    ) -> None:
        self.hearing, self.tell, self.client, self.state = hearing, tell, client, state
        self.left = False
        """Nothing more is told."""
        self.wordless = False
        """It was told that there are no words before finals."""
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext
        self.failed: Callable[[errors.SidecarError], object] = lambda error: None
        self.rank: int | None = None
        """Its place among those who speak, by when it was let; None before that."""
        self.share: SpeechShare | None = None
        """Share of the time with speech, from then on."""
        self._scheduler = scheduler
        self._inbox: deque[Block | SessionCommand] = deque()
        self._unread = 0

    @property
    def backlog_s(self) -> float:
        """Seconds that were pushed, and neither looked at nor recognised yet."""
        return self._scheduler.backlog_s(self)

    @property
    def waiting_s(self) -> float:
        """The same, for who holds the lock."""
        return self.hearing.backlog_s + self._unread / LIVE_RATE

    @property
    def busy(self) -> bool:
        """Return whether some of its audio is to be analysed."""
        return bool(self._inbox or self.hearing.backlog)

    def speaker(self, now: float) -> ServedSession | None:
        """Return its share of the speech; None while there was none."""
        if self.rank is None or self.share is None:
            return None
        return ServedSession(self.client, self.rank, self.hearing.speaking, self.share.at(now))

    def newcomer(self) -> ArrivingUtterance:
        """Itself, whose utterance begins."""
        entering = self.rank is None and self.hearing.new
        return ArrivingUtterance(self.client, self.rank, entering)

    def admit_utterance(self, rank: int, now: float) -> None:
        """Admit its utterance for recognition."""
        if self.share is None:
            self.rank, self.share = rank, SpeechShare(now)

    def looked(self, frames: int, now: float) -> None:
        """Record how much of its audio was processed."""
        if self.share is not None:
            speech_s = frames * FRAME_SAMPLES / LIVE_RATE if self.hearing.speaking else 0.0
            self.share.spoken(speech_s, now)

    def take(self, what: Block | SessionCommand) -> None:
        """It came, behind all that did before."""
        self._inbox.append(what)
        if isinstance(what, np.ndarray):
            self._unread += len(what)

    def frames(self, now: float, say: Callable[[Iterable[LiveEvent]], None]) -> Block | None:
        """The frames that are to be looked at now; what is to be done before there are any is done,
        and what is told of that said."""
        hearing = self.hearing
        while True:
            while self._inbox and isinstance(sound := self._inbox[0], np.ndarray):
                if hearing.backlog >= MAX_FRAMES_AT_ONCE:
                    break
                self._inbox.popleft()
                self._unread -= len(sound)
                hearing.sound(sound)
            frames = hearing.frames(MAX_FRAMES_AT_ONCE)
            if frames is not None or not self._inbox:
                return frames
            order = self._inbox.popleft()
            assert not isinstance(order, np.ndarray)
            say(order(now))

    def push(self, block: Block) -> None:
        """More sound."""
        self._scheduler.enqueue(self, block)

    def change(self, options: LiveOptions) -> None:
        """Other options from here on."""

        def change(now: float) -> Iterable[LiveEvent]:
            self.hearing.change(options)
            return ()

        self._scheduler.enqueue(self, change)

    def commit(self) -> None:
        """End the turn here."""
        self._scheduler.enqueue(self, self.hearing.commit)

    def cancel(self) -> None:
        """Forget what is not told yet."""
        self._scheduler.enqueue(self, lambda now: self.hearing.cancel())

    def finish(self) -> None:
        """No more sound."""
        self._scheduler.enqueue(self, self.hearing.finish)

    def close(self) -> None:
        """Close the session."""
        self._scheduler.leave(self)
