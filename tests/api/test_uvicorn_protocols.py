"""Bytes of one connection cost the others little: pieces are paced, heads and fragments limited."""

import asyncio
import itertools
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgi_server import served
from service_process import PATIENCE_S, until
from starlette.types import Receive, Scope, Send
from virtual_time import virtual_time
from websockets.asyncio.client import connect

from sidecar.api.http.paced_protocol import (
    BODY_READ_BYTES,
    READ_BYTES,
    READ_S,
    REQUEST_S,
    SMALL_BYTES,
    SMALL_PIECES_AT_ONCE,
    SMALL_PIECES_PER_S,
    TURN_S,
    PacedProtocol,
)
from sidecar.api.http.request_headers import MAX_ALL_HEADERS_BYTES
from sidecar.api.http.uvicorn_protocols import (
    MAX_FRAGMENTS,
    MAX_HEADER_LINES,
    MAX_PIPELINED,
    MESSAGES_AT_ONCE,
    http_protocol,
    websocket_protocol,
)


class Wire(asyncio.Transport):
    """A transport whose peer has more to send whenever it is read."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


class Taken:
    """Stands for uvicorn: pieces of a certain size."""

    def __init__(self, size: int) -> None:
        self.size, self.taken, self.pieces = size, 0, 0

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self.pieces += len(data) // self.size


class Paced(PacedProtocol, Taken):
    """A protocol on a `Wire`."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.loop, self.transport = asyncio.get_running_loop(), Wire()

    def is_read_paused(self) -> bool:
        return False

    async def receive(self, seconds: float) -> int:
        """Read whatever is let in for so long; return how much that was."""
        # real time: none, it is virtual
        before, end = self.taken, self.loop.time() + seconds
        # real time: none, it is virtual
        while self.loop.time() < end and self.taken - before < 100 * READ_BYTES:
            if self.transport.reading:  # type: ignore[attr-defined]
                self.buffer_updated(len(self.get_buffer(-1)))
            reading = self.transport.reading  # type: ignore[attr-defined]
            await asyncio.sleep(0 if reading else 0.1)  # real time: none passes, the loop's jumps
        return self.taken - before


@virtual_time
async def test_small_pieces_are_read_at_a_limited_rate_and_large_ones_without_delay() -> None:
    fast = Paced(SMALL_BYTES)
    begun = fast.loop.time()
    assert await fast.receive(60) == 100 * READ_BYTES
    assert fast.loop.time() == begun, "nothing had to wait"
    slow = Paced(8)
    most = SMALL_PIECES_AT_ONCE + 60 * SMALL_PIECES_PER_S + READ_BYTES / 8
    assert 0.8 * most < await slow.receive(60) / 8 < 1.1 * most, "it is slow, not stopped"


@virtual_time
async def test_resumed_reading_does_not_hurry_a_connection_with_small_pieces() -> None:
    """uvicorn resumes reading whenever its application takes a message."""
    slow = Paced(1)
    slow.buffer_updated(READ_BYTES)
    assert not slow.transport.reading  # type: ignore[attr-defined]
    slow.transport.resume_reading()
    slow.buffer_updated(READ_BYTES)
    assert not slow.transport.reading  # type: ignore[attr-defined]
    assert slow.taken == READ_BYTES
    await asyncio.sleep(2 * READ_BYTES / SMALL_PIECES_PER_S)
    assert slow.taken == 2 * READ_BYTES, "nothing is lost"
    await asyncio.sleep(2 * READ_BYTES / SMALL_PIECES_PER_S)
    assert slow.transport.reading  # type: ignore[attr-defined]


