"""Load test clients of each protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sidecar import errors
from sidecar.cli import load_target
from sidecar.cli.load_statistics import DECODE, Turn, Visit
from sidecar.cli.load_target import (
    Carrier,
    Course,
    FileWire,
    LiveWire,
    Recording,
    Refusal,
    Side,
    Tempo,
    play,
    together,
    visiting,
)
from sidecar.errors.access_errors import needed_for
from sidecar.interfaces.live_engine import LIVE_RATE

if TYPE_CHECKING:
    import httpx
    from vibevoice_asr_client import AsyncClient, AsyncLive
    from websockets.asyncio.client import ClientConnection


LONGEST_S = 3600.0
"""For an answer."""


class _Asks(Protocol):
    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        """Send a recording, and wait until all of it is told; an exception where it is not."""


class Files:
    """Clients of one service, each with ``recordings`` from another one on."""

    def __init__(self, asks: _Asks, recordings: list[Recording], repeat: int) -> None:
        self._asks, self._recordings, self._repeat = asks, recordings, repeat

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, with so many recordings one behind the other."""
        visit = Visit(name)
        shift = int(name) if name.isdecimal() else 0
        with visiting(visit, course):
            for number in range(self._repeat):
                recording = self._recordings[(shift + number) % len(self._recordings)]
                turn = Turn(0.0, time.monotonic(), recording.seconds)
                turn.ended = turn.began  # it is sent as a whole
                visit.turns.append(turn)
                await self._asks(recording, visit, turn)
                turn.final = time.monotonic()
                visit.pace.append((turn.final - turn.began) / max(recording.seconds, 1e-3))
                visit.sound_s += recording.seconds
                visit.sent = turn.final
        return visit


class _Posts:
    """An answer to each request."""

    def __init__(self, http: httpx.AsyncClient, path: str, part: str, fields: Mapping[str, str]):
        self._http, self._path, self._part, self._fields = http, path, part, fields

    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        import httpx

        with recording.path.open("rb") as file:
            try:
                answer = await self._http.post(
                    self._path, data=dict(self._fields), files={self._part: ("recording", file)}
                )
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.TransportError as error:
                raise ConnectionError(type(error).__name__) from None
        visit.responses += 1
        if not answer.is_success:
            raise Refusal(_http_code_of(answer))


