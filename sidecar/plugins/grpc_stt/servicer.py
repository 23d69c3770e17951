"""Servicer of the gRPC calls CreateSession and StreamingRecognize; sessions without a stream."""

import asyncio
import dataclasses
import secrets
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from sidecar import errors
from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import PROXY_HEADER_PREFIXES, AuthMethod, Identity, RequestOrigin
from sidecar.limit_overrides import limit
from sidecar.live.sessions.session import Session
from sidecar.plugins.grpc_stt import errors as codes
from sidecar.plugins.grpc_stt import session as sessions
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.plugins.grpc_stt.statuses import CREATE_FAULT, abort_call
from sidecar.service.facade import Service

NAME = "stt.STTBackend"


UNUSED_S = limit("grpc_unused", 30.0)
"""Seconds for which a created session waits for its stream."""


class GrpcPendingSessions:
    """Sessions that wait for their stream; ``drop`` is called with one that waited too long."""

    def __init__(self, drop: Callable[[Session], None]) -> None:
        self.unused_s = UNUSED_S
        self._drop = drop
        self._waiting: dict[tuple[str, str], sessions.GrpcSession] = {}

    def add(self, created: sessions.GrpcSession) -> None:
        """Add a session and start its timeout."""
        self._waiting[created.caller.owner, created.session.id] = created
        later = asyncio.get_running_loop().call_later
        created.over = later(self.unused_s, self._expire, created)

    def of(self, number: str, owner: str | None = None) -> list[sessions.GrpcSession]:
        """Return the pending sessions with an id: of one owner, or of all."""
        if owner is not None:
            found = self._waiting.get((owner, number))
            return [found] if found else []
        return [one for (_, each), one in self._waiting.items() if each == number]

    def take(self, created: sessions.GrpcSession) -> bool:
        """Remove a session; return False if it was not pending."""
        if created.over is not None:
            created.over.cancel()
        return self._waiting.pop((created.caller.owner, created.session.id), None) is created

    def close(self) -> None:
        """Drop all pending sessions."""
        for created in list(self._waiting.values()):
            self._expire(created)

    def _expire(self, created: sessions.GrpcSession) -> None:
        if self.take(created):
            self._drop(created.session)


