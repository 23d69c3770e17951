"""What all wires over WebSockets stand on, on real sockets: a small wire of the tests' own."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import websockets
from asgi_server import served
from hypothesis import given
from hypothesis import strategies as st
from service_process import PATIENCE_S, until
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from sidecar import errors
from sidecar.api.http import auth_gate
from sidecar.api.http.uvicorn_protocols import http_protocol, websocket_protocol
from sidecar.api.http.websocket_connections import (
    ConnectionEnding,
    ConnectionLimits,
    WebSocketConnection,
    WebSocketDialect,
    WebSocketGone,
    close_code,
)
from sidecar.auth.authentication import AccessControl, Authenticator, OneTimeCodes
from sidecar.auth.identity import AuthMethod, Identity, SignedCredential
from sidecar.auth.rate_limits import RateLimit, RevocableStreams, SlidingWindowLimit
from sidecar.plugins.wyoming.errors import MessageTooBig

TOKEN = "correct-horse-battery-staple"
MB = 1 << 20


@dataclass
class Echo:
    """A wire that sends back what it is sent. `flood` never ends, `wait` takes nothing for a while,
    `end` is answered ahead of what waits."""

    ended: asyncio.Queue[str]
    work: asyncio.Event
    limits: ConnectionLimits

    async def serve(self, websocket: WebSocket) -> None:
        how, inbound = "end", asyncio.Queue[Any]()

        async def echo(socket: WebSocketConnection) -> None:
            nonlocal how

            async def queue(message: str | bytes) -> None:
                if message != "pong":
                    inbound.put_nowait(message)

            try:
                await socket.run_until_first_ends(socket.read(queue), self.answer(socket, inbound))
            except WebSocketGone:
                how = "gone"
                raise
            except errors.SidecarError as error:
                how = error.code
                raise

        def ending_of(error: errors.SidecarError) -> ConnectionEnding:
            last = json.dumps({"code": error.code, "after": error.retry_after})
            return ConnectionEnding(close_code(error, {"rate_limited": 4008}), error.code, last)

        dialect = WebSocketDialect(("echo",), ending_of, limits=self.limits)
        await dialect.serve(websocket, echo)
        self.ended.put_nowait(how)

    async def answer(self, socket: WebSocketConnection, inbound: asyncio.Queue[Any]) -> None:
        while True:
            message = await inbound.get()
            socket.count()
            if message == "wait":
                await self.work.wait()
            if message == "cancel":
                socket.count_cancel()
            if message == "end":
                return
            while message == "flood":
                await socket.send("x" * 65536)
            await socket.send(message)


@dataclass
class Running:
    """It, served."""

    port: int
    wire: Echo
    streams: RevocableStreams
    tickets: OneTimeCodes[auth_gate.TicketGrant]
    refused: list[str]
    protocols: list[Any]
    """uvicorn's, one for each connection."""

    def connect(self, query: str = "", **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/echo{query}", **options)

    async def ended(self) -> str:
        return await self.wire.ended.get()


class Papers:
    """Knows people by signed tokens, and forgets them when told to."""

    local_only = False
    revoked = False

    def identify(self, origin: Any) -> Identity:
        return Identity("anna", AuthMethod.JWT, credential=SignedCredential("1", "key"))

    def refusal(self, credential: SignedCredential) -> str | None:
        return "was revoked" if self.revoked else None


@contextlib.asynccontextmanager
async def serving(
    authenticator: Any = None,
    ping_s: float = 20.0,
    unread_s: float = 60.0,
    shutdown_s: int = 1,
    **limits: int,
) -> AsyncIterator[Running]:
    """The wire behind the gate, served as `server.http_server` does; with these `ConnectionLimits`
    or else the usual ones."""
    wire = Echo(asyncio.Queue(), asyncio.Event(), ConnectionLimits(**limits))
    known = authenticator or Authenticator(TOKEN)
    streams, tickets = RevocableStreams(known.refusal), OneTimeCodes[auth_gate.TicketGrant]()
    refused: list[str] = []
    protocols: list[Any] = []
    protocol: Any = websocket_protocol(unread_s, PATIENCE_S)

    def connected(*given: Any, **named: Any) -> Any:
        protocols.append(protocol(*given, **named))
        return protocols[-1]

    async def refuse(error: errors.SidecarError, scope: Any, receive: Any, send: Any) -> None:
        refused.append(error.code)
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text(error.code)
        await socket.close(4001)

    gate: ASGIApp = auth_gate.AuthGate(
        Starlette(
            routes=[WebSocketRoute("/echo", wire.serve), WebSocketRoute("/silent", wire.serve)]
        ),
        AccessControl(authenticator=known, streams=streams),
        auth_gate.PortRules(refusals={"/echo": refuse}, tickets=tickets),
    )
    async with served(
        gate,
        http=http_protocol(5.0),
        ws=connected,
        ws_max_size=MB,
        ws_ping_interval=ping_s,
        ws_ping_timeout=ping_s,
        ws_per_message_deflate=False,
        log_level="debug",
        timeout_graceful_shutdown=shutdown_s,
    ) as listener:
        yield Running(listener.getsockname()[1], wire, streams, tickets, refused, protocols)


async def told_to_close(live: websockets.ClientConnection) -> int:
    """Code of the service's close frame. It goes on to read, which is not waited for."""
    frame = await until(lambda: live.protocol.close_rcvd, "the close frame")
    live.transport.abort()  # `close` would leave what is unsent to a transport that is gone
    return int(frame.code)


async def closed(live: websockets.ClientConnection) -> tuple[int, str]:
    """Code and reason with which the service closes a connection."""
    with pytest.raises(websockets.ConnectionClosed) as told:
        await live.recv()
    assert told.value.rcvd is not None
    return told.value.rcvd.code, told.value.rcvd.reason


BEARER = {"Authorization": f"Bearer {TOKEN}"}
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
)