@pytest.mark.parametrize("parser_s", [0, TURN_S], ids=["cheap", "costly"])
@virtual_time
async def test_large_reads_of_many_connections_take_turns_and_small_ones_do_not_wait(
    parser_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, clock = asyncio.get_running_loop(), [0.0]
    monkeypatch.setattr(loop, "time", lambda: clock[0])

    class Costly(Paced):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            clock[0] += parser_s

    many, small = [Costly(SMALL_BYTES) for _ in range(40)], Paced(SMALL_BYTES)
    taken = [0]
    for _ in range(101):
        for one in many:
            if one.transport.reading:  # type: ignore[attr-defined]
                one.buffer_updated(READ_BYTES)
        before = small.taken
        small.buffer_updated(READ_BYTES - 1)
        assert small.taken - before == READ_BYTES - 1, "it does not wait"
        taken.append(sum(one.taken for one in many) // READ_BYTES)
        await asyncio.sleep(0)
    in_turns = [after - before for before, after in itertools.pairwise(taken)]
    assert max(in_turns) == min(in_turns[1:]) == math.ceil(TURN_S / (parser_s + READ_S))
    shares = [one.taken for one in many]
    assert min(shares) > max(shares) / 2, "they are similar"


@virtual_time
async def test_bytes_held_while_others_are_read_are_not_parsed_after_their_connection_is_lost() -> (
    None
):
    many = [Paced(SMALL_BYTES) for _ in range(100)]
    for one in many:
        one.buffer_updated(READ_BYTES)
    waiting = [one for one in many if not one.taken]
    assert waiting
    for one in waiting:
        one.connection_lost(None)
    await asyncio.sleep(60)
    assert not any(one.taken for one in waiting)


async def test_heads_of_many_uploads_are_handled_a_few_in_each_turn_of_the_event_loop() -> None:
    """Each makes work for the application, and a turn of the event loop has no room for all."""
    begun, turns, count = list[int](), itertools.count(), 40

    def turn() -> None:
        if next(turns) < 10_000:
            asyncio.get_running_loop().call_soon(turn)

    async def begins(scope: Scope, receive: Receive, send: Send) -> None:
        if not begun:
            turn()
        begun.append(next(turns))
        await echo(scope, receive, send)

    head = HEAD + b"Content-Length: 10000\r\n\r\n"
    async with serving(begins) as address:
        peers = [await asyncio.open_connection(*address) for _ in range(count)]
        for _, writer in peers:
            writer.write(head + bytes(10_000))
        for reader, writer in peers:
            assert b" 200 " in await reader.readline()
            writer.close()
    at_once = Counter(turn - at for at, turn in enumerate(begun))
    assert max(at_once.values()) <= 1 + TURN_S / REQUEST_S


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path and the names of the headers, once the body is read."""
    while (await receive())["more_body"]:
        pass
    body = scope["path"].encode() + b"|" + b",".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Any, http: Any = None) -> AsyncIterator[tuple[str, int]]:
    """The address of an application behind our protocols."""
    async with (
        asyncio.timeout(PATIENCE_S),
        served(app, http=http or http_protocol(15), ws=websocket_protocol()) as listener,
    ):
        yield listener.getsockname()


async def answer(*parts: bytes, more: bytes = b"", app: Any = echo) -> bytes:
    """All that comes back for a request, whose client goes on to send ``more``."""
    async with serving(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"".join(parts))
        writer.write(more)
        found = await reader.read()
        writer.close()
        return found


HEAD = b"POST /path?q HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


CHUNKED_HEAD = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "body", "most"),
    [
        (HEAD + b"Content-Length: 500000\r\n\r\n", bytes(500_000), BODY_READ_BYTES),
        (CHUNKED_HEAD, (b"1000\r\n%b\r\n" % bytes(4096)) * 100 + b"0\r\n\r\n", READ_BYTES),
    ],
    ids=["length", "chunked"],
)
async def test_parser_gets_at_most_8_kb_at_a_time_or_64_kb_of_a_body(
    head: bytes, body: bytes, most: int
) -> None:
    kind, turns = http_protocol(15), []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def data_received(self, data: bytes) -> None:
            turns.append((len(data), self.body_left))
            super().data_received(data)

    async with serving(echo, Watched) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(head + body + head + b"\r\n" * 100)  # bytes behind a request are parsed
        assert b" 200 " in await reader.readline()
        writer.close()
    assert max(size for size, _ in turns) <= most
    assert all(size <= max(READ_BYTES, body_left) for size, body_left in turns)
    assert sum(size for size, _ in turns) >= len(body)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"a:\r\n" * MAX_HEADER_LINES,
        HEAD + b"a: " + b"x" * (MAX_ALL_HEADERS_BYTES + 4 * READ_BYTES),
        b"GET /" + b"x" * (MAX_ALL_HEADERS_BYTES + 4 * READ_BYTES),
    ],
    ids=["lines", "header", "address"],
)
async def test_endless_head_is_refused_while_it_is_read(head: bytes) -> None:
    assert (await answer(head)).startswith(b"HTTP/1.1 400 ")


ENDLESS = b"x" * (MAX_ALL_HEADERS_BYTES + 4 * READ_BYTES)


@pytest.mark.parametrize(
    "body", [b"1\r\nx\r\n0\r\na: " + ENDLESS, b"1;a=" + ENDLESS], ids=["trailer", "chunk extension"]
)
async def test_endless_line_of_a_chunked_body_is_refused_while_it_is_read(body: bytes) -> None:
    assert (await answer(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", body)).startswith(
        b"HTTP/1.1 400 "
    )


async def test_endless_head_behind_a_request_ends_its_connection_after_the_response() -> None:
    answered = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await answered.wait()
        await echo(scope, receive, send)

    async with serving(slow) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /path HTTP/1.1\r\nHost: localhost\r\n\r\nGET /" + 10 * ENDLESS)
        await writer.drain()
        answered.set()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_trailer_of_a_chunked_body_is_not_read_as_a_header() -> None:
    """Reverse proxies remove what clients may not claim from headers only."""
    body = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
    found = await answer(HEAD, body)
    assert b"/path|host,connection,transfer-encoding\r\n" in found


async def test_absolute_request_url_is_routed_by_its_path() -> None:
    """RFC 9112, 3.2.2: what clients of a proxy send."""
    head = HEAD.replace(b"/path", b"http://localhost/path")
    assert b"/path|" in await answer(head, b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"http://evil.example/a?b=/c#d", b"evil.example /a b=/c"),
        (b"HTTPS://evil.example:1?b=/c", b"evil.example:1 / b=/c"),
        (b"http://[::1]:2", b"[::1]:2 / "),
        (b"/http://evil.example/", b"localhost /http://evil.example/ "),
    ],
)
async def test_host_of_an_absolute_target_counts_and_not_that_of_the_header(
    target: bytes, seen: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = b",".join(value for name, value in scope["headers"] if name == b"host")
        body = b"%b %b %b" % (hosts, scope["path"].encode(), scope["query_string"])
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
        assert (await reader.read()).endswith(b"\r\n\r\n" + seen)
        writer.close()


async def size(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the number of bytes of the body."""
    found, more = 0, True
    while more:
        message = await receive()
        found, more = found + len(message["body"]), message["more_body"]
    body = b"%d bytes" % found
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    "body",
    [
        [b"Content-Length: 3\r\n\r\nabc"],
        [b"Content-Length: 3\r\n\r\n", b"a", b"bc"],
        [b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"],
        [b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"],
    ],
    ids=["length", "length, later", "chunked", "chunked, later"],
)
async def test_body_of_request_that_offers_http_2_arrives(body: list[bytes]) -> None:
    """`curl --http2` and Java's client offer it. Afterwards, the connection is used again."""
    head = (
        b"POST /path HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    )
    async with serving(size) as address:
        reader, writer = await asyncio.open_connection(*address)
        for parts in body, body, [b"Content-Length: 0\r\nConnection: close\r\n\r\n"]:
            for part in (head + parts[0], *parts[1:]):
                writer.write(part)
                await asyncio.sleep(0.02)  # real time: apart or joined, all of it has to arrive
            if parts is body:
                assert (await reader.readuntil(b"bytes")).endswith(b"\r\n3 bytes")
        assert (await reader.read()).endswith(b"\r\n0 bytes")
        writer.close()


async def test_pipelined_requests_that_offer_http_2_are_answered() -> None:
    offer = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    parts = [offer + b"Content-Length: 2\r\n\r\nab"] * 5
    found = await answer(
        *parts, offer.replace(b": upgrade", b": upgrade, close"), b"\r\n", app=size
    )
    assert found.count(b"2 bytes") == 5
    assert found.endswith(b"0 bytes")


async def test_bytes_behind_a_whole_request_do_not_replace_its_response() -> None:
    found = await answer(HEAD.replace(b"close", b"keep-alive"), b"Content-Length: 1\r\n\r\nxxx")
    assert found.startswith(b"HTTP/1.1 200 ")
    assert b" 400 " not in found


HANDSHAKE = (
    b"\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
"""Headers of a request for a WebSocket, behind its first line."""


async def test_websocket_at_an_absolute_address_is_opened() -> None:
    async def takes_it(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["path"].strip("/")})
        await receive()

    async with serving(takes_it) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET ws://localhost/live?a HTTP/1.1" + HANDSHAKE)
        found = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert found.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Protocol: live\r\n" in found


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        b"GET / HTTP/1.1\r\na: " + b"x" * 10_000,
        b"GET / HTTP/1.1" + b"\r\na: b" * 150,
        b"CONNECT localhost:80 HTTP/1.1",
        b"POST / HTTP/1.1\r\nContent-Length: 1",
    ],
    ids=["long line", "many lines", "tunnel", "body"],
)
async def test_unreadable_websocket_handshake_is_refused_with_4xx_and_no_logged_exception(
    request_line_and_headers: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    found = await answer(request_line_and_headers, HANDSHAKE)
    assert found.startswith(b"HTTP/1.1 4")
    assert not [record for record in caplog.records if record.exc_info]


async def test_pipelined_requests_beyond_the_limit_are_not_answered() -> None:
    """They would be kept, each with its headers, while the first one is answered."""
    found = await answer(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
    assert found.count(b"HTTP/1.1 200 ") <= MAX_PIPELINED + 1


async def test_response_to_invalid_http_arrives_although_the_client_sends_on() -> None:
    found = await answer(b"no http\r\n\r\n", more=b"x" * 100_000)
    assert found.startswith(b"HTTP/1.1 400 ")


async def test_refused_connection_does_not_delay_the_shutdown() -> None:
    protocol = http_protocol(15, refused_close_s=2 * PATIENCE_S)
    async with serving(echo, protocol) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"no http\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_warning_of_an_invalid_request_is_muted_for_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await answer(b"no http\r\n\r\n")
    (record,) = [one for one in caplog.records if "Invalid HTTP" in one.getMessage()]
    assert (record.levelno, record.mute_s) == (logging.WARNING, 60.0)  # type: ignore[attr-defined]


async def test_websocket_message_of_too_many_fragments_closes_with_1009() -> None:
    async def takes_it(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass

    fragment = b"\xfe" + SMALL_BYTES.to_bytes(2) + bytes(4 + SMALL_BYTES)
    async with serving(takes_it) as (host, port), connect(f"ws://{host}:{port}/") as live:
        live.transport.write(b"\x02" + fragment + (b"\x00" + fragment) * MAX_FRAGMENTS)
        told = await until(lambda: live.protocol.close_rcvd, "the close frame")
        live.transport.close()  # the service goes on to read
    assert told.code == 1009


async def test_waiting_websocket_messages_leave_turns_of_the_event_loop_to_others() -> None:
    came: list[int] = []
    turns = itertools.count()

    def count() -> None:
        if next(turns) < 1000:
            asyncio.get_running_loop().call_soon(count)

    async def takes_all(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        count()
        for _ in range(99):
            await receive()
            came.append(next(turns))
        await send({"type": "websocket.close"})

    async with serving(takes_all) as (host, port), connect(f"ws://{host}:{port}/") as live:
        live.transport.write(b"\x82\x82\0\0\0\0ab" * 100)
        await live.wait_closed()
    assert len(came) == 99
    assert came[-1] - len(came) >= 99 // MESSAGES_AT_ONCE, "turns of the loop"
