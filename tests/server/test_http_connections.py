"""Connections of one address are counted from accept to close; TLS handshakes have a limit."""

import asyncio
import errno
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from service_process import PATIENCE_S, until
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from sidecar.accepted_sockets import ACCEPT_RETRY_S
from sidecar.api.http.uvicorn_protocols import http_protocol, websocket_protocol
from sidecar.auth.rate_limits import RateLimit
from sidecar.auth.tls import ensure_certificate
from sidecar.server import http_connections
from sidecar.server.http_connections import (
    NEW_CONNECTIONS,
    TLS_HANDSHAKE_S,
    CountingServer,
)


async def takes_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a WebSocket and answer any request."""
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await receive()
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def accept_with(*faults: Exception | None) -> None:
    """Let the next connections that this event loop accepts come with these: an error, or no
    address."""
    loop, left = asyncio.get_running_loop(), list(faults)
    usual = loop.sock_accept

    async def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
        sock, address = await usual(listener)
        if not left:
            return sock, address
        if (fault := left.pop(0)) is None:
            return sock, None
        sock.close()
        raise fault

    setattr(loop, "sock_accept", accept)  # noqa: B010 - a method


@asynccontextmanager
async def counting(
    most: int = 100,
    rate_limit: RateLimit = NEW_CONNECTIONS,
    faults: tuple[Exception | None, ...] = (),
    app: ASGIApp = takes_all,
    accept_retry_s: float = ACCEPT_RETRY_S,
    tls_handshake_s: float = TLS_HANDSHAKE_S,
    **options: Any,
) -> AsyncIterator[tuple[str, int]]:
    """The address of a server with at most so many connections of one address."""
    protocols = {"http": http_protocol(PATIENCE_S), "ws": websocket_protocol()}
    config = uvicorn.Config(app, lifespan="off", log_config=None, **protocols, **options)
    server = CountingServer(config, most, rate_limit, accept_retry_s, tls_handshake_s)
    accept_with(*faults)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        yield listener.getsockname()
        server.should_exit = True
        await serving


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the connection is closed."""
    with suppress(ConnectionError):
        assert await reader.read() == b""
    return True


