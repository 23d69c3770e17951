"""uvicorn's HTTP and WebSocket protocols with timeouts and limits.

Of the HTTP protocol three defaults are changed. It has no limit for the head of a request. It logs
query strings, which may have a key. It skips the body of a request that offers another protocol.

Of the WebSocket protocol four. It answers an oversized message by a reset instead of a close
frame. It logs URLs and headers, which may have a key. At shutdown it leaves the protocols no time
for their own close frame. It reads nothing while a message waits, and so answers no ping behind it.
"""

import asyncio
import logging
import re
import select
import sys
from collections import Counter, deque
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sidecar.api.http import paced_protocol
from sidecar.api.http.request_headers import MAX_ALL_HEADERS_BYTES, PEER_GONE_KEY
from sidecar.auth.rate_limits import MAX_SHARE_OF_FREE, rate_limit_key
from sidecar.limit_overrides import limit
from sidecar.observability.logs import ONCE_A_MINUTE

REQUEST_HEAD_S = limit("request_deadline", 15.0)
"""Seconds for a client to send the head of a request, or to complete a handshake."""
MAX_HEADER_LINES = 256
"""Maximum of header lines of a request, with its trailers; browsers and proxies send up to 60."""
MAX_PIPELINED = 16
"""Maximum of requests that wait behind another one of their connection; today's clients wait for
each response."""

_ABSOLUTE = re.compile(rb"(?:http|ws)s?://(?P<host>[^/?#]*)(?P<path>[^#]*)", re.IGNORECASE)
"""Target of a request with its host (RFC 9112, 3.2.2)."""
_http_log = logging.getLogger("uvicorn.error.http")
OVERSIZED_DRAIN_S = 2.0
"""Seconds for which the rest of an oversized message is read: a peer that is still writing would
see a reset instead of the close code."""
MAX_FRAGMENTS = 4096
"""Maximum of fragments of a message; they are kept, however small, until it is complete."""
MESSAGES_AT_ONCE = 4
"""Maximum of messages that an application gets in one turn of the event loop. They are so many
because it joins small ones of audio for the engine."""
READ_AHEAD_BYTES, ALL_READ_AHEAD_BYTES = 32 << 20, 256 << 20
"""Maximum of bytes of a connection, and of all, that wait for their application. A client pings
behind what it sends, and many hang up if the pong takes 20 s: so a recording that comes faster than
it is recognized is read on. The first is a quarter of an hour of 16 kHz. Of the second an address
leaves others a fair share (`rate_limits.is_within_fair_share`)."""
MESSAGE_COST_BYTES = 512
"""Bytes that a waiting message takes besides its own."""
UNREADABLE_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 40\r\nConnection: close\r\n\r\nThe WebSocket handshake cannot be read.\n"
)
"""Answer to a handshake with a body, or with more lines or longer ones than `websockets` takes."""
SHUTDOWN_CLOSE_S = 0.5
"""Seconds at shutdown for the protocol's own close frame, before the server's (1012)."""
_websocket_log = logging.getLogger("uvicorn.error.websocket")


