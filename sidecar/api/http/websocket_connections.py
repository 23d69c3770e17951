"""WebSocket connections: timeouts, limits, close codes.

`upgraded` ends connections whose peer is gone or takes nothing, and those with messages that are
too big; a task then meets `WebSocketGone`. Nothing of a peer's address, headers or words is logged.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from sidecar import errors
from sidecar.api.http import auth_gate
from sidecar.api.http.request_headers import identity_of, revocable
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import MINUTE_S, RateLimit, SlidingWindowLimit
from sidecar.errors import ErrorKind
from sidecar.limit_overrides import limit

INBOUND_BYTES = 16 << 20
"""Most that waits of one connection, however few messages it is."""
MAX_INBOUND_MESSAGES = limit("live_inbound", 256)
"""Messages of a live client that wait before its connection ends: five seconds of sound in pieces
of 20 ms."""
MESSAGES_PER_MINUTE = limit("live_messages_per_minute", 5000)
"""Most messages of a live connection in a minute: sound in pieces of 20 ms is 3,000."""
CANCELS_PER_MINUTE = limit("live_cancels_per_minute", 50)
"""Of these, cancels: each of them has an engine begin anew."""
REASON_BYTES = 123
"""Of a close frame (RFC 6455, 5.5)."""
CLOSE_CODES: Mapping[ErrorKind | str, int] = {
    ErrorKind.MALFORMED: 1007,
    ErrorKind.UNPROCESSABLE: 1007,
    ErrorKind.UNSUPPORTED: 1003,
    ErrorKind.TOO_LARGE: 1009,
    ErrorKind.FAILED: 1011,
    ErrorKind.BUSY: 1013,
    ErrorKind.STORAGE_FULL: 1013,
    ErrorKind.WONT_FIT: 1013,
    ErrorKind.CANCELLED: 1000,
    errors.ShuttingDown.code: 1001,
}
"""Close codes (RFC 6455, 7.4.1, and IANA's list) by an error's code, or else by its kind; of all
others it is 1008, "policy violation". 1011 is for faults of ours alone."""
_POLICY = 1008

MALFORMED_PER_MINUTE = 100
"""Invalid messages, each of which is answered: a client that sends more is closed."""

Message = str | bytes
"""A text message, or a binary one."""


class WebSocketGone(Exception):
    """The peer is not there any more: nothing can be said to it. ``code``: it closed with that."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__()
        self.code = code


def close_code(error: errors.SidecarError, own: Mapping[ErrorKind | str, int] | None = None) -> int:
    """The code that ``error`` closes with; a wire's ``own`` table comes before that of all."""
    for codes in (own or {}, CLOSE_CODES):
        for key in (error.code, error.kind):
            if key in codes:
                return codes[key]
    return _POLICY


class InboundQueue:
    """Messages that were read and wait for their turn, with an end to how many."""

    def __init__(self, most: int, most_bytes: int = INBOUND_BYTES) -> None:
        self.most = most
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Any, size: int = 0) -> None:
        """One more: a message as it came, or what the wire made of one of ``size`` bytes.

        Raises:
            errors.InboundFull: that is more than may wait.
        """
        if len(self) >= self.most or (self._waiting and self._bytes + size > self._most_bytes):
            raise errors.InboundFull()
        self._waiting.append((message, size))
        self._bytes += size
        self._bell.set()

    def clear(self) -> None:
        """Drop the messages that wait."""
        self._waiting.clear()
        self._bytes = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Each in its turn, for ever."""
        while True:
            while self._waiting:
                message, size = self._waiting.popleft()
                self._bytes -= size
                yield message
            self._bell.clear()
            await self._bell.wait()


class WebSocketConnection:
    """One WebSocket, and who is at its other end; ``spoken`` as in `open`."""

    def __init__(
        self,
        websocket: WebSocket,
        now: Callable[[], float] = time.monotonic,
        spoken: Sequence[str] = (),
    ) -> None:
        self.websocket = websocket
        self._spoken = spoken
        self.caller: Identity = identity_of(websocket)
        self.inbound = InboundQueue(MAX_INBOUND_MESSAGES)
        self._messages = SlidingWindowLimit(RateLimit(MESSAGES_PER_MINUTE, MINUTE_S))
        self._cancels = SlidingWindowLimit(RateLimit(CANCELS_PER_MINUTE, MINUTE_S))
        self._malformed = SlidingWindowLimit(RateLimit(MALFORMED_PER_MINUTE, MINUTE_S))
        self._now = now
        self._sending = asyncio.Lock()

    async def open(self) -> None:
        """Answer the handshake, if nothing has, with the first of the offered subprotocols that is
        ``spoken``."""
        if self.websocket.application_state is WebSocketState.CONNECTING:
            await accept_handshake(self.websocket, self._spoken)

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Gone: there will be none.
        """
        found = await self.websocket.receive()
        if found["type"] != "websocket.receive":
            raise WebSocketGone(found.get("code"))
        text: str | None = found.get("text")
        return text if text is not None else bytes(found["bytes"])

    async def read(self, at_once: Callable[[Message], Awaitable[bool]]) -> None:
        """Read until the peer goes. ``at_once`` sees each message first and says whether that was
        all; else it waits in `inbound`. A wire that puts there what it made of it says True.

        Raises:
            Gone: the peer went.
            errors.InboundFull: it sends more than is taken.
        """
        while True:
            message = await self.receive()
            if not await at_once(message):
                self.inbound.put(message, len(message))

    async def send(self, *messages: Message) -> None:
        """Send them one behind the other, after what is being sent and with nothing in between;
        waits for a peer that reads slowly.

        Raises:
            Gone: nobody is there, or nobody that reads.
        """
        try:
            async with self._sending:
                for message in messages:
                    if isinstance(message, str):
                        await self.websocket.send_text(message)
                    else:
                        await self.websocket.send_bytes(message)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise WebSocketGone() from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it; once more, or after the peer did, does nothing."""
        await send_close(self.websocket, code, reason)

    async def run_until_first_ends(self, *tasks: Coroutine[Any, Any, None]) -> None:
        """Run them until one ends, then end the others.

        Raises:
            Gone: the peer went.
            errors.TokenInvalid: what let the peer in counts no more.
            errors.SidecarError: what ended it.
        """
        running = {asyncio.ensure_future(task) for task in tasks}
        revoked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def sent_away() -> None:
            if not revoked.done():
                revoked.set_exception(errors.TokenInvalid())

        try:
            with revocable(self.websocket.scope, sent_away):
                done, _ = await asyncio.wait(
                    {*running, revoked}, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for task in (*running, revoked):
                task.cancel()
            await asyncio.wait(running)
        wrong = [
            fault
            for task in running | done
            if not task.cancelled() and (fault := task.exception()) is not None
        ]
        for fault in sorted(wrong, key=lambda one: isinstance(one, WebSocketGone)):
            raise fault  # what there is to say comes before that nobody is there

    def count(self) -> None:
        """One more message of those that are counted.

        Raises:
            errors.RateLimited: too many in a minute; ``retry_after`` says when there may be more.
        """
        _refuse(self._messages.take(self._now()))

    def count_malformed(self) -> None:
        """One more message that means nothing, on a wire where the connection goes on after it;
        what comes of too many ends the connection.

        Raises:
            errors.RateLimited: as `count`.
        """
        _refuse(self._malformed.take(self._now()))

    def count_cancel(self) -> None:
        """One more cancel.

        Raises:
            errors.RateLimited: as `count`.
        """
        _refuse(self._cancels.take(self._now()))


async def accept_handshake(websocket: WebSocket, spoken: Sequence[str] = ()) -> None:
    """Answer the handshake; also where it is to be refused, by a wire that does so in a frame."""
    chosen = auth_gate.choose_subprotocol(websocket.scope, spoken)
    with suppress(RuntimeError, WebSocketDisconnect, OSError):  # who is gone is met later
        await websocket.accept(subprotocol=chosen)


@dataclass(frozen=True, slots=True)
class ConnectionEnding:
    """Close frame of a connection, and the last message before it, if there is one."""

    code: int
    reason: str
    last_message: str | None = None


@dataclass(frozen=True, slots=True)
class WebSocketDialect:
    """Accept, reject and close messages of a protocol over WebSockets.

    ``refuse_handshake``: refuses one by an HTTP status, if it can, and returns whether it did. With
    it, what serves a connection opens it itself, once it is known that it can be served.
    """

    subprotocols: Sequence[str]
    ending_of: Callable[[errors.SidecarError], ConnectionEnding]
    refuse_handshake: Callable[[errors.SidecarError, WebSocket], Awaitable[bool]] | None = None

    async def serve(
        self, websocket: WebSocket, serve: Callable[[WebSocketConnection], Awaitable[None]]
    ) -> None:
        """Accept a connection and ``serve`` it; an error ends it as `ending_of` has it."""
        socket = WebSocketConnection(websocket, spoken=self.subprotocols)
        if self.refuse_handshake is None:
            await socket.open()
        try:
            await serve(socket)
            await socket.close()
        except WebSocketGone:
            pass
        except errors.SidecarError as error:
            await self._end(websocket, error)

    async def send_refusal(
        self, error: errors.SidecarError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a client that was not let in."""
        await self._end(WebSocket(scope, receive, send), error)

    async def _end(self, websocket: WebSocket, error: errors.SidecarError) -> None:
        """Send the reason where clients look, and a browser lets its page read it: in an open
        connection, with a last message and a close frame."""
        if websocket.application_state is WebSocketState.CONNECTING:
            if self.refuse_handshake is not None and await self.refuse_handshake(error, websocket):
                return
            await accept_handshake(websocket, self.subprotocols)
        ending = self.ending_of(error)
        with suppress(RuntimeError, WebSocketDisconnect, OSError):  # who is gone misses it
            if ending.last_message is not None:
                await websocket.send_text(ending.last_message)
        await send_close(websocket, ending.code, ending.reason)


async def send_close(websocket: WebSocket, code: int = 1000, reason: str = "") -> None:
    """Send a close frame, if there is anybody to."""
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    short = reason.encode()[:REASON_BYTES].decode(errors="ignore")
    with suppress(RuntimeError, WebSocketDisconnect, OSError):
        await websocket.close(code, short)


def _refuse(wait_s: float) -> None:
    if wait_s > 0:
        raise errors.RateLimited(
            "Too many messages in a short time.", retry_after=max(1, math.ceil(wait_s))
        )
