"""The gRPC listener in the tests' own process, and a client for it in the same event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
from grpc_client import CREATE, RECOGNIZE, Ended
from service_process import PATIENCE_S

from sidecar.auth.authentication import AccessControl, Authenticator
from sidecar.auth.identity import (
    AuthMethod,
    Identity,
    RequestOrigin,
    SignedCredential,
    bearer_token,
)
from sidecar.auth.rate_limits import RateLimiter, RevocableStreams
from sidecar.plugins import load_settings
from sidecar.plugins.grpc_stt.server import GrpcServer
from sidecar.plugins.grpc_stt.stt_pb2 import (
    AudioChunk,
    SessionRequest,
    SessionResponse,
    STTResult,
)
from sidecar.server.app import create_service


class Named:
    """Everybody is who the token says."""

    local_only = False

    def __init__(self) -> None:
        self.gone: str | None = None

    def identify(self, origin: RequestOrigin) -> Identity:
        return Identity(
            bearer_token(origin), AuthMethod.JWT, credential=SignedCredential("id", "key")
        )

    def refusal(self, credential: SignedCredential) -> str | None:
        return self.gone


def access_control(
    authenticator: Authenticator | None = None, per_minute: int | None = None
) -> AccessControl:
    """Who may come in: whoever is on this machine, or whom an authenticator knows."""
    authenticator = authenticator or Authenticator()
    return AccessControl(
        authenticator=authenticator,
        rate_limiter=RateLimiter(per_minute) if per_minute else None,
        streams=RevocableStreams(authenticator.refusal),
    )


def reserved(port: int = 0) -> socket.socket:
    """A socket that has a port and does not listen."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def create(channel: Any) -> Any:
    """CreateSession on a channel."""
    return channel.unary_unary(CREATE, SessionRequest.SerializeToString, SessionResponse.FromString)


def recognize(channel: Any) -> Any:
    """StreamingRecognize on a channel."""
    return channel.stream_stream(RECOGNIZE, AudioChunk.SerializeToString, STTResult.FromString)


class Caller:
    """Calls on a connection of its own, and how they end; ``metadata`` goes with each."""

    def __init__(self, port: int, *options: tuple[str, int], **metadata: str) -> None:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*own, *options])
        self.metadata = [(name.replace("_", "-"), text) for name, text in metadata.items()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def create(self, session_id: str = "one", **fields: Any) -> Ended:
        """CreateSession to its end."""
        request = SessionRequest(session_id=session_id, **fields)
        call = create(self.channel)(request, metadata=self.metadata, timeout=PATIENCE_S)
        return await _ended(call, [])

    def open(
        self, chunks: AsyncIterator[AudioChunk] | Iterable[AudioChunk], session_id: str = ""
    ) -> Any:
        """StreamingRecognize; a call that goes on."""
        given = [*self.metadata, *([("session-id", session_id)] if session_id else [])]
        return recognize(self.channel)(chunks, metadata=given, timeout=PATIENCE_S)

    async def stream(self, *chunks: AudioChunk, session_id: str = "") -> Ended:
        """StreamingRecognize to its end."""
        return await ended(self.open(chunks, session_id))


class Inside:
    """A service in this process, and ways to call it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.service = create_service(load_settings(engine="scripted", data_dir=folder, **settings))
        self.service.live.bounds = replace(self.service.live.bounds, late_s=PATIENCE_S)
        self.listeners: list[GrpcServer] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._open.push_async_callback(self.service.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def listen(
        self,
        by: AccessControl | None = None,
        sock: socket.socket | None = None,
        *more: Any,
        **limits: float,
    ) -> int:
        """Begin to listen with this access control. Return the port."""
        self.listeners.append(
            GrpcServer(self.service, by or access_control(), sock or reserved(), *more, **limits)
        )
        self._open.push_async_callback(self.listeners[-1].close)
        return int((await self.listeners[-1].start())["grpc_port"])

    async def caller(self, by: AccessControl | None = None, **metadata: str) -> Caller:
        """A client of a listener of its own."""
        return await self._open.enter_async_context(Caller(await self.listen(by), **metadata))


async def ended(call: Any) -> Ended:
    """Read a call to its end."""
    results: list[STTResult] = []
    try:
        async for result in call:
            results.append(result)
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    return await _ended(call, results)


async def _ended(call: Any, results: list[STTResult]) -> Ended:
    status, details = await call.code(), await call.details()
    trailing = dict(tuple(await call.trailing_metadata() or ()))
    return Ended(results, status, details or "", trailing)