class HttpProtocol(paced_protocol.PacedProtocol, HttpToolsProtocol):  # type: ignore[misc]  # `eof_received`
    """uvicorn's HTTP protocol with a timer from the first byte of a request to the end of its head,
    when the parser passes it to a cycle. For the first request it starts with the connection."""

    head_s: float
    _clock: asyncio.TimerHandle | None = None
    _header_lines = 0
    _line_bytes = 0
    """Bytes since a head or a request was complete, or data of a body came: lines of a head, of
    trailers, of a chunk's size."""
    _in_head = True
    _offers = False
    """True if the request offers a protocol that is not spoken here, as HTTP/2 (h2c)."""
    _read = b""
    """Bytes that are parsed in this turn."""
    _ignoring = False
    """True if nothing more is parsed: the connection ends with its last response."""

    def connection_made(self, transport: Any) -> None:
        """Start the timer of the first head."""
        super().connection_made(transport)
        self.logger = _http_log
        self.app_state = {**self.app_state, PEER_GONE_KEY: self._is_peer_gone}
        self._start()

    def data_received(self, data: bytes) -> None:
        """Parse what was read, unless the connection is about to end."""
        if self._ignoring:
            return
        if self._clock is None and not self._answering:
            self._start()
        self._read = data
        self._line_bytes += len(data)
        super().data_received(data)
        self._read = b""
        if self._answering:
            self._stop()
        too_large = self._line_bytes > MAX_ALL_HEADERS_BYTES + paced_protocol.READ_BYTES
        if too_large and not self._ignoring and not self.transport.is_closing():
            self.send_400_response("The head or the trailers of the request are too large.")

    def on_message_begin(self) -> None:
        """Begin a request, unless too many of them wait."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self._in_head, self._header_lines = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, unless there are too many lines."""
        self._header_lines += 1
        if self._header_lines > MAX_HEADER_LINES:
            raise ValueError("too many header lines")
        if self._in_head:  # a trailer is no header: proxies do not check it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request on, unless it offers what is not spoken here."""
        self._in_head, self._line_bytes = False, 0
        if absolute := _ABSOLUTE.match(self.url):  # its host counts, and not the header's
            path = absolute["path"]
            self.url = path if path.startswith(b"/") else b"/" + path
            others = [one for one in self.headers if one[0] != b"host"]
            self.headers[:] = [(b"host", absolute["host"]), *others]
        self.work_s += paced_protocol.REQUEST_S
        offers = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        self._offers = offers and not self._should_upgrade()
        if not self._offers:
            super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.body_left = int(dict(self.headers).get(b"content-length", 0))

    def on_message_complete(self) -> None:
        """End the request."""
        self._line_bytes = 0
        self.work_s += paced_protocol.REQUEST_S
        if not self._offers:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Read a request without what it offers: the parser would skip its body (RFC 9110, 7.8:
        a server may ignore an offer)."""
        upgrade = sys.exc_info()[1]
        if not self._offers or not isinstance(upgrade, httptools.HttpParserUpgrade):
            super()._unsupported_upgrade_warning()
            return
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (method, self.url, version)]
        offer = b"upgrade", b"http2-settings"
        head += [b"%b: %b" % (k, value) for k, value in self.headers if k not in offer]
        rest = self._read[upgrade.args[0] :]
        self._read = b"\r\n".join([*head, b"", rest])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        super().data_received(self._read)

    def on_body(self, body: bytes) -> None:
        """Add to the body of the request."""
        self.pieces += 1
        self.body_left -= len(body)
        if self._answering:  # the rest of a body that nobody reads is limited, too
            self._line_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, and end the connection."""
        self._stop()
        if self._answering and not self.cycle.more_body:  # bytes behind a whole request
            self.cycle.keep_alive, self._ignoring = False, True
            return
        if self._answering:
            if self.cycle.response_started:  # what follows would belong to that response
                self.transport.close()
                return
            self.cycle.disconnected = True  # its body is broken
            self.cycle.message_event.set()
        self.refuse()
        super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol."""
        self._stop()  # a WebSocket has timeouts of its own
        if not self.url.startswith(b"/"):  # of a tunnel (CONNECT)
            self.send_400_response("The address of the WebSocket is invalid.")
            return
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop()
        super().connection_lost(exc)

    def is_read_paused(self) -> bool:
        """As `PacedProtocol.is_read_paused`."""
        return self.flow.read_paused

    def _is_peer_gone(self) -> bool:
        if self.transport.is_closing():
            return True
        if sys.platform != "linux":  # the only one that reports it behind unread bytes
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
        return bool(poll.poll(0))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start(self) -> None:
        self._clock = self.loop.call_later(self.head_s, self._late)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if not self._answering and self.transport is not None:
            self.transport.close()


def http_protocol(
    head_s: float,
    unread_s: float = paced_protocol.SEND_TIMEOUT_S,
    refused_close_s: float = paced_protocol.REFUSED_CLOSE_S,
) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with timeouts and limits.

    It closes a connection if a request head takes longer than ``head_s`` seconds or is too large,
    or if its peer reads nothing for ``unread_s`` seconds; a refused one after ``refused_close_s``.
    """
    _http_log.addFilter(_mute_warnings)
    timeouts = {"head_s": head_s, "unread_s": unread_s, "refused_close_s": refused_close_s}
    return type("HttpProtocol", (HttpProtocol,), timeouts)


def _mute_warnings(record: logging.LogRecord) -> bool:
    """Let a warning about invalid requests, which clients can cause at will, be written once in a
    while."""
    if record.levelno == logging.WARNING:
        record.__dict__.update(ONCE_A_MINUTE)
    return True