class GrpcServicer:
    """Servicer of the calls. ``stopping``: True once the service shuts down."""

    def __init__(self, service: Service, entrance: AccessControl, *, encrypted: bool) -> None:
        self._service, self._entrance, self._encrypted = service, entrance, encrypted
        self._waiting = GrpcPendingSessions(service.live.end)
        self.stopping = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers of the calls, for a server."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "CreateSession": grpc.unary_unary_rpc_method_handler(
                    self.create,
                    _reader(stt_pb2.SessionRequest),
                    stt_pb2.SessionResponse.SerializeToString,
                ),
                "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                    self.recognize, _reader(stt_pb2.AudioChunk), stt_pb2.STTResult.SerializeToString
                ),
            },
        )

    def close(self) -> None:
        """Drop sessions that no client has started to use."""
        self._waiting.close()

    async def create(
        self, request: stt_pb2.SessionRequest | None, context: Any
    ) -> stt_pb2.SessionResponse | None:
        """Handle CreateSession."""
        try:
            if request is None:
                raise codes.GrpcOptionInvalid("the message cannot be read")
            return await self._create(request, context)
        except Exception as wrong:
            await abort_call(context, wrong, fault=CREATE_FAULT)
        return None

    async def recognize(self, chunks: object, context: Any) -> None:
        """Handle StreamingRecognize."""
        times = sessions.GrpcTimings()
        try:
            await self._recognize(context, times)
        except Exception as wrong:
            await abort_call(context, wrong, times.metadata())
        context.set_trailing_metadata(times.metadata())

    async def _create(
        self, request: stt_pb2.SessionRequest, context: Any
    ) -> stt_pb2.SessionResponse:
        if self.stopping:
            raise errors.ShuttingDown()
        live = self._service.live
        asked = sessions.session_options(request, live.engine, self._service.settings)
        caller = await self._caller(context, asked.key)
        session = live.open(caller, asked.options, request.session_id, wire="grpc")
        # A stream may come without credentials: some clients send a key once, then only this token.
        is_known = caller.proof is not AuthMethod.PLACE
        token = secrets.token_hex(16) if request.require_token or is_known else ""
        self._waiting.add(sessions.GrpcSession(session, caller, token, request.require_token))
        return asked.answer(token)

    async def _recognize(self, context: Any, times: sessions.GrpcTimings) -> None:
        given = dict(call_metadata(context))
        number = str(given.get("session-id") or given.get("session_id") or "")
        caller = None
        with suppress(errors.TokenMissing):
            caller = await self._caller(context)
        owner = caller.owner if caller else None
        if number and not self._waiting.of(number, owner):
            raise codes.GrpcSessionUnknown()
        try:
            async with asyncio.timeout(self._waiting.unused_s):
                first = await sessions.read_chunk(context)
        except TimeoutError:
            raise errors.SessionIdle() from None
        number = number or (first.session_id if first else "")
        created = await self._claimed(context, number, caller, first.session_token if first else "")
        session = created.session
        try:
            if self.stopping:
                raise errors.ShuttingDown()
            session.touch()
            # grpc.aio would send the initial metadata with the first result. If that write is
            # cancelled, gRPC sends it again with the status, which fails, and the client never
            # gets a status.
            await context.send_initial_metadata(())
            revoked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            sent_away = partial(revoked.set_exception, errors.TokenInvalid())
            with self._entrance.visits.lasting(created.caller, sent_away):
                await sessions.GrpcStream(context, created, times, lambda: self.stopping).run(
                    first, revoked
                )
        finally:
            self._service.live.release(session)

    async def _claimed(
        self, context: Any, number: str, caller: Identity | None, token: str
    ) -> sessions.GrpcSession:
        """Return the session that a stream claims; it is no longer pending.

        Raises:
            errors.SessionNotFound, errors.TokenInvalid: there is no session with that id, or the
                token is wrong.
            errors.RateLimited: the client has sent too many wrong tokens.
        """
        found = self._waiting.of(number, caller.owner if caller else None)
        if not found:
            raise codes.GrpcSessionUnknown()
        if caller is not None:
            created = found[0]
            self._waiting.take(created)
            return created if created.asked else dataclasses.replace(created, token="")
        for created in found:
            if created.token and created.admits(token):
                self._waiting.take(created)
                return created
        await self._entrance.delay_wrong_token(self._approach(context))
        raise codes.GrpcSessionTokenInvalid()

    async def _caller(self, context: Any, key: str = "") -> Identity:
        """Return the identity of the caller, from the metadata or from a key among the
        attributes."""
        approach = self._approach(context)
        if key and not approach.authorizations:
            approach = dataclasses.replace(approach, authorizations=[f"Bearer {key}"])
        return await self._entrance.identify(approach)

    def _approach(self, context: Any) -> RequestOrigin:
        return request_origin(call_metadata(context), context.peer(), encrypted=self._encrypted)


Metadata = Sequence[tuple[str, str | bytes]]


def call_metadata(context: Any) -> Metadata:
    """Return the metadata of a call."""
    found: Metadata = context.invocation_metadata() or ()
    return found


def request_origin(metadata: Metadata, peer: str, *, encrypted: bool) -> RequestOrigin:
    """Return the origin of a call.

    gRPC does not report the host name of a request. A web page cannot call: it would need HTTP/2
    without TLS, or a name in the service's certificate. A page that tries sends an `origin`.
    """
    texts = [(key, value) for key, value in metadata if isinstance(value, str)]
    return RequestOrigin(
        hosts=["localhost"],
        origins=[value for key, value in texts if key == "origin"],
        authorizations=[value for key, value in texts if key == "authorization"]
        or [f"Bearer {value}" for key, value in texts if key in sessions.API_KEY_NAMES],
        fetch_site=next((value for key, value in texts if key == "sec-fetch-site"), ""),
        scheme="https" if encrypted else "http",
        peer=peer_address(peer),
        forwarded=any(key.startswith(PROXY_HEADER_PREFIXES) for key, _ in texts),
    )


def peer_address(peer: str) -> str | None:
    """Return the IP address of gRPC's name of a peer, such as 'ipv4:127.0.0.1:50000'; `None` if it
    has none."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    address, _, _ = rest.rpartition(":")
    return address.strip("[]").partition("%")[0] or None


def _reader(kind: Any) -> Callable[[bytes], Any]:
    """Return a parser of messages; it returns `None` for an invalid message, which is the client's
    error, not an internal one."""

    def from_bytes(raw: bytes) -> Any:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return None

    return from_bytes