async def is_served(address: tuple[str, int]) -> None:
    """Make a request, which is answered."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 204 ")
    writer.close()


async def test_connections_of_one_address_are_limited_and_its_websockets_count() -> None:
    async with counting(most=2) as address:
        url = "ws://{}:{}/".format(*address)
        live, (_, silent) = await connect(url), await asyncio.open_connection(*address)
        assert await is_closed((await asyncio.open_connection(*address))[0])
        await live.close()
        silent.close()
        opened = []
        while len(opened) < 2:  # until the service has seen that they are gone
            with suppress(OSError, EOFError, WebSocketException):
                opened.append(await connect(url))
        for one in opened:
            await one.close()


def netname_deleted() -> OSError:
    """What Windows says of a client that was gone before it was accepted."""
    error = OSError(errno.EINVAL, "The specified network name is no longer available")
    error.winerror = 64  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "fault",
    [
        None,
        netname_deleted(),
        OSError(errno.EPERM, "a firewall"),
        OSError(errno.EPROTO, "gone"),
        ValueError("bug"),
    ],
    ids=["no address", "reset on Windows", "firewall", "protocol", "bug"],
)
async def test_connection_after_one_with_an_accept_fault_is_served_without_the_retry_wait(
    fault: Exception | None,
) -> None:
    """macOS gives no address for a connection that was reset before it was accepted."""
    async with counting(faults=(fault, fault), accept_retry_s=3600.0) as address:
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*address)
            assert await is_closed(reader)
            writer.close()
        await is_served(address)


async def test_clients_that_reset_their_connections_before_the_accept_stop_no_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = CountingServer(uvicorn.Config(takes_all, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            with socket.create_connection(listener.getsockname()) as client:
                at_once = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await is_served(listener.getsockname())
        server.should_exit = True
        await serving
    assert not server.broken
    assert "Traceback" not in caplog.text


async def test_accept_without_a_free_descriptor_is_retried_after_the_retry_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def counted(delay: float) -> None:
        waits.append(delay)
        await sleep(0)

    full = OSError(errno.EMFILE, "too many open files")
    async with counting(faults=(full,), accept_retry_s=12.5) as address:
        monkeypatch.setattr(http_connections.asyncio, "sleep", counted)
        _, writer = await asyncio.open_connection(*address)
        await is_served(address)
        writer.close()
    assert waits.count(12.5) == 1


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
async def test_server_whose_listener_is_gone_ends_broken_with_an_error(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = uvicorn.Config(takes_all, lifespan="off", log_config=None)
    server = CountingServer(config, 100, NEW_CONNECTIONS)
    accept_with(OSError(number, "it is gone"))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        await server.serve(sockets=[listener])
    assert server.broken
    assert "no connection can be accepted any more" in caplog.text


@pytest.mark.skipif(sys.platform == "darwin", reason="there 127.0.0.2 is no address")
async def test_new_connections_over_the_rate_of_an_address_wait_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connections, "is_loopback_address", lambda _: False)
    opened: list[asyncio.StreamWriter] = []
    async with counting(rate_limit=RateLimit(1, 3600), forwarded_allow_ips=[]) as address:

        async def ask(source: str) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            opened.append(writer)  # it would close its connection when it is forgotten
            return reader

        first, second = await ask("127.0.0.1"), await ask("127.0.0.1")
        other = await ask("127.0.0.2")
        assert (await first.readline()).startswith(b"HTTP/1.1 204 ")
        assert (await other.readline()).startswith(b"HTTP/1.1 204 ")
        answer = asyncio.ensure_future(second.readline())
        await asyncio.sleep(0)
        assert not answer.done(), "it came before the other"
        answer.cancel()
        for writer in opened:
            writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address")
async def test_connection_does_not_wait_behind_all_300_of_another_address() -> None:
    served: list[str] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["client"][0])
        await takes_all(scope, receive, send)

    async with counting(most=1000, app=noting) as address:
        await is_served(address)  # it listens
        opened = [
            socket.create_connection(address, source_address=(source, 0))
            for source in [*["127.0.0.1"] * 300, "127.0.0.2"]
        ]
        for sock in opened:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: "127.0.0.2" in served)
        for sock in opened:
            sock.close()
    assert served.index("127.0.0.2") < 150


@pytest.mark.parametrize(
    ("loopback", "proxies"), [(True, []), (False, ["127.0.0.0/8"])], ids=["loopback", "proxy"]
)
async def test_new_connections_of_loopback_or_a_trusted_proxy_have_no_rate_limit(
    loopback: bool, proxies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many users connect through one proxy."""
    monkeypatch.setattr(http_connections, "is_loopback_address", lambda _: loopback, raising=False)
    async with counting(rate_limit=RateLimit(1, 3600), forwarded_allow_ips=proxies) as address:
        for _ in range(3):
            await is_served(address)


async def test_connection_counts_before_its_tls_handshake_and_is_closed_if_it_sends_none(
    tmp_path: Path,
) -> None:
    pair = ensure_certificate(tmp_path, frozenset({"localhost", "127.0.0.1"}))
    files = {"ssl_certfile": str(pair.certificate), "ssl_keyfile": str(pair.key)}
    trusting = ssl.create_default_context(cafile=pair.certificate)
    async with counting(most=1, tls_handshake_s=0.5, **files) as address:
        silent, writer = await asyncio.open_connection(*address)
        one_too_many, _ = await asyncio.open_connection(*address)
        assert await is_closed(one_too_many)
        assert await is_closed(silent), "it never shook hands"
        writer.close()
        while True:  # until the service has seen that it is gone
            with suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection(*address, ssl=trusting)
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 204 ")
                writer.close()
                return


async def test_connection_of_a_listener_without_a_protocol_has_no_nagle_delay() -> None:
    """As those that asyncio accepts on Windows."""
    sockets = []

    class Protocol(asyncio.Protocol):
        def __init__(self, **_: Any) -> None: ...

        def connection_made(self, transport: Any) -> None:
            sockets.append(transport.get_extra_info("socket"))

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(takes_all, http=Protocol, lifespan="off", log_config=None)
        server = CountingServer(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await until(lambda: server.started, "it serves")
        _, writer = await asyncio.open_connection(*listener.getsockname())
        await until(lambda: sockets, "it is accepted")
        assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        server.should_exit = True
        await serving
