"""Live audio over gRPC: `CreateSession`, then `StreamingRecognize`, on a connection each."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.cli.course import Course
from sidecar.cli.side import Side
from sidecar.cli.talking import Refusal, Tempo, play, together, visiting
from sidecar.cli.visit import DECODE, Visit
from sidecar.errors.extra import needed_for
from sidecar.interfaces.live import LIVE_RATE

CREATE, RECOGNIZE = "/stt.STTBackend/CreateSession", "/stt.STTBackend/StreamingRecognize"
CREATE_S = 30.0
"""How long a session may take to be created."""
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Each client has a connection of its own, as WebSockets have."""


class Stt:
    """Streams of one service; ``credentials``: None where nothing is encrypted."""

    def __init__(self, side: Side, tempo: Tempo, credentials: Any) -> None:
        self._side, self._tempo, self._credentials = side, tempo, credentials
        self._begun = time.monotonic_ns()
        """Of these sessions: names that others have are taken."""

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, from its creation to the end of its stream."""
        import grpc

        visit = Visit(name)
        with visiting(visit, course):
            async with self._channel() as channel:
                try:
                    await self._stream(channel, f"{name}-{self._begun}", course, visit)
                except grpc.aio.AioRpcError as error:
                    raise Refusal(_code_of(error)) from None
        return visit

    def _channel(self) -> Any:
        import grpc

        if self._credentials is None:
            return grpc.aio.insecure_channel(self._side.target, options=OPTIONS)
        return grpc.aio.secure_channel(self._side.target, self._credentials, options=OPTIONS)

    async def _stream(self, channel: Any, name: str, course: Course, visit: Visit) -> None:
        from sidecar.protocols.grpc_stt.stt_pb2 import (
            AudioChunk,
            SessionRequest,
            SessionResponse,
            STTResult,
        )

        token = self._side.token
        metadata = [("authorization", f"Bearer {token}")] if token else []
        create = channel.unary_unary(
            CREATE, SessionRequest.SerializeToString, SessionResponse.FromString
        )
        request = SessionRequest(session_id=name, attributes={"session_id": name})
        session = await create(request, metadata=metadata, timeout=CREATE_S)
        recognize = channel.stream_stream(
            RECOGNIZE, AudioChunk.SerializeToString, STTResult.FromString
        )
        call = recognize(metadata=[*metadata, ("session-id", name)])
        carrier = _Carrier(call, name, session.token)
        try:
            await together(carrier.all_of(course, self._tempo, visit), _read(call, visit))
        finally:
            call.cancel()


class _Carrier:
    """Pauses end utterances, so they are sent."""

    silent = False

    def __init__(self, call: Any, name: str, token: str) -> None:
        self._call, self._name, self._token = call, name, token

    async def all_of(self, course: Course, tempo: Tempo, visit: Visit) -> None:
        """All of it, and that nothing more comes."""
        await play(course, tempo, self, visit)
        await self._call.done_writing()

    async def begin(self, turn: int) -> None:
        """The service hears that by itself."""

    async def send(self, sound: bytes) -> None:
        """To the service."""
        from sidecar.protocols.grpc_stt.stt_pb2 import AudioChunk

        chunk = AudioChunk(
            pcm16=sound,
            sample_rate=LIVE_RATE,
            session_id=self._name,
            session_token=self._token,
        )
        await self._call.write(chunk)

    async def end(self, turn: int) -> None:
        """The service hears that by itself."""


async def _read(call: Any, visit: Visit) -> None:
    async for result in call:
        middle = (result.start_sec + result.end_sec) / 2
        visit.heard(visit.turn_at(middle), time.monotonic(), final=result.is_final)
    said = dict(await call.trailing_metadata() or ())
    for name in DECODE:
        value = said.get(f"stt-decode-{name.replace('_', '-')}-sec")
        if value is not None:
            visit.decode[name] = float(value)


def _code_of(error: Any) -> str:
    """The number that the details begin with, such as ERR1008, or the status."""
    word = (error.details() or "").partition(" ")[0]
    return word if word.startswith("ERR") else str(error.code().name)


@asynccontextmanager
async def opened(side: Side, tempo: Tempo) -> AsyncGenerator[Stt, None]:
    """Streams of ``side``.

    Raises:
        errors.SettingsInvalid: the extra `grpc` is missing, or the certificate cannot be believed.
    """
    with needed_for("Measurements over gRPC", "grpc"):
        import grpc

        import sidecar.protocols.grpc_stt.stt_pb2  # noqa: F401

    credentials = None
    if side.encrypted:
        roots = await asyncio.to_thread(_roots, side)
        credentials = grpc.ssl_channel_credentials(roots)
    yield Stt(side, tempo, credentials)


def _roots(side: Side) -> bytes | None:
    """The certificate that is believed, in PEM; None: those of the system."""
    trust = side.trust
    if trust is None or not trust.given:
        return None
    try:
        if trust.ca_cert is not None:
            return Path(trust.ca_cert).read_bytes()
        host, _, port = side.target.rpartition(":")
        shown = ssl.get_server_certificate((host.strip("[]"), int(port)))
    except OSError as error:
        raise errors.SettingsInvalid(
            f"The certificate of {side.target} cannot be read: {error.strerror or error}."
        ) from None
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()
    if trust.insecure or found == (trust.fingerprint or "").replace(":", "").strip().lower():
        return shown.encode()
    raise errors.SettingsInvalid(
        f"What answers at {side.target} has another certificate: {found}.",
        hint="Somebody may be in between; or the service made a new one, as its log says.",
    )
