"""WebSocket /v1/live: connection, resumption, tickets."""

import asyncio
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.websockets import WebSocket

from sidecar import errors
from sidecar.api import live_messages
from sidecar.api.http import auth_gate, websocket_connections
from sidecar.api.http.error_responses import problem
from sidecar.api.http.openapi import PROBLEMS, Routes
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.api.http.upload import file_name
from sidecar.api.live_messages import OPUS, LiveBeginRequest, LiveChangeRequest, parse_request
from sidecar.audio.codecs import OpusDecoder
from sidecar.auth.authentication import CODE_LIFETIME_S, OneTimeCodes
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.live_events import InputProcessed
from sidecar.interfaces.live_options import (
    AUDIO_BLOCK_SAMPLES,
    LiveOptions,
    SampleEncoding,
    WholeSamples,
)
from sidecar.live.sessions.session import Session
from sidecar.service.facade import Service

LIVE_CLOSE_CODES: Mapping[errors.ErrorKind | str, int] = {
    errors.ErrorKind.UNAUTHORIZED: 4401,
    errors.ErrorKind.FORBIDDEN: 4403,
    errors.ErrorKind.NOT_FOUND: 4404,
    errors.ErrorKind.TIMEOUT: 4408,
    errors.ErrorKind.CONFLICT: 4409,
    errors.ErrorKind.LIMITED: 4429,
}
"""Close codes of this protocol: HTTP statuses plus 4000; all others are `CLOSE_CODES`."""
BEGIN_TIMEOUT_S = 10.0
"""Time for a client to send its first message."""
RECEIVED_INTERVAL_S = 0.5
"""Interval of acknowledgements of received audio."""
CLOSE_TIMEOUT_S = 5.0
"""Time for the client to close after the last event; without a close it may reconnect."""
UNCOUNTED_AUDIO_S = 0.0025
"""Shortest audio of a message that is not counted, or `AUDIO_BLOCK_SAMPLES` if that is shorter."""
SESSION_DONE_CODE = 1000
"""Close code of a client that does not need its session any more."""
PATH = "/v1/live"


async def serve_live_connection(
    service: Service, socket: websocket_connections.WebSocketConnection
) -> None:
    """Serve a connection from its first message to its end.

    Raises:
        WebSocketGone: the client disconnected.
        errors.SidecarError: the error that ended the connection.
    """
    begin = await _read_begin(socket)
    rate = begin.counted_rate
    decoder = None
    if begin.encoding == OPUS:
        decoder = await ThreadLimiter("opus", 1).run(OpusDecoder, begin.channels)
    session = await _session(socket, service, begin)
    taken, done = session.taken, False
    try:
        async with session.connection_lock:  # the previous one has stopped: `began` counts it all
            connection = _LiveConnection(socket, session, begin, rate, decoder)
            await socket.send(connection.began(service))
            await socket.run_until_first_ends(
                socket.read(connection.take),
                connection.tell(),
                connection.acknowledge(),
                _raise_when_moved(taken),
                conclude=partial(service.live.conclude, session),
            )
    except websocket_connections.WebSocketGone as gone:
        done = gone.code == SESSION_DONE_CODE
        raise
    finally:
        if taken.is_set():
            pass  # another connection has the session
        elif done:
            service.live.end(session)
        else:
            service.live.leave(session)


async def _read_begin(socket: websocket_connections.WebSocketConnection) -> LiveBeginRequest:
    try:
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            first = await socket.receive()
    except TimeoutError:
        raise errors.SessionIdle("The connection sent no message after it was opened.") from None
    order = parse_request(first) if isinstance(first, str) else None
    if not isinstance(order, LiveBeginRequest):
        raise errors.MessageInvalid("The first message of a connection has to be 'begin'.")
    return order


async def _session(
    socket: websocket_connections.WebSocketConnection, service: Service, begin: LiveBeginRequest
) -> Session:
    if begin.after is None:
        options = begin.upon(LiveOptions())
        names = begin.names_of_channels
        return service.live.open(
            socket.identity,
            options,
            begin.session,
            wire="live",
            channel_names=names,
            name=file_name(begin.name or ""),
        )
    if begin.session is None:
        raise errors.FieldMissing("'after' requires 'session', the session to resume.")
    return service.live.find(socket.identity, begin.session, begin.channels)


async def _raise_when_moved(taken: asyncio.Event) -> None:
    await taken.wait()
    raise errors.SessionMoved()