class WebSocketProtocol(paced_protocol.PacedProtocol, WebSocketsSansIOProtocol):  # type: ignore[misc]  # the same
    """uvicorn's WebSocket protocol: a connection below ASGI."""

    shutdown_close_s = SHUTDOWN_CLOSE_S
    read_ahead_bytes = READ_AHEAD_BYTES
    all_read_ahead_bytes = ALL_READ_AHEAD_BYTES
    all_ahead_bytes = 0
    """Bytes that wait in all connections."""
    address_ahead_bytes: ClassVar[Counter[str]] = Counter()
    """The same, in those of each address: of the client, if a trusted proxy names it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.logger = _websocket_log
        self.conn.logger = _websocket_log
        self.conn.debug = False
        self._came = False
        """True if data arrived since the last liveness check."""
        self._given = 0
        """Number of messages that the application got in this turn of the event loop."""
        self._sizes = deque[int]()
        """Bytes of each message that waits."""
        self._ahead_bytes = 0
        self._address = ""
        """Address for which these are counted."""

    def data_received(self, data: bytes) -> None:
        """Parse what was read; refuse a handshake that cannot be read."""
        self._came = True
        if self.conn.parser_exc is None:  # otherwise it is the rest of a refused message
            super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        """Answer a handshake that `websockets` cannot read, with its answer if it has one."""
        answer = b"".join(self.conn.data_to_send())
        self.refuse()
        self.transport.write(answer or UNREADABLE_HANDSHAKE)
        self.transport.close()
        self.handshake_initiated = self.handshake_complete = self.close_sent = True

    def handle_events(self) -> None:
        """Count the frames."""
        self.pieces += len(self.conn.events)
        super().handle_events()

    def handle_cont(self, event: Any) -> None:
        """Add a fragment to its message, unless that has too many."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Add a message to those that wait."""
        size = MESSAGE_COST_BYTES + sum(map(len, self.frames))
        was_paused, self.read_paused = self.read_paused, True  # else uvicorn would pause here
        waiting = self.queue.qsize()
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if self.queue.qsize() > waiting:  # otherwise the connection is closing
            self._sizes.append(size)
            self._count(size)

    def is_read_paused(self) -> bool:
        """As `PacedProtocol.is_read_paused`."""
        return self.read_paused

    async def receive(self) -> Any:
        """ASGI; if many messages wait, other connections come in between."""
        self._given = 0 if self.queue.empty() else self._given + 1
        if self._given == MESSAGES_AT_ONCE:
            self._given = 0
            await asyncio.sleep(0)
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._count(-self._sizes.popleft())
        return message

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Forget what the application did not take."""
        super().on_task_complete(task)
        self._count(-self._ahead_bytes)

    def _count(self, size: int) -> None:
        """Count bytes that wait, and read on unless they are too much."""
        if not self._address:
            self._address = rate_limit_key((self.scope["client"] or (None,))[0])
        counter, address = WebSocketProtocol.address_ahead_bytes, self._address
        self._ahead_bytes += size
        WebSocketProtocol.all_ahead_bytes += size
        counter[address] += size
        free_bytes = self.all_read_ahead_bytes - WebSocketProtocol.all_ahead_bytes
        unfair = counter[address] > MAX_SHARE_OF_FREE * free_bytes
        full = self._ahead_bytes >= self.read_ahead_bytes or (unfair and not self.queue.empty())
        if not counter[address]:
            del counter[address]
        if full is not self.read_paused:
            self.read_paused = full
            (self.transport.pause_reading if full else self.transport.resume_reading)()

    async def send(self, message: Any) -> None:
        """ASGI; a refusal of the handshake ends the connection without a reset."""
        if not self.handshake_complete and message["type"] != "websocket.accept":
            self.refuse()
        await super().send(message)
        if self.initial_response is not None and self.close_sent:  # a complete refusal
            self.handshake_complete = True  # otherwise uvicorn logs a missing response

    def handle_parser_exception(self) -> None:
        """Close with a close frame, and read the rest of the message for a while."""
        closing = self.conn.close_sent
        code, reason = (closing.code, closing.reason) if closing else (1002, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.stop_keepalive()
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(OVERSIZED_DRAIN_S, self.transport.abort)

    def send_keepalive_ping(self) -> None:
        """Ping the peer."""
        self._came = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Close if nothing came since the ping. A peer that sends is alive: its pong is behind
        unread data, and nothing is read while the protocol cannot take more."""
        if self.read_paused or self._came:
            self._came = self.read_paused
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def shutdown(self) -> None:
        """Close, after a time for the protocol's own close frame."""
        if self.close_sent or not self.handshake_complete:
            super().shutdown()
        else:
            self.loop.call_later(self.shutdown_close_s, self.close_for_restart)

    def close_for_restart(self) -> None:
        """Close with 1012, unless it is closed."""
        if not self.disconnected:
            super().shutdown()


def websocket_protocol(
    unread_s: float = paced_protocol.SEND_TIMEOUT_S,
    shutdown_close_s: float = SHUTDOWN_CLOSE_S,
    read_ahead_bytes: int = READ_AHEAD_BYTES,
    all_read_ahead_bytes: int = ALL_READ_AHEAD_BYTES,
) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with timeouts and limits; a peer that reads nothing for
    ``unread_s`` seconds is disconnected."""
    _websocket_log.setLevel(logging.WARNING)  # lower levels log URLs and headers, with keys in them
    _websocket_log.addFilter(_is_ours)
    limits = {
        "unread_s": unread_s,
        "shutdown_close_s": shutdown_close_s,
        "read_ahead_bytes": read_ahead_bytes,
        "all_read_ahead_bytes": all_read_ahead_bytes,
    }
    return type("WebSocketProtocol", (WebSocketProtocol,), limits)


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record is logged: not for invalid UTF-8 of a peer, which is closed with
    1007."""
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
