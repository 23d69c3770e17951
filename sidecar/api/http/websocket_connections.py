"""WebSocket connections: timeouts, limits, close codes.

`uvicorn_protocols` closes a connection if its peer is gone or reads nothing, or sends an oversized
message. A task then gets `WebSocketGone`. No address, header or text of a peer is logged.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from sidecar.api.http.error_responses import log_error
from sidecar.api.http.request_headers import identity_of, revocable
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import MINUTE_S, RateLimit, SlidingWindowLimit, raise_rate_limited
from sidecar.concurrency import running
from sidecar.config.setting_types import MAX_REASON_BYTES
from sidecar.errors import ErrorKind, ShuttingDown, SidecarError, TokenInvalid
from sidecar.limit_overrides import limit

MAX_MESSAGE_BYTES = 4 << 20
"""Maximum of a message. The longest audio of one message (`MAX_CHUNK_S`) is 2.6 MB as float32 at 48
kHz in base64. Larger messages are closed with 1009 before they are read."""
MESSAGES_PER_MINUTE = limit("live_messages_per_minute", 5000)
"""Maximum of messages of a live connection per minute; audio in messages of 20 ms makes 3,000."""
CANCELS_PER_MINUTE = limit("live_cancels_per_minute", 50)
"""Maximum of cancels per minute and connection: after each an engine starts anew."""
LIVE_PING_S = 20.0
"""Seconds between pings of a live connection; a client that does not answer within the same time is
disconnected. It is shorter than the idle timeout of proxies, which is usually a minute."""
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
    ShuttingDown.code: 1001,
}
"""Close codes (RFC 6455, 7.4.1, and IANA's list) by error code, or else by kind. All other errors
close with 1008, "policy violation". 1011 is only for faults of the service."""
_POLICY = 1008

TOO_MANY_MESSAGES = "Too many messages in a short time."
MALFORMED_PER_MINUTE = 100
"""Maximum of invalid messages, each of which is answered; beyond it the connection is closed."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection: messages and cancels per minute."""

    # Not read at import: tests fork services that have other ones.
    messages_per_minute: int = field(default_factory=lambda: MESSAGES_PER_MINUTE)
    cancels_per_minute: int = field(default_factory=lambda: CANCELS_PER_MINUTE)


Message = str | bytes


class WebSocketGone(Exception):
    """The peer disconnected, so nothing can be sent to it. ``code``: its close code."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__()
        self.code = code


def close_code(
    error: SidecarError, codes_by_error: Mapping[ErrorKind | str, int] | None = None
) -> int:
    """Return the close code of ``error``; a protocol's ``codes_by_error`` table comes before
    `CLOSE_CODES`."""
    for codes in (codes_by_error or {}, CLOSE_CODES):
        for key in (error.code, error.kind):
            if key in codes:
                return codes[key]
    return _POLICY


class WebSocketConnection:
    """WebSocket connection and the identity of its client; ``spoken``: supported subprotocols."""

    def __init__(
        self,
        websocket: WebSocket,
        spoken: Sequence[str],
        limits: ConnectionLimits | None = None,
    ) -> None:
        limits = limits or ConnectionLimits()
        self.websocket, self._spoken = websocket, spoken
        self.identity: Identity = identity_of(websocket)
        self._messages = SlidingWindowLimit(RateLimit(limits.messages_per_minute, MINUTE_S))
        self._cancels = SlidingWindowLimit(RateLimit(limits.cancels_per_minute, MINUTE_S))
        self._malformed = SlidingWindowLimit(RateLimit(MALFORMED_PER_MINUTE, MINUTE_S))
        self._sending = asyncio.Lock()

    async def open(self) -> None:
        """Accept the handshake, if that has not been done, with the first offered subprotocol that
        is ``spoken``."""
        if self.websocket.application_state is WebSocketState.CONNECTING:
            await accept_handshake(self.websocket, self._spoken)

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            WebSocketGone: the peer disconnected.
        """
        found = await self.websocket.receive()
        if found["type"] != "websocket.receive":
            raise WebSocketGone(found.get("code"))
        text: str | None = found.get("text")
        return text if text is not None else bytes(found["bytes"])

    async def read(self, handle: Callable[[Message], Awaitable[None]]) -> None:
        """Read until the peer disconnects, and ``handle`` each message.

        Raises:
            WebSocketGone: the peer disconnected.
            errors.SidecarError: as ``handle``.
        """
        while True:
            await handle(await self.receive())

    async def send(self, *messages: Message) -> None:
        """Send messages in order, with no other message in between; wait for a peer that reads
        slowly.

        Raises:
            WebSocketGone: the peer disconnected, or reads nothing.
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
        """Close the connection; no effect if it is closed already."""
        await send_close(self.websocket, code, reason)

    async def run_until_first_ends(
        self,
        *tasks: Coroutine[Any, Any, None],
        conclude: Callable[[SidecarError], object] | None = None,
    ) -> None:
        """Run tasks until one ends, then cancel the others. The first one reads: it is cancelled
        if the client's token is revoked. ``conclude``: has another end then, for that reason.

        Raises:
            WebSocketGone: the peer disconnected.
            errors.TokenInvalid: the client's token was revoked.
            errors.SidecarError: the error that ended a task.
        """
        async with running(*tasks) as ongoing:
            with revocable(self.websocket.scope, ongoing[0].cancel) as revoked:
                await asyncio.wait(ongoing, return_when=asyncio.FIRST_COMPLETED)
            if conclude is not None and revoked.is_set():
                conclude(TokenInvalid())
                await asyncio.wait(ongoing[1:], return_when=asyncio.FIRST_COMPLETED)
        wrong = [task.exception() for task in ongoing if not task.cancelled()]
        faults = [*([TokenInvalid()] if revoked.is_set() else ()), *filter(None, wrong)]
        for fault in sorted(faults, key=lambda one: isinstance(one, WebSocketGone)):
            raise fault  # errors before a disconnect, as they say more

    def count(self) -> None:
        """Count a message.

        Raises:
            errors.RateLimited: too many in a minute; ``retry_after``: seconds until more are
                allowed.
        """
        raise_rate_limited(self._messages.take(time.monotonic()), TOO_MANY_MESSAGES)

    def count_malformed(self) -> None:
        """Count an invalid message, in a protocol that keeps the connection open after it. Too many
        of them end the connection.

        Raises:
            errors.RateLimited: as `count`.
        """
        raise_rate_limited(self._malformed.take(time.monotonic()), TOO_MANY_MESSAGES)

    def count_cancel(self) -> None:
        """Count a cancel.

        Raises:
            errors.RateLimited: as `count`.
        """
        raise_rate_limited(self._cancels.take(time.monotonic()), TOO_MANY_MESSAGES)


async def accept_handshake(websocket: WebSocket, spoken: Sequence[str]) -> None:
    """Accept a handshake, also of a connection that is then refused in a frame, with the first
    offered subprotocol that is ``spoken``; never one with a key."""
    offered = websocket.scope.get("subprotocols", ())
    chosen = next((one for one in offered if one in spoken), None)
    with suppress(RuntimeError, WebSocketDisconnect, OSError):  # a disconnect is noticed later
        await websocket.accept(subprotocol=chosen)


@dataclass(frozen=True, slots=True)
class ConnectionEnding:
    """Close frame of a connection, and the last message before it (`None`: none)."""

    code: int
    reason: str
    last_message: str | None = None


@dataclass(frozen=True, slots=True)
class WebSocketDialect:
    """Accept, refuse and close messages of a protocol over WebSockets.

    ``refuse_handshake``: refuses a handshake with an HTTP status, if it can, and returns whether it
    did. If it is set, the function that serves a connection accepts it itself, once it can be
    served. ``refusal``: renders an error for a client that is not admitted. ``limits``: of each
    connection; `None`: the defaults of `ConnectionLimits`.
    """

    subprotocols: Sequence[str]
    ending_of: Callable[[SidecarError], ConnectionEnding]
    refuse_handshake: Callable[[SidecarError, WebSocket], Awaitable[bool]] | None = None
    refusal: Callable[[SidecarError], Response] | None = None
    limits: ConnectionLimits | None = None

    async def serve(
        self,
        websocket: WebSocket,
        serve_connection: Callable[[WebSocketConnection], Awaitable[None]],
    ) -> None:
        """Accept a connection and ``serve_connection`` it; an error closes it as `ending_of`
        says."""
        socket = WebSocketConnection(websocket, self.subprotocols, self.limits)
        if self.refuse_handshake is None:
            await socket.open()
        try:
            await serve_connection(socket)
            await socket.close()
        except WebSocketGone:
            pass
        except SidecarError as error:
            await self._end(websocket, error)

    async def send_refusal(
        self, error: SidecarError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a client that was not admitted: with ``refusal`` as the response to its handshake,
        if it can read that. A script of a page or of Node cannot; it offers a subprotocol or has an
        `Origin`."""
        websocket = WebSocket(scope, receive, send)
        script = {"origin", "sec-websocket-protocol"} & set(websocket.headers.keys())
        if self.refusal is not None and not script:
            with suppress(RuntimeError, OSError):  # otherwise the error is sent in a frame
                await websocket.send_denial_response(self.refusal(error))
                return
        log_error(error, None)
        await self._end(websocket, error)

    async def _end(self, websocket: WebSocket, error: SidecarError) -> None:
        """Send the reason in an open connection, with a last message and a close frame: clients
        look there, and a browser lets its page read it."""
        if websocket.application_state is WebSocketState.CONNECTING:
            if self.refuse_handshake is not None and await self.refuse_handshake(error, websocket):
                return
            await accept_handshake(websocket, self.subprotocols)
        ending = self.ending_of(error)
        with suppress(RuntimeError, WebSocketDisconnect, OSError):  # a disconnected peer misses it
            if ending.last_message is not None:
                await websocket.send_text(ending.last_message)
        await send_close(websocket, ending.code, ending.reason)


async def send_close(websocket: WebSocket, code: int = 1000, reason: str = "") -> None:
    """Send a close frame, unless the connection is closed."""
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    short = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    with suppress(RuntimeError, WebSocketDisconnect, OSError):
        await websocket.close(code, short)
