"""Live session in a worker: a call that lasts as long as the session.

The listener thread passes its input to the engine, and the engine's threads send its events. The
service reads these at once and keeps them in its event log. If audio arrives faster than it is
recognized, it counts as unread, so that the sender waits.
"""

import logging
import threading
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.signal_conditioning import (
    INTEGER_SCALE,
    DcOffsetRemover,
    Resampler,
    float_scale,
    loudest_level,
)
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions, LiveOrder, SampleEncoding
from sidecar.live.runtime.live_scheduler import LiveEngine
from sidecar.workers import channel
from sidecar.workers.rpc_server import BegunCalls, RpcRequest

log = logging.getLogger(__name__)

MAX_BACKLOG_S = 12.0
"""Maximum audio of a session inside the engine: one and a half segments of default length."""
_PIECE_S = 0.1
"""Seconds for which an offset is measured."""


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
        self._samples, self._input_lock = SampleInput(engine.sample_rate), threading.Lock()
        self._is_ahead = False
        """True if the client had sent the last audio ahead of real time."""
        options = LiveOptions.from_wire(request.message["options"])
        begin = live_events.LiveSessionStart.from_wire(request.message["begin"])
        self._begun_at = begin.at
        self._session = engine.open(options, begin, self._emit)
        self._session.around, self._session.failed = self._around, self._failed
        request.on_change = self._take_input
        self._take_input()  # what came meanwhile

    def _take_input(self) -> None:
        """Pass the input that has come to the engine; called by the listener's thread. A cancelled
        session is closed, and so is one whose input the engine cannot take.

        Raises:
            channel.ChannelClosed: the service is gone.
        """
        with self._input_lock:
            try:
                if self._request.is_cancelled():
                    self._session.close()
                    self._request.end(done=True)
                    return
                if self._request.ended:
                    return  # the service does not know yet
                for message, raw in self._request.received():
                    self._apply(message, raw)
                self._acknowledge()
            except channel.ChannelClosed:
                raise
            except Exception as error:  # the listener serves the other sessions, too
                log.exception("internal error in the input of a live session, which ended")
                self._session.close()
                self._failed(errors.unexpected_engine_error(error))

    def _apply(self, message: dict[str, Any], raw: bytes) -> None:
        match message:
            case {"sound": str(encoding), "rate": int(rate)}:
                self._is_ahead = bool(message.get("ahead"))
                block = self._samples.take(raw, SampleEncoding(encoding), rate)
                if len(block):
                    self._session.push(block, ahead=self._is_ahead)
            case {"change": dict(options)}:
                self._session.push(LiveOptions.from_wire(options))
            case {"order": str(order)}:
                rest = self._samples.rest()  # else it would go to the next turn
                self._session.push(rest, ahead=self._is_ahead)
                self._session.push(LiveOrder(order))

    def _acknowledge(self) -> None:
        """Let the service send more, unless too much is not recognized yet."""
        if self._session.backlog_s <= MAX_BACKLOG_S:
            self._request.acknowledge()

    def _emit(self, event: live_events.LiveEvent) -> None:
        """Send an event; called by the engine's threads."""
        passed = isinstance(event, live_events.Final) or (
            isinstance(event, live_events.InputProcessed) and event.settled > self._begun_at
        )
        self.alone = self.alone and not passed
        with suppress(channel.ChannelClosed):  # the listener ends the process
            self._request.tell(live_events.to_wire(event))
            if isinstance(event, live_events.Summary):
                self._request.end(done=True)
            elif isinstance(event, live_events.InputProcessed):
                self._acknowledge()

    def _around(self) -> AbstractContextManager[None]:
        return self._begun_calls.of(self._request.number, alone=self.alone)

    def _failed(self, error: errors.SidecarError) -> None:
        """End the session with an error after all its events."""
        with suppress(channel.ChannelClosed):
            self._request.end(error=error.to_wire())


class SampleInput:
    """Audio input of one session, for an engine at ``engine_rate``; that of the client may change
    between two chunks.

    A resampler delays its output by some milliseconds; `rest` returns what is left at the end.
    Faults of the signal are mended as those of files are.
    """

    def __init__(self, engine_rate: int) -> None:
        self._engine_rate = self._rate = engine_rate
        self._resampler = Resampler(engine_rate, engine_rate)
        self._scale, self._offset = np.float32(1), DcOffsetRemover(engine_rate, 3)

    def take(self, raw: bytes, encoding: SampleEncoding, rate: int) -> Block:
        """Return samples at the engine's rate, shape (samples,), from whole samples at ``rate``."""
        if encoding is SampleEncoding.PCM16:
            block: Block = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
        else:
            block = self._scaled(np.frombuffer(raw, "<f4").astype(np.float32))
        before = self.rest() if rate != self._rate else block[:0]
        if rate != self._rate:
            self._rate, self._resampler = rate, Resampler(rate, self._engine_rate)
        block = self._resampler.take(block)
        pieces = np.array_split(block, max(1, len(block) // round(_PIECE_S * self._engine_rate)))
        return np.concatenate([before, *map(self._offset.remove, pieces)])

    def _scaled(self, floats: Block) -> Block:
        """Return floats at full scale: those of integers from the first ones on that show it."""
        floats = np.nan_to_num(floats, posinf=0, neginf=0)
        level = loudest_level(np.abs(floats))
        if self._scale == 1 and level > 1:
            whole = np.array_equal(floats, np.rint(floats))
            self._scale = float_scale(INTEGER_SCALE if whole else level)
        return (floats * self._scale).clip(-1, 1)

    def rest(self) -> Block:
        """Return the samples left in the resampler; the next audio begins a new stream."""
        rest = self._offset.remove(self._resampler.rest())
        self._rate = self._engine_rate
        self._resampler = Resampler(self._rate, self._rate)
        return rest
