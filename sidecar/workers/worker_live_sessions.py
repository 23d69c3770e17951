"""Live sessions in a worker.

Each session is a call that lasts as long as the session. One thread serves all of them and never
blocks on one. Events that the service has not read wait in `_WorkerLiveSession.outbox`. If audio
arrives faster than it is recognized, the rest stays unread, so that the sender waits. An internal
error in one session ends only that session.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.signal_conditioning import Resampler
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions, LiveOrder, SampleEncoding
from sidecar.live.runtime.live_scheduler import LiveEngine
from sidecar.workers import channel
from sidecar.workers.rpc_server import BegunCalls, RpcRequest

log = logging.getLogger(__name__)

MAX_BACKLOG_S = 12.0
"""Maximum audio of a session inside the engine: one and a half segments of default length."""
POLL_INTERVAL_S = 0.05
"""Poll interval of a session whose input is held back."""


class WorkerLiveSessions:
    """Sessions of one engine; their thread lives as long as the process."""

    def __init__(
        self,
        engine: LiveEngine,
        on_end: Callable[[RpcRequest], object],
        executing: BegunCalls,
    ) -> None:
        """``on_end`` is called with each call that has ended; ``executing`` records the executing
        ones."""
        self._engine, self._on_end, self._executing = engine, on_end, executing
        self._changed = threading.Condition()
        self._notified = False
        self._sessions: list[_WorkerLiveSession] = []
        threading.Thread(target=self._serve, daemon=True, name="sessions").start()

    def open(self, request: RpcRequest) -> None:
        """Open the session that a call requests.

        Raises:
            errors.SidecarError: the engine does not accept it.
        """
        session = _WorkerLiveSession(request, self._engine, self._notify, self._executing)
        request.on_change = self._notify
        with self._changed:
            self._sessions.append(session)
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._notified = True
            self._changed.notify()

    def _serve(self) -> None:
        held = False
        while True:
            with self._changed:
                if not self._notified:
                    self._changed.wait(POLL_INTERVAL_S if held else None)
                self._notified = False
                sessions = list(self._sessions)
            try:
                held = sum(session.serve() for session in sessions) > 0
            except channel.ChannelClosed:
                os._exit(0)
            for session in sessions:
                if session.ended:
                    with self._changed:
                        self._sessions.remove(session)
                    self._on_end(session.request)


class _WorkerLiveSession:
    """One session: its call, and its session in the engine."""

    def __init__(
        self,
        request: RpcRequest,
        engine: LiveEngine,
        notify: Callable[[], None],
        executing: BegunCalls,
    ) -> None:
        self.request = request
        self.ended = False
        self._notify, self._executing = notify, executing
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

    def serve(self) -> bool:
        """Handle input and send events; return whether to serve it again soon.

        Raises:
            channel.ChannelClosed: the other side is gone.
        """
        try:
            return self._serve()
        except errors.SidecarError as error:
            self._end(error)
        except channel.ChannelClosed:
            raise
        except Exception as error:  # top level of the worker: only this session ends
            log.exception("internal error in a live session, which ended")
            self._end(errors.EngineFailed(f"The engine failed: {type(error).__name__}."))
        return False

    def _serve(self) -> bool:
        if self.request.is_cancelled():
            self._end()
            return False
        held = self._session.backlog_s > MAX_BACKLOG_S
        if not (held or self._error):
            for message, raw in self.request.received():
                self._apply(message, raw)
                if held := self._session.backlog_s > MAX_BACKLOG_S:
                    break
        while self._outbox:
            event = self._outbox[0]
            if not self.request.offer(live_events.to_wire(event)):
                return True
            with self._lock:
                self._outbox.popleft()
            if isinstance(event, live_events.Summary):
                self._end()
                return False
        if self._error is not None:
            raise self._error
        return held

    def _apply(self, message: dict[str, Any], raw: bytes) -> None:
        match message:
            case {"sound": str(encoding), "rate": int(rate)}:
                block = self._intake.take(raw, SampleEncoding(encoding), rate)
                if len(block):
                    self._session.push(block)
            case {"change": dict(options)}:
                self._session.order(LiveOptions.from_wire(options))
            case {"order": str(order)}:
                self._session.push(self._intake.rest())  # else it would go to the next turn
                self._session.order(LiveOrder(order))

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
        self._notify()

    def _around(self) -> AbstractContextManager[None]:
        return self._executing.of(self.request.number, alone=self.alone)

    def _failed(self, error: errors.SidecarError) -> None:
        """End the session with an error after all its events; called by the engine's threads."""
        self._error = error
        self._notify()

    def _end(self, error: errors.SidecarError | None = None) -> None:
        self.ended = True
        self._session.close()
        if error is None:
            self.request.end(done=True)
        else:
            self.request.end(error=error.to_wire())


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
