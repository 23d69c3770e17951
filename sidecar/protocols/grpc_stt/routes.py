"""gRPC calls CreateSession and StreamingRecognize."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from sidecar import errors
from sidecar.auth.authentication import Entrance, wait_for_a_wrong_one
from sidecar.auth.identity import Identity, Proof
from sidecar.live.sessions.session import Session
from sidecar.protocols.grpc_stt import errors as grpc_stt_errors
from sidecar.protocols.grpc_stt import interceptor, messages
from sidecar.protocols.grpc_stt.errors import end
from sidecar.protocols.grpc_stt.session import Created, Stream, Times, Waiting, read
from sidecar.protocols.grpc_stt.stt_pb2 import (
    AudioChunk,
    SessionRequest,
    SessionResponse,
    STTResult,
)
from sidecar.service.facade import Service

NAME = "stt.STTBackend"


class Backend:
    """Answers the calls. ``stopping`` once the service ends."""

    def __init__(self, service: Service, entrance: Entrance, *, encrypted: bool) -> None:
        self._service = service
        self._entrance = entrance
        self._encrypted = encrypted
        self._waiting = Waiting(service.settings.grpc_unused, service.live.end)
        self._usual = messages.Usual.of(service.settings)
        self.stopping = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """For a server."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "CreateSession": grpc.unary_unary_rpc_method_handler(
                    self.create, _reader(SessionRequest), SessionResponse.SerializeToString
                ),
                "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                    self.recognize, _reader(AudioChunk), STTResult.SerializeToString
                ),
            },
        )

    def close(self) -> None:
        """Nobody comes any more for what was created."""
        self._waiting.close()

    async def create(self, request: SessionRequest | None, context: Any) -> SessionResponse | None:
        """CreateSession."""
        try:
            if request is None:
                raise grpc_stt_errors.Refused(
                    grpc_stt_errors.OPTION_WRONG, "the message cannot be read"
                )
            return await self._create(request, context)
        except Exception as wrong:
            await end(context, wrong, fault=grpc_stt_errors.CREATE_FAULT)
        return None

    async def recognize(self, chunks: object, context: Any) -> None:
        """StreamingRecognize."""
        times = Times()
        try:
            await self._recognize(context, times)
        except Exception as wrong:
            await end(context, wrong, times.metadata())
        context.set_trailing_metadata(times.metadata())

    async def _create(self, request: SessionRequest, context: Any) -> SessionResponse:
        if self.stopping:
            raise errors.ShuttingDown()
        live = self._service.live
        asked = messages.wishes_of(request, live.spec, self._usual)
        caller = await self._caller(context, asked.key)
        session = live.open(caller, asked.options, asked.session_id, wire="grpc")
        # A stream may come without a word of who it is: clients send a key once, and this.
        is_known = caller.proof is not Proof.PLACE
        token = secrets.token_hex(16) if asked.with_token or is_known else ""
        self._waiting.add(Created(session, caller, token, asked.with_token))
        await _greet(context, session)
        return asked.answer(token)

    async def _recognize(self, context: Any, times: Times) -> None:
        number = interceptor.first(_metadata(context), "session-id", "session_id")
        caller = await self._caller_if_said(context)
        owner = caller.owner if caller else None
        if number and not self._waiting.of(number, owner):
            raise grpc_stt_errors.Refused(grpc_stt_errors.UNKNOWN_SESSION)
        try:
            async with asyncio.timeout(self._service.settings.grpc_unused):
                first = await read(context)
        except TimeoutError:
            raise grpc_stt_errors.Refused(grpc_stt_errors.IDLE) from None
        number = number or (first.session_id if first else "")
        created = await self._claimed(context, number, caller, first.session_token if first else "")
        session = created.session
        try:
            if self.stopping:
                raise errors.ShuttingDown()
            session.touch()
            await _greet(context, session)
            revoked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._entrance.visits.lasting(created.caller, _failing(revoked)):
                await Stream(context, created, times, lambda: self.stopping).run(first, revoked)
        finally:
            self._service.live.end(session)

    async def _claimed(
        self, context: Any, number: str, caller: Identity | None, token: str
    ) -> Created:
        """The session that a stream is for, which is its own from now on.

        Raises:
            codes.Refused: there is none with that id, or the token is another.
            errors.RateLimited: one who guesses tokens.
        """
        found = self._waiting.of(number, caller.owner if caller else None)
        if not found:
            raise grpc_stt_errors.Refused(grpc_stt_errors.UNKNOWN_SESSION)
        if caller is not None:
            created = found[0]
            self._waiting.take(created)
            return created if created.asked else dataclasses.replace(created, token="")
        for created in found:
            if created.token and created.admits(token):
                self._waiting.take(created)
                return created
        if self._entrance.turnstile is not None:
            await wait_for_a_wrong_one(self._entrance.turnstile, self._approach(context))
        raise grpc_stt_errors.Refused(grpc_stt_errors.WRONG_TOKEN)

    async def _caller(self, context: Any, key: str = "") -> Identity:
        """Who calls, by the metadata or by a key among the attributes."""
        approach = self._approach(context)
        if key and not approach.authorizations:
            approach = dataclasses.replace(approach, authorizations=[f"Bearer {key}"])
        return await self._entrance.identify(approach)

    async def _caller_if_said(self, context: Any) -> Identity | None:
        try:
            return await self._caller(context)
        except errors.TokenMissing:
            return None

    def _approach(self, context: Any) -> Any:
        return interceptor.approach_of(
            _metadata(context), context.peer(), encrypted=self._encrypted
        )


def _metadata(context: Any) -> interceptor.Metadata:
    found: interceptor.Metadata = context.invocation_metadata() or ()
    return found


async def _greet(context: Any, session: Session) -> None:
    """What a client is to know of its session, in the initial metadata: nothing, mostly."""
    if session.greeting:
        said = [(name, json.dumps(value)) for name, value in session.greeting.items()]
        await context.send_initial_metadata(said)


def _reader(kind: Any) -> Callable[[bytes], Any]:
    """Reads messages of a kind; None for what is none, which is the client's fault, not ours."""

    def from_bytes(raw: bytes) -> Any:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return None

    return from_bytes


def _failing(revoked: asyncio.Future[None]) -> Callable[[], None]:
    def sent_away() -> None:
        if not revoked.done():
            revoked.set_exception(errors.TokenInvalid())

    return sent_away
