"""Live session in a worker.

It is a call that lasts as long as the session and goes on whenever there is news: input, credit,
or an event of the engine. Events that the service has not read wait in an outbox. If audio arrives
faster than it is recognized, the rest stays unread, so that the sender waits.
"""

import threading
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.signal_conditioning import Resampler
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions, LiveOrder, SampleEncoding
from sidecar.live.runtime.live_scheduler import LiveEngine
from sidecar.workers.rpc_server import BegunCalls, CallCancelled, RpcRequest

MAX_BACKLOG_S = 12.0
"""Maximum audio of a session inside the engine: one and a half segments of default length."""


class WorkerLiveSession:
    """One session: its call, and its session in the engine. ``begun_calls`` records the executing
    calls."""

    def __init__(self, request: RpcRequest, engine: LiveEngine, begun_calls: BegunCalls) -> None:
        """Raises:
        errors.SidecarError: the engine does not accept it.
        """
        self._request, self._begun_calls = request, begun_calls
        self.alone = bool(request.message.get("alone"))
        """True if it must execute alone, because it may have killed an engine."""
        self._error: errors.SidecarError | None = None
        self._intake = SampleInput()
        self._lock = threading.Lock()
        self._outbox: deque[live_events.LiveEvent] = deque()
        options = LiveOptions.from_wire(request.message["options"])
        begin = live_events.LiveSessionStart.from_wire(request.message["begin"])
        self._begun_at = begin.at
        self._session = engine.open(options, begin, self._emit)
        self._session.around, self._session.failed = self._around, self._failed

    def proceed(self) -> bool:
        """Handle input and send events; return whether the session goes on at the next news.

        Raises:
            CallCancelled: the service has ended it.
            errors.SidecarError: it failed.
            channel.ChannelClosed: the other side is gone.
        """
        goes_on = False
        try:
            goes_on = self._goes_on()
            return goes_on
        finally:
            if not goes_on:
                self._session.close()

    def _goes_on(self) -> bool:
        if self._request.is_cancelled():
            raise CallCancelled
        received = self._request.received()
        while self._error is None and self._session.backlog_s <= MAX_BACKLOG_S:
            if (message := next(received, None)) is None:
                break
            self._apply(*message)
        while self._outbox:
            event = self._outbox[0]
            if not self._request.offer(live_events.to_wire(event)):
                return True
            with self._lock:
                self._outbox.popleft()
            if isinstance(event, live_events.Summary):
                return False
        if self._error is not None:
            raise self._error
        return True

    def _apply(self, message: dict[str, Any], raw: bytes) -> None:
        match message:
            case {"sound": str(encoding), "rate": int(rate)}:
                block = self._intake.take(raw, SampleEncoding(encoding), rate)
                if len(block):
                    self._session.push(block)
            case {"change": dict(options)}:
                self._session.push(LiveOptions.from_wire(options))
            case {"order": str(order)}:
                self._session.push(self._intake.rest())  # else it would go to the next turn
                self._session.push(LiveOrder(order))

    def _emit(self, event: live_events.LiveEvent) -> None:
        """Queue an event; called by the engine's threads. Unread partials are replaced by the last
        one."""
        with self._lock:
            last = self._outbox[-1] if len(self._outbox) > 1 else None
            if isinstance(event, live_events.Partial) and isinstance(last, live_events.Partial):
                self._outbox.pop()
            self._outbox.append(event)
        passed = isinstance(event, live_events.Final) or (
            isinstance(event, live_events.InputProcessed) and event.settled > self._begun_at
        )
        self.alone = self.alone and not passed
        self._request.on_change()

    def _around(self) -> AbstractContextManager[None]:
        return self._begun_calls.of(self._request.number, alone=self.alone)

    def _failed(self, error: errors.SidecarError) -> None:
        """End the session with an error after all its events; called by the engine's threads."""
        self._error = error
        self._request.on_change()


class SampleInput:
    """Audio input of one session; its rate may change between two chunks.

    A resampler delays its output by some milliseconds; `rest` returns what is left at the end.
    """

    def __init__(self) -> None:
        self._rate, self._resampler = LIVE_RATE, Resampler(LIVE_RATE, LIVE_RATE)

    def take(self, raw: bytes, encoding: SampleEncoding, rate: int) -> Block:
        """Return samples at `LIVE_RATE`, shape (samples,), from whole samples at ``rate``."""
        if encoding is SampleEncoding.PCM16:
            block: Block = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
        else:
            block = np.nan_to_num(np.frombuffer(raw, "<f4"), posinf=0, neginf=0).clip(-1, 1)
            block = block.astype(np.float32, copy=False)
        if rate == self._rate:
            return self._resampler.take(block)
        before = self.rest()
        self._rate, self._resampler = rate, Resampler(rate, LIVE_RATE)
        return np.concatenate([before, self._resampler.take(block)])

    def rest(self) -> Block:
        """Return the samples left in the resampler; the next audio begins a new stream."""
        rest = self._resampler.rest()
        self._rate, self._resampler = LIVE_RATE, Resampler(LIVE_RATE, LIVE_RATE)
        return rest