class _LiveConnection:
    """Tasks of a connection that has a session."""

    def __init__(
        self,
        socket: websocket_connections.WebSocketConnection,
        session: Session,
        begin: LiveBeginRequest,
        rate: int,
        decoder: OpusDecoder | None,
    ) -> None:
        self._socket, self._session, self._begin = socket, session, begin
        self._rate, self._decoder = rate, decoder
        width = SampleEncoding(begin.encoding).width * begin.channels if decoder is None else 0
        uncounted = min(int(rate * UNCOUNTED_AUDIO_S), AUDIO_BLOCK_SAMPLES)
        self._uncounted_bytes, self._samples = max(1, uncounted * width), WholeSamples(width or 1)
        self._finished = False

    def began(self, service: Service) -> str:
        """Return the first message to the client."""
        return live_messages.message(
            "began",
            session=self._session.id,
            engine=service.live.engine.name,
            grace_s=service.live.grace_s,
            **self._received(),
        )

    async def take(self, message: websocket_connections.Message) -> None:
        """Handle a message of the client. While the client sends faster than its audio is
        processed, its messages are not read.

        If something other than the client ends the session, such as its first pause, its last
        events are still sent. Audio that still arrives then does not close the connection; nor does
        audio that was on its way when the client sent 'finish'.
        """
        if isinstance(message, str) or len(message) < self._uncounted_bytes:
            self._socket.count()  # longer audio has limits of its own
        if self._finished and isinstance(message, bytes):
            return
        try:
            await self._do(message)
        except errors.SessionOver:
            if self._finished:
                raise

    async def _do(self, message: websocket_connections.Message) -> None:
        if isinstance(message, bytes):
            if self._decoder is not None:
                message, encoding = self._decoder.samples(message), SampleEncoding.PCM16
            else:
                message, encoding = self._samples.add(message), SampleEncoding(self._begin.encoding)
            await self._session.send(message, encoding, self._rate)
            return
        order = parse_request(message)
        match order:
            case LiveBeginRequest():
                raise errors.MessageInvalid("This connection has already sent 'begin'.")
            case LiveChangeRequest():
                self._session.change(order.upon(self._session.options))
            case _ if order.type == "commit":
                self._samples.end()
                self._session.commit()
            case _ if order.type == "cancel":
                self._socket.count_cancel()
                self._samples.end()
                self._session.cancel()
            case _:
                self._finished = True
                self._session.finish()

    async def tell(self) -> None:
        """Send all events after those that the client has, to the end of the session."""
        async for numbered in self._session.events(self._begin.after or 0):
            if not isinstance(numbered.event, InputProcessed):
                await self._socket.send(live_messages.event_message(numbered))
        await asyncio.sleep(CLOSE_TIMEOUT_S)

    async def acknowledge(self) -> None:
        """Acknowledge received audio whenever there is more."""
        reported = self._received()
        while True:
            await asyncio.sleep(RECEIVED_INTERVAL_S)
            if not self._session.over and (now := self._received()) != reported:
                reported = now
                await self._socket.send(live_messages.message("received", **now))

    def _received(self) -> dict[str, object]:
        heard_s, recognized_s = self._session.event_log.progress_s
        seconds = self._session.received_s  # a float sum: off by a millionth of a sample
        return {
            "received_samples": round(seconds * self._rate),
            "received_s": round(seconds, 3),
            "received_orders": self._session.received_orders,
            "heard_s": round(heard_s, 3),
            "recognized_s": round(recognized_s, 3),
        }


def ending_of(error: errors.SidecarError) -> websocket_connections.ConnectionEnding:
    """Return how ``error`` ends a connection."""
    code = websocket_connections.close_code(error, LIVE_CLOSE_CODES)
    return websocket_connections.ConnectionEnding(
        code, error.code, live_messages.error_message(error)
    )


DIALECT = websocket_connections.WebSocketDialect(("vibevoice-live",), ending_of, refusal=problem)
"""The subprotocol is for clients that offer one together with their key."""


def build_router(service: Service) -> APIRouter:
    """Return the route of /v1/live."""
    router = APIRouter()

    @router.websocket(PATH)
    async def live(websocket: WebSocket) -> None:
        await DIALECT.serve(websocket, partial(serve_live_connection, service))

    return router


class TicketAnswer(BaseModel):
    """Ticket for one live connection."""

    ticket: str = Field(description="For the URL of a WebSocket: `?ticket=`. Valid once.")
    expires_in: float = Field(description="Seconds.")


def build_ticket_router(tickets: OneTimeCodes[auth_gate.TicketGrant]) -> APIRouter:
    """Return the route that creates tickets."""
    router = Routes(responses=PROBLEMS)

    @router.post("/v1/live/ticket", status_code=201, response_model=TicketAnswer)
    async def ticket(request: Request) -> Response:
        """Create a ticket for one live connection."""
        grant = auth_gate.TicketGrant(auth_gate.sent_token(request) or auth_gate.ANONYMOUS)
        word = tickets.give(grant, identity_of(request).owner)
        body = {"ticket": word, "expires_in": CODE_LIFETIME_S}
        return json_response(body, 201, NO_STORE)

    return router
