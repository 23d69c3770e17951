"""Servicer of the gRPC calls CreateSession and StreamingRecognize."""

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
from sidecar.plugins.grpc_stt import errors as codes
from sidecar.plugins.grpc_stt import session as sessions
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.plugins.grpc_stt.session_options import API_KEY_NAMES, session_options
from sidecar.plugins.grpc_stt.statuses import CREATE_FAULT, abort_call
from sidecar.service.facade import Service

NAME = "stt.STTBackend"
Metadata = Sequence[tuple[str, str | bytes]]


class GrpcServicer:
    """Servicer of the calls. ``stopping``: True once the service shuts down; ``unused_s``: as
    `session.UNUSED_S`."""

    def __init__(
        self, service: Service, access: AccessControl, *, encrypted: bool, unused_s: float
    ) -> None:
        self._service, self._access, self._encrypted = service, access, encrypted
        self._pending = sessions.GrpcPendingSessions(service.live.end, unused_s)
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
        self._pending.close()

    async def create(
        self, request: stt_pb2.SessionRequest | None, context: Any
    ) -> stt_pb2.SessionResponse | None:
        """Handle CreateSession."""
        try:
            if request is None:
                raise codes.GrpcOptionInvalid("the message cannot be read")
            return await self._create(request, context)
        except Exception as error:
            await abort_call(context, error, fault_status=CREATE_FAULT)
        return None

    async def recognize(self, chunks: object, context: Any) -> None:
        """Handle StreamingRecognize."""
        timings = sessions.GrpcTimings()
        try:
            await self._recognize(context, timings)
        except Exception as error:
            await abort_call(context, error, timings.metadata())
        context.set_trailing_metadata(timings.metadata())

    async def _create(
        self, request: stt_pb2.SessionRequest, context: Any
    ) -> stt_pb2.SessionResponse:
        if self.stopping:
            raise errors.ShuttingDown()
        live = self._service.live
        options = session_options(request, live.engine, self._service.settings)
        identity = await self._identify(context, options.key)
        session = live.open(identity, options.options, request.session_id, wire="grpc")
        # A stream may come without credentials: some clients send a key once, then only this token.
        is_known = identity.proof is not AuthMethod.PLACE
        token = secrets.token_hex(16) if request.require_token or is_known else ""
        self._pending.add(sessions.GrpcSession(session, identity, token, request.require_token))
        return options.answer(token)

    async def _recognize(self, context: Any, timings: sessions.GrpcTimings) -> None:
        metadata = dict(call_metadata(context))
        session_id = str(metadata.get("session-id") or metadata.get("session_id") or "")
        identity = None
        with suppress(errors.TokenMissing):
            identity = await self._identify(context)
        owner = identity.owner if identity else None
        if session_id and not self._pending.of(session_id, owner):
            raise codes.GrpcSessionUnknown()
        try:
            async with asyncio.timeout(self._pending.unused_s):
                first_chunk = await sessions.read_chunk(context)
        except TimeoutError:
            raise errors.SessionIdle() from None
        session_id = session_id or (first_chunk.session_id if first_chunk else "")
        grpc_session = await self._claim(
            context, session_id, identity, first_chunk.session_token if first_chunk else ""
        )
        session = grpc_session.session
        try:
            if self.stopping:
                raise errors.ShuttingDown()
            session.touch()
            # grpc.aio would send the initial metadata with the first result. If that write is
            # cancelled, gRPC sends it again with the status, which fails, and the client never
            # gets a status.
            await context.send_initial_metadata(())
            conclude = partial(self._service.live.conclude, session, errors.TokenInvalid())
            with self._access.streams.lasting(grpc_session.identity, conclude):
                await sessions.GrpcStream(context, grpc_session, timings).run(first_chunk)
        finally:
            self._service.live.leave(session, for_good=True)

    async def _claim(
        self, context: Any, session_id: str, identity: Identity | None, token: str
    ) -> sessions.GrpcSession:
        """Return the session that a stream claims; it is no longer pending.

        Raises:
            errors.SessionNotFound, errors.TokenInvalid: there is no session with that id, or the
                token is wrong.
            errors.RateLimited: the client has sent too many wrong tokens.
        """
        pending = self._pending.of(session_id, identity.owner if identity else None)
        if not pending:
            raise codes.GrpcSessionUnknown()
        if identity is not None:
            grpc_session = pending[0]
            self._pending.take(grpc_session)
            return (
                grpc_session
                if grpc_session.token_requested
                else dataclasses.replace(grpc_session, token="")
            )
        for grpc_session in pending:
            if grpc_session.token and grpc_session.admits(token):
                self._pending.take(grpc_session)
                return grpc_session
        await self._access.delay_wrong_token(self._origin(context))
        raise codes.GrpcSessionTokenInvalid()

    async def _identify(self, context: Any, key: str = "") -> Identity:
        """Return the identity of the caller, from the metadata or from a key among the
        attributes."""
        origin = self._origin(context)
        if key and not origin.authorizations:
            origin = dataclasses.replace(origin, authorizations=[f"Bearer {key}"])
        return await self._access.identify(origin)

    def _origin(self, context: Any) -> RequestOrigin:
        return request_origin(call_metadata(context), context.peer(), encrypted=self._encrypted)


def call_metadata(context: Any) -> Metadata:
    """Return the metadata of a call."""
    metadata: Metadata = context.invocation_metadata() or ()
    return metadata


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
        or [f"Bearer {value}" for key, value in texts if key in API_KEY_NAMES],
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