@pytest.fixture
def service_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that the service logs, and nothing of the client's end."""
    caplog.set_level(logging.DEBUG)
    for name in ("websockets", "websockets.client"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return caplog


async def test_token_in_header_query_ticket_or_subprotocol_is_accepted_and_never_logged(
    service_log: pytest.LogCaptureFixture,
) -> None:
    async with serving() as running:
        ticket = running.tickets.give(auth_gate.TicketGrant(TOKEN), "everybody")
        ways: list[dict[str, Any]] = [
            {"additional_headers": BEARER},
            {"additional_headers": {"X-API-Key": TOKEN}},
            {"query": f"?api_key={TOKEN}"},
            {"query": f"?ticket={ticket}"},
            {"subprotocols": [f"bearer.{TOKEN}", "echo"]},
            {"subprotocols": ["echo", f"openai-insecure-api-key.{TOKEN}"]},
        ]
        for way in ways:
            async with running.connect(**way) as live:
                await live.send("hello")
                assert await live.recv() == "hello"
                assert live.subprotocol == ("echo" if "subprotocols" in way else None)
        assert running.refused == []
    for line in service_log.messages:
        assert TOKEN not in line
        assert ticket not in line


async def test_missing_wrong_or_doubled_token_or_used_ticket_is_refused_and_never_logged(
    service_log: pytest.LogCaptureFixture,
) -> None:
    async with serving() as running:
        ticket = running.tickets.give(auth_gate.TicketGrant(TOKEN), "everybody")
        async with running.connect(f"?ticket={ticket}"):
            pass
        wrong: list[dict[str, Any]] = [
            {},
            {"query": f"?ticket={ticket}"},
            {"query": "?api_key=wrong"},
            {"query": f"?api_key={TOKEN}&api_key={TOKEN}"},
            {"additional_headers": {"Authorization": "Bearer wrong", "X-API-Key": TOKEN}},
        ]
        for way in wrong:
            async with running.connect(**way) as live:
                said = await live.recv()
                assert (await closed(live))[0] == 4001
                assert said == running.refused[-1]
        invalid = "token_invalid"
        assert running.refused == ["token_missing", "ticket_invalid", invalid, invalid, invalid]
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{running.port}/silent?api_key={TOKEN}x"):
                pass
        assert refused.value.response.status_code == 403
    for line in service_log.messages:
        assert TOKEN not in line
        assert ticket not in line


async def test_ephemeral_key_opens_only_its_address_without_scopes() -> None:
    tickets = OneTimeCodes[auth_gate.TicketGrant]()
    let_in: list[Any] = []
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        let_in.append(scope["state"])

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    access = AccessControl(authenticator=Authenticator(TOKEN))
    gate = auth_gate.AuthGate(app, access, auth_gate.PortRules(tickets=tickets))
    for path, in_address in itertools.product(("/wire", "/other"), (False, True)):
        word = tickets.give(auth_gate.TicketGrant(TOKEN, "/wire", '{"a": 1}'), "anna")
        headers = [(b"host", b"localhost")]
        if not in_address:
            headers.append(
                (b"authorization", f"Bearer {auth_gate.EPHEMERAL_KEY_PREFIX}{word}".encode())
            )
        scope = {"type": "websocket", "path": path, "headers": headers}
        scope |= {"query_string": f"ticket={word}".encode() if in_address else b""}
        await gate(scope, receive, send)
    assert [state[auth_gate.AGREED_SESSION_KEY] for state in let_in] == ['{"a": 1}'] * 2
    assert [state["identity"].scopes for state in let_in] == [frozenset()] * 2
    assert [message["reason"] for message in said] == ["ticket_invalid"] * 2


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?" + "a=1&" * 101, {}, 400, "request_invalid"),
        ("", {"X-Anything": "x" * 1024}, 431, "header_too_large"),
    ],
)
async def test_handshake_over_a_limit_is_refused_before_authentication(
    query: str, headers: dict[str, str], status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as running:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with running.connect(query, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["code"] == code
        async with running.connect("?" + "a=1&" * 99, additional_headers=BEARER) as live:
            await live.send("hello")
            assert await live.recv() == "hello"
    assert "Traceback" not in caplog.text


async def test_messages_and_cancels_have_separate_rate_limits() -> None:
    async with serving(messages_per_minute=5, cancels_per_minute=2) as running:
        for sent in (["x"] * 6, ["cancel"] * 3):
            async with running.connect(additional_headers=BEARER) as live:
                for message in sent:
                    await live.send(message)
                answers = [await live.recv() for _ in sent]
                assert answers[:-1] == sent[:-1]
                assert json.loads(answers[-1])["code"] == "rate_limited"
                assert 1 <= json.loads(answers[-1])["after"] <= 60
                assert (await closed(live))[0] == 4008


async def test_too_large_message_closes_1009_and_invalid_text_1007() -> None:
    async with serving() as running:
        async with running.connect(additional_headers=BEARER) as live:
            with contextlib.suppress(websockets.ConnectionClosed):
                await live.send(b"x" * (10 * MB))
            assert await told_to_close(live) == 1009
        async with running.connect(additional_headers=BEARER) as live:
            await live.send(b"\xff\xfe", text=True)
            assert (await closed(live))[0] == 1007
        assert [await running.ended() for _ in range(2)] == ["gone", "gone"]


async def test_websocket_client_that_reads_nothing_or_answers_no_ping_is_disconnected() -> None:
    async with (
        serving(ping_s=60, unread_s=0.2) as running,
        running.connect(additional_headers=BEARER, max_queue=1) as live,
    ):
        await live.send("flood")
        assert await running.ended() == "gone"
        live.transport.abort()
    async with serving(ping_s=0.2) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HANDSHAKE)
        assert await running.ended() == "gone", "who answers no ping is not there"
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.close()


async def test_websocket_without_a_pong_stays_open_only_while_its_client_sends() -> None:
    """As one whose answer lies behind sound that is still on its way."""
    async with serving(ping_s=PATIENCE_S) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        (protocol,), told = running.protocols, []
        protocol.send_keepalive_ping()
        for _ in range(7):
            writer.write(b"\x81\x82\0\0\0\0hi")
            while told[-1:] != [b"hi"]:
                _, length = await reader.readexactly(2)
                told.append(await reader.readexactly(length))
            told.append(b"")
            passes_without_pong(protocol)
        pings = [one for one in told if len(one) == 4]
        assert len(pings) == 1, "the answer is still waited for"
        assert not protocol.close_sent
        passes_without_pong(protocol)
        assert await running.ended() == "gone", "and who sends nothing any more is not there"
        writer.close()


def passes_without_pong(protocol: Any) -> None:
    """The time in which a ping has to be answered is over."""
    protocol.pong_timer.cancel()
    protocol.keepalive_timeout()


@dataclass
class Unread:
    """An application that takes messages once it is told to."""

    work: asyncio.Event
    taken: list[bytes]

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await self.work.wait()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                self.taken.append(await websocket.receive_bytes())


@contextlib.asynccontextmanager
async def unread(**limits: Any) -> AsyncIterator[tuple[Unread, list[Any], str]]:
    """The application, uvicorn's protocols, and the address."""
    application, protocols = Unread(asyncio.Event(), []), list[Any]()
    kind = websocket_protocol(**limits)

    def connected(**options: Any) -> Any:
        protocols.append(kind(**options))
        return protocols[-1]

    app = Starlette(routes=[WebSocketRoute("/", application.serve)])
    async with served(
        app, http=http_protocol(5.0), ws=connected, ws_per_message_deflate=False
    ) as listener:
        yield application, protocols, f"ws://127.0.0.1:{listener.getsockname()[1]}"


async def test_ping_behind_messages_that_no_application_takes_is_answered() -> None:
    async with unread() as (application, protocols, address), connect(address) as live:
        sent = [bytes([number]) * 100_000 for number in range(30)]
        for one in sent:
            await live.send(one)
        async with asyncio.timeout(PATIENCE_S):
            await (await live.ping())
        assert application.taken == []
        application.work.set()
        await until(lambda: len(application.taken) == len(sent), "all are taken")
        assert application.taken == sent
        await live.close()
        await until(lambda: not protocols[0].all_ahead_bytes, "nothing is counted any more")


async def test_messages_that_no_application_takes_are_read_up_to_a_limit_and_then_further() -> None:
    messages = [bytes([number % 256]) * 60_000 for number in range(300)]
    async with (
        unread(read_ahead_bytes=MB) as (application, protocols, address),
        connect(address) as live,
    ):
        sending = asyncio.ensure_future(asyncio.wait_for(sent(live, messages), PATIENCE_S))
        await until(lambda: protocols and protocols[0].is_read_paused(), "it is full")
        assert 17 <= protocols[0].queue.qsize() <= 18
        application.work.set()
        await sending
        await until(lambda: len(application.taken) == len(messages), "all are taken")
        assert application.taken == messages


async def test_address_with_more_than_its_applications_take_leaves_others_what_is_read_ahead() -> (
    None
):
    async with contextlib.AsyncExitStack() as opened:
        application, protocols, address = await opened.enter_async_context(
            unread(all_read_ahead_bytes=2 * MB)
        )

        async def client(peer: str) -> tuple[websockets.ClientConnection, Any]:
            """A connection through a trusted proxy, and its protocol."""
            heads = {"X-Forwarded-For": peer}
            live = await opened.enter_async_context(connect(address, additional_headers=heads))
            return live, protocols[-1]

        for number in range(3):
            greedy, protocol = await client("192.0.2.1")
            sending = asyncio.ensure_future(sent(greedy, [bytes(60_000)] * 100))
            opened.callback(sending.cancel)
            await until(protocol.is_read_paused, f"{number} is full")
        assert sum(one.queue.qsize() for one in protocols) * 60_000 < 1.75 * MB
        other, _ = await client("192.0.2.2")
        await sent(other, [bytes(60_000)] * 5)
        async with asyncio.timeout(PATIENCE_S):
            await (await other.ping())
        assert protocols[-1].address_ahead_bytes["192.0.2.2"] > 5 * 60_000
        application.work.set()


async def test_messages_that_are_never_taken_count_no_more_once_their_connection_is_over() -> None:
    async with unread() as (application, protocols, address):
        async with connect(address) as live:
            await live.send(bytes(1000))
            await until(lambda: protocols and protocols[0].all_ahead_bytes > 1000, "one waits")
        application.work.set()
        await until(lambda: not protocols[0].all_ahead_bytes, "nothing is counted any more")
        assert not protocols[0].address_ahead_bytes


async def sent(live: websockets.ClientConnection, messages: list[bytes]) -> None:
    for one in messages:
        await live.send(one)


async def test_revoked_token_closes_its_connection() -> None:
    papers = Papers()
    async with serving(papers) as running, running.connect() as live:
        await live.send("hello")
        assert await live.recv() == "hello"
        running.streams.check_credentials()
        papers.revoked = True
        running.streams.check_credentials()
        assert json.loads(await live.recv())["code"] == "token_invalid"
        assert (await closed(live))[0] == 1008


async def test_shutdown_lets_a_working_connection_send_its_last_message_and_ends_an_idle_one() -> (
    None
):
    async with serving(shutdown_s=int(PATIENCE_S)) as running:
        live = await running.connect(additional_headers=BEARER)
        await live.send("wait")
        idle = await running.connect(additional_headers=BEARER)
        working, unused = running.protocols
        shutdown = working.shutdown

        async def last_words() -> None:
            await live.send("end")
            running.wire.work.set()
            await live.wait_closed()
            unused.close_for_restart()  # its grace is over

        def shutdown_and_last_words() -> None:
            shutdown()
            saying.append(asyncio.ensure_future(last_words()))

        working.shutdown = shutdown_and_last_words
        saying: list[asyncio.Task[None]] = []
    await asyncio.gather(*saying)
    assert await live.recv() == "wait"
    for one, code in ((live, 1000), (idle, 1012)):
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await one.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 5))
def test_sliding_window_limit_takes_messages_up_to_its_limit_and_refuses_only_more(
    steps: list[int], most: int
) -> None:
    window, now, taken = SlidingWindowLimit(RateLimit(most, 10.0)), 0.0, []
    for step in steps:
        now += step
        wait_s = window.take(now)
        assert 0 <= wait_s <= 10.0
        if wait_s == 0:
            taken.append(now)
            assert sum(now - then < 10.0 for then in taken) <= most
        else:
            assert sum(now - then < 10.0 for then in taken) == most
    assert all(SlidingWindowLimit(RateLimit(0, 1.0)).take(0.0) == 0 for _ in range(3))


def test_each_kind_of_error_closes_a_websocket_with_its_code() -> None:
    assert close_code(errors.MessageInvalid()) == 1007
    assert close_code(MessageTooBig()) == 1009
    assert close_code(errors.InboundFull()) == close_code(errors.LiveFull()) == 1013
    assert close_code(errors.ShuttingDown()) == 1001
    assert close_code(errors.SessionIdle()) == close_code(errors.TokenInvalid()) == 1008
    assert close_code(errors.SidecarError()) == 1011


def test_close_code_of_a_protocol_replaces_the_common_one() -> None:
    assert close_code(errors.SessionIdle(), {"session_idle": 4000}) == 4000


def test_malformed_handshake_query_yields_no_token() -> None:
    for query in (b"", b"&&&", b"api_key", b"%ff%fe=1", b"api_key=", b"ticket=&ticket="):
        scope = {"type": "websocket", "headers": [], "query_string": query, "subprotocols": []}
        assert auth_gate.authorizations(scope) == []