class _Jobs:
    """A job that is followed by its events."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def __call__(self, recording: Recording, visit: Visit, turn: Turn) -> None:
        job = await self._client.submit(recording.path, name="recording")
        try:
            async for event in self._client.events(job.id):
                if event.kind == "segment":
                    visit.heard(turn, time.monotonic(), final=False)
            ended = await self._client.job(job.id)
            if ended.error is not None:
                raise ended.error
            await self._client.transcript(job.id)
        finally:
            await self._client.cancel(job.id)


def _http_code_of(answer: httpx.Response) -> str:
    """The code of a problem, or of an error in OpenAI's words; else the status."""
    try:
        body = answer.json()
        said = body.get("error", body)
        return str(said["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status_{answer.status_code}"


@asynccontextmanager
async def open_file_client(
    side: Side, recordings: list[Recording], repeat: int
) -> AsyncGenerator[Files, None]:
    """Clients of ``side``; each sends ``repeat`` recordings."""
    from vibevoice_asr_client import NEVER, AsyncClient

    async with AsyncExitStack() as stack:
        asks: _Asks
        if side.wire is FileWire.JOBS:
            client = AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER)
            asks = _Jobs(await stack.enter_async_context(client))
        else:
            http = await stack.enter_async_context(await _http(side))
            openai = side.wire is FileWire.OPENAI
            asks = (
                _Posts(http, "/v1/audio/transcriptions", "file", {"model": "whisper-1"})
                if openai
                else _Posts(http, "/transcribe", "audio", {})
            )
        yield Files(asks, recordings, repeat)


async def _context(side: Side) -> ssl.SSLContext | None:
    if side.trust is None:
        return None
    return await asyncio.to_thread(side.trust.context, side.url)


async def _http(side: Side) -> httpx.AsyncClient:
    import httpx

    context = await _context(side)
    return httpx.AsyncClient(
        base_url=side.url,
        headers={"Authorization": f"Bearer {side.token}"} if side.token else {},
        timeout=httpx.Timeout(LONGEST_S, connect=10.0),
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
        verify=True if context is None else context,
    )


class Ours:
    """Sessions of one service."""

    def __init__(self, client: AsyncClient, tempo: Tempo, options: Mapping[str, Any]) -> None:
        self._client, self._tempo = client, tempo
        self._options = {"diarize": False, **options}

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, from its beginning to its summary."""
        visit = Visit(name)
        with visiting(visit, course):
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(load_target.PATIENCE_S):
                    live = await stack.enter_async_context(self._client.live(**self._options))

                async def send() -> None:
                    await play(course, self._tempo, _LiveCarrier(live), visit)
                    await live.finish()

                await together(send(), _read_live(live, visit))
        return visit


class _LiveCarrier(Carrier):
    def __init__(self, live: AsyncLive) -> None:
        self._live = live

    async def send(self, sound: bytes) -> None:
        await self._live.send(sound)


async def _read_live(live: AsyncLive, visit: Visit) -> None:
    from vibevoice_asr_client import Final, Partial, Summary

    decode = visit.decode
    async for event in live:
        now = time.monotonic()
        match event:
            case Partial() if event.text:  # what is worth showing: other wires tell no more
                middle = (event.start + event.end) / 2
                visit.heard(visit.turn_at(middle), now, final=False)
            case Final():
                middle = (event.segment.start + event.segment.end) / 2
                visit.heard(visit.turn_at(middle), now, final=True)
                decode["queue_wait"] = decode.get("queue_wait", 0.0) + event.wait_s
                decode["inference"] = decode.get("inference", 0.0) + event.work_s
            case Summary():
                return


PATH = "/api/asr-streaming"
READY_S = 10.0
READY = frozenset({"session.created", "session.updated"})
WORDS = "transcription.delta"
"""Another vocabulary says the same again; one is counted."""
DONE = "transcription.done"
KEY = "X-API-Key"
LONGEST_MESSAGE = 32 << 20


class Streaming:
    """Connections of one service."""

    def __init__(self, side: Side, tempo: Tempo, context: ssl.SSLContext | None) -> None:
        self._side, self._tempo, self._context = side, tempo, context

    async def visit(self, name: str, course: Course) -> Visit:
        """One of them, from the handshake to its farewell."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidStatus

        visit = Visit(name)
        key = {KEY: self._side.token} if self._side.token else {}
        tls: dict[str, Any] = {} if self._context is None else {"ssl": self._context}
        with visiting(visit, course):
            try:
                async with connect(
                    f"ws{self._side.url.removeprefix('http')}{PATH}",
                    additional_headers=key,
                    proxy=None,
                    compression=None,
                    max_size=LONGEST_MESSAGE,
                    ping_interval=None,  # as clients of that wire do
                    **tls,
                ) as socket:
                    talk = _Talk(socket, name, visit)
                    await talk.ready()
                    await together(talk.all_of(course, self._tempo), talk.read())
            except InvalidStatus as error:
                raise Refusal(f"status_{error.response.status_code}") from None
            except ConnectionClosed as error:
                raise Refusal(f"closed_{error.rcvd.code if error.rcvd else 1006}") from None
        return visit


class _Talk(Carrier):
    """One connection. A commit ends an utterance, so nothing is sent in pauses."""

    silent = True

    def __init__(self, socket: ClientConnection, name: str, visit: Visit) -> None:
        self._socket, self._name, self._visit = socket, name, visit
        self._request = 0
        self._told = asyncio.Event()

    async def ready(self) -> None:
        """Clients wait for that before they send anything, but not for ever: some servers say it
        only when they were told something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while (await self._frame())["type"] not in READY:
                    pass

    async def all_of(self, course: Course, tempo: Tempo) -> None:
        """All of it, until everything is told; then the farewell."""
        await play(course, tempo, self, self._visit)
        async with asyncio.timeout(load_target.PATIENCE_S):
            while self._visit.lost:
                self._told.clear()
                await self._told.wait()
        await self._say("end")

    async def begin(self, turn: int) -> None:
        """A request of its own."""
        self._request = turn
        await self._say("input_audio_buffer.commit", final=False)

    async def send(self, sound: bytes) -> None:
        """A piece of it."""
        await self._say("input_audio_buffer.append", audio=base64.b64encode(sound).decode())

    async def end(self, turn: int) -> None:
        """It is over, and all of it is wanted."""
        await self._say("input_audio_buffer.commit", final=True)

    async def read(self) -> None:
        """What comes back, to the farewell."""
        while (frame := await self._frame())["type"] != "session_end":
            kind, now = frame["type"], time.monotonic()
            if kind in (WORDS, DONE):
                turns, request = self._visit.turns, str(frame["request_id"])
                known = request.isdecimal() and int(request) < len(turns)
                self._visit.heard(turns[int(request)] if known else None, now, final=kind == DONE)
                self._told.set()

    async def _frame(self) -> dict[str, Any]:
        try:
            frame: dict[str, Any] = json.loads(await self._socket.recv())
            kind, payload = frame["type"], frame["payload"]
        except (ValueError, KeyError, TypeError):
            raise Refusal("answer_not_understood") from None
        if kind == "error":
            raise Refusal(str((payload or {}).get("code") or kind))
        return frame

    async def _say(self, kind: str, **payload: object) -> None:
        ids = {"session_id": self._name, "request_id": str(self._request)}
        await self._socket.send(json.dumps({"type": kind, **ids, "payload": payload}))


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
                    raise Refusal(_grpc_code_of(error)) from None
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

        async def send() -> None:
            await play(course, self._tempo, _GrpcCarrier(call, name, session.token), visit)
            await call.done_writing()

        try:
            await together(send(), _read_grpc(call, visit))
        finally:
            call.cancel()


class _GrpcCarrier(Carrier):
    def __init__(self, call: Any, name: str, token: str) -> None:
        self._call, self._name, self._token = call, name, token

    async def send(self, sound: bytes) -> None:
        from sidecar.protocols.grpc_stt.stt_pb2 import AudioChunk

        chunk = AudioChunk(
            pcm16=sound,
            sample_rate=LIVE_RATE,
            session_id=self._name,
            session_token=self._token,
        )
        await self._call.write(chunk)


async def _read_grpc(call: Any, visit: Visit) -> None:
    async for result in call:
        middle = (result.start_sec + result.end_sec) / 2
        visit.heard(visit.turn_at(middle), time.monotonic(), final=result.is_final)
    said = dict(await call.trailing_metadata() or ())
    for name in DECODE:
        value = said.get(f"stt-decode-{name.replace('_', '-')}-sec")
        if value is not None:
            visit.decode[name] = float(value)


def _grpc_code_of(error: Any) -> str:
    """The number that the details begin with, such as ERR1008, or the status."""
    word = (error.details() or "").partition(" ")[0]
    return word if word.startswith("ERR") else str(error.code().name)


@asynccontextmanager
async def open_live_client(
    side: Side, tempo: Tempo, **options: Any
) -> AsyncGenerator[Ours | Streaming | Stt, None]:
    """Live sessions of ``side``, each of one attempt; ``options`` are those of `/v1/live`.

    Raises:
        errors.SettingsInvalid: the extra `grpc` is missing, or the certificate cannot be believed.
    """
    from vibevoice_asr_client import NEVER, AsyncClient

    match side.wire:
        case LiveWire.STREAMING:
            yield Streaming(side, tempo, await _context(side))
        case LiveWire.GRPC:
            yield Stt(side, tempo, await _credentials(side))
        case _:
            async with AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER) as client:
                yield Ours(client, tempo, options)


async def _credentials(side: Side) -> Any:
    with needed_for("Measurements over gRPC", "grpc"):
        import grpc

        import sidecar.protocols.grpc_stt.stt_pb2  # noqa: F401

    if not side.encrypted:
        return None
    return grpc.ssl_channel_credentials(await asyncio.to_thread(_roots, side))


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
