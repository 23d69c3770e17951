"""Session inside a live engine: its input in order, its output events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces.live_events import LiveEvent, LiveEventCallback
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.load_shedding import ArrivingUtterance, ServedSession, SpeechShare
from sidecar.live.runtime.stream_recognizer import StreamRecognizer

MAX_FRAMES_AT_ONCE = 64
"""Frames of one session that are processed at a time: two seconds."""

SessionCommand: TypeAlias = Callable[[float], Iterable[LiveEvent]]
"""Command that follows received audio; takes the time and returns events."""


class InputScheduler(Protocol):
    """Scheduler that a session passes its input to (`live_scheduler.LiveScheduler`)."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of all sessions."""
        ...

    def enqueue(self, session: EngineSession, what: Block | SessionCommand) -> None:
        """Queue audio for a session, or a command that follows the audio so far."""

    def leave(self, session: EngineSession) -> None:
        """Remove a session."""


class EngineSession:
    """Session of a `LiveScheduler` (see `interfaces.live_events.LiveSession`). ``state``: the state
    of the VAD for its audio. A caller that uses more than a `LiveSession` has holds the scheduler's
    lock."""

    def __init__(
        self,
        scheduler: InputScheduler,
        hearing: StreamRecognizer,
        tell: LiveEventCallback,
        client: str,
        state: Any,
    ) -> None:
        self.hearing, self.tell, self.client, self.state = hearing, tell, client, state
        self.left = False
        """True if the session has left the scheduler: no more events are sent."""
        self.wordless = False
        """True if the client was notified that there are no partials."""
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext
        self.failed: Callable[[errors.SidecarError], object] = lambda error: None
        self.rank: int | None = None
        """Order of its first admission among the sessions; None before that."""
        self.share: SpeechShare | None = None
        """Share of the time with speech, since that admission."""
        self._scheduler = scheduler
        self._inbox: deque[Block | SessionCommand] = deque()
        self._unread = 0

    @property
    def backlog_s(self) -> float:
        """Return the seconds of pushed audio that are not processed or recognized yet."""
        with self._scheduler.lock:
            return self.hearing.backlog_s + self._unread / LIVE_RATE

    @property
    def busy(self) -> bool:
        """Return whether some of its audio waits for analysis."""
        return bool(self._inbox or self.hearing.backlog)

    def speaker(self, now: float) -> ServedSession | None:
        """Return its share of the speech; None before its first admission."""
        if self.rank is None or self.share is None:
            return None
        return ServedSession(self.client, self.rank, self.hearing.speaking, self.share.at(now))

    def newcomer(self) -> ArrivingUtterance:
        """Return its utterance that begins, as the load model needs it."""
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
        """Append audio or a command to the inbox."""
        self._inbox.append(what)
        if isinstance(what, np.ndarray):
            self._unread += len(what)

    def frames(self, now: float, say: Callable[[Iterable[LiveEvent]], None]) -> Block | None:
        """Return the frames to process now; before there are any, run the commands that precede
        them and send their events."""
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
        """Add audio."""
        self._scheduler.enqueue(self, block)

    def change(self, options: LiveOptions) -> None:
        """Change the options from here on."""

        def change(now: float) -> Iterable[LiveEvent]:
            self.hearing.change(options)
            return ()

        self._scheduler.enqueue(self, change)

    def commit(self) -> None:
        """End the turn here."""
        self._scheduler.enqueue(self, self.hearing.commit)

    def cancel(self) -> None:
        """Drop the results that are not sent yet."""
        self._scheduler.enqueue(self, lambda now: self.hearing.cancel())

    def finish(self) -> None:
        """End the audio."""
        self._scheduler.enqueue(self, self.hearing.finish)

    def close(self) -> None:
        """Close the session."""
        self._scheduler.leave(self)
