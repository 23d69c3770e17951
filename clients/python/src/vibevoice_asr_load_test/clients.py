"""Load test clients of each protocol."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vibevoice_asr_load_test import run, speech, target
from vibevoice_asr_load_test.statistics import DECODE, LoadTestSession, LoadTestUtterance

if TYPE_CHECKING:
    import httpx
    from websockets.asyncio.client import ClientConnection

    from vibevoice_asr_client import AsyncClient, AsyncLive


LONGEST_S = 3600.0
"""Timeout of a response."""


_LoadTestFileRequest = Callable[
    [speech.LoadTestRecording, LoadTestSession, LoadTestUtterance], Awaitable[None]
]
"""Function that sends a recording and waits for its whole result; it raises if that fails."""


async def _recordings(
    asks: _LoadTestFileRequest,
    recordings: Sequence[speech.LoadTestRecording],
    repeat: int,
    name: str,
    _: run.LoadTestPlay,
    visit: LoadTestSession,
) -> None:
    """Send ``repeat`` recordings in turn, starting with another one for each session name."""
    shift = int(name) if name.isdecimal() else 0
    for number in range(repeat):
        recording = recordings[(shift + number) % len(recordings)]
        turn = LoadTestUtterance(0.0, time.monotonic(), recording.seconds)
        turn.ended = turn.began  # it is sent as a whole
        visit.turns.append(turn)
        await asks(recording, visit, turn)
        turn.final = time.monotonic()
        visit.pace.append((turn.final - turn.began) / max(recording.seconds, 1e-3))
        visit.sound_s += recording.seconds
        visit.sent = turn.final


async def _post(
    http: httpx.AsyncClient,
    path: str,
    part: str,
    fields: Mapping[str, str],
    recording: speech.LoadTestRecording,
    visit: LoadTestSession,
    turn: LoadTestUtterance,
) -> None:
    """Send a recording with one request and wait for its response."""
    import httpx

    with recording.path.open("rb") as file:
        try:
            answer = await http.post(path, data=fields, files={part: ("recording", file)})
        except httpx.TimeoutException:
            raise TimeoutError from None
        except httpx.TransportError as error:
            raise ConnectionError(type(error).__name__) from None
    visit.responses += 1
    if not answer.is_success:
        raise run.LoadTestRefusal(_http_code_of(answer))


async def _job(
    client: AsyncClient,
    recording: speech.LoadTestRecording,
    visit: LoadTestSession,
    turn: LoadTestUtterance,
) -> None:
    """Submit a recording as a job and follow its events."""
    job = await client.submit(recording.path, name="recording")
    try:
        async for event in client.events(job.id):
            if event.kind == "segment":
                visit.heard(turn, time.monotonic(), final=False)
        ended = await client.job(job.id)
        if ended.error is not None:
            raise ended.error
        await client.transcript(job.id)
    finally:
        await client.cancel(job.id)


def _http_code_of(answer: httpx.Response) -> str:
    """Return the code of a problem, or of an error in OpenAI's format; else the status."""
    try:
        body = answer.json()
        said = body.get("error", body)
        return str(said["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status_{answer.status_code}"


@asynccontextmanager
async def open_file_client(
    side: target.LoadTestTarget,
    recordings: Sequence[speech.LoadTestRecording],
    repeat: int,
) -> AsyncGenerator[run.LoadClient, None]:
    """Yield a client of ``side``, each session of which sends ``repeat`` recordings."""
    from vibevoice_asr_client import NEVER, AsyncClient

    async with AsyncExitStack() as stack:
        asks: _LoadTestFileRequest
        if side.wire is target.LoadTestFileWire.JOBS:
            client = AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER)
            asks = partial(_job, await stack.enter_async_context(client))
        else:
            http = await stack.enter_async_context(await _http(side))
            openai = side.wire is target.LoadTestFileWire.OPENAI
            asks = (
                partial(_post, http, "/v1/audio/transcriptions", "file", {"model": "whisper-1"})
                if openai
                else partial(_post, http, "/transcribe", "audio", {})
            )
        yield run.LoadClient(partial(_recordings, asks, recordings, repeat))


async def _context(side: target.LoadTestTarget) -> ssl.SSLContext | None:
    if side.trust is None:
        return None
    return await asyncio.to_thread(side.trust.context, side.url)


async def _http(side: target.LoadTestTarget) -> httpx.AsyncClient:
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


async def _live(
    client: AsyncClient,
    options: Mapping[str, Any],
    answer_s: float,
    _: str,
    play: run.LoadTestPlay,
    visit: LoadTestSession,
) -> None:
    """Run a session of `/v1/live`, to its summary."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(answer_s):
            live = await stack.enter_async_context(client.live(**options))

        async def send() -> None:
            await play(run.LoadTestSender(live.send))
            await live.finish()

        await run.run_until_done(send(), _read_live(live, visit), answer_s)


async def _read_live(live: AsyncLive, visit: LoadTestSession) -> None:
    from vibevoice_asr_client import Final, Partial, Summary

    decode = visit.decode
    async for event in live:
        now = time.monotonic()
        match event:
            case Partial() if event.text:  # only those with text, as on other protocols
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
READY = frozenset({"session.created", "session.updated"})
WORDS = "transcription.delta"
"""Other event names report the same text again; only this one is counted."""
DONE = "transcription.done"
KEY = "X-API-Key"
LONGEST_MESSAGE = 32 << 20


async def _streaming(
    side: target.LoadTestTarget,
    context: ssl.SSLContext | None,
    name: str,
    play: run.LoadTestPlay,
    visit: LoadTestSession,
) -> None:
    """Run a session of yap's protocol, from the handshake to the `end` message."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    tls: dict[str, Any] = {} if context is None else {"ssl": context}
    try:
        async with connect(
            f"ws{side.url.removeprefix('http')}{PATH}",
            additional_headers={KEY: side.token} if side.token else {},
            proxy=None,
            compression=None,
            max_size=LONGEST_MESSAGE,
            ping_interval=None,  # as clients of that protocol do
            **tls,
        ) as socket:
            talk = _LoadTestYapSession(socket, name, visit)
            await talk.ready(side.ready_s)
            await run.run_until_done(talk.all_of(play, side.answer_s), talk.read(), side.answer_s)
    except InvalidStatus as error:
        raise run.LoadTestRefusal(f"status_{error.response.status_code}") from None
    except ConnectionClosed as error:
        raise run.LoadTestRefusal(f"closed_{error.rcvd.code if error.rcvd else 1006}") from None


class _LoadTestYapSession(run.LoadTestSender):
    """Session on one connection. A commit ends an utterance, so pauses are not sent."""

    silent = True

    def __init__(self, socket: ClientConnection, name: str, visit: LoadTestSession) -> None:
        super().__init__(self._append)
        self._socket, self._name, self._visit = socket, name, visit
        self._request = 0
        self._told = asyncio.Event()

    async def ready(self, most_s: float) -> None:
        """Wait until the session is ready, as clients do, but at most ``most_s``: some servers
        report it only after a first message."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while (await self._frame())["type"] not in READY:
                    pass

    async def all_of(self, play: run.LoadTestPlay, answer_s: float) -> None:
        """Send all audio, wait at most ``answer_s`` for all finals, then send `end`."""
        await play(self)
        async with asyncio.timeout(answer_s):
            while self._visit.lost:
                self._told.clear()
                await self._told.wait()
        await self._say("end")

    async def begin(self, turn: int) -> None:
        """Start a request for an utterance."""
        self._request = turn
        await self._say("input_audio_buffer.commit", final=False)

    async def _append(self, sound: bytes) -> None:
        await self._say("input_audio_buffer.append", audio=base64.b64encode(sound).decode())

    async def end(self, turn: int) -> None:
        """Commit an utterance as finished."""
        await self._say("input_audio_buffer.commit", final=True)

    async def read(self) -> None:
        """Read the responses, up to the last."""
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
            raise run.LoadTestRefusal("answer_not_understood") from None
        if kind == "error":
            raise run.LoadTestRefusal(str((payload or {}).get("code") or kind))
        return frame

    async def _say(self, kind: str, **payload: object) -> None:
        ids = {"session_id": self._name, "request_id": str(self._request)}
        await self._socket.send(json.dumps({"type": kind, **ids, "payload": payload}))


CREATE, RECOGNIZE = "/stt.STTBackend/CreateSession", "/stt.STTBackend/StreamingRecognize"
CREATE_S = 30.0
"""Timeout of the creation of a session."""
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Each client has a connection of its own, as with WebSockets."""


async def _grpc(
    side: target.LoadTestTarget,
    credentials: Any,
    name: str,
    play: run.LoadTestPlay,
    visit: LoadTestSession,
) -> None:
    """Run a stream of the package `stt`; ``credentials``: `None` if it is not encrypted."""
    import grpc

    channel = (
        grpc.aio.insecure_channel(side.target, options=OPTIONS)
        if credentials is None
        else grpc.aio.secure_channel(side.target, credentials, options=OPTIONS)
    )
    async with channel:
        try:
            # The name is unique, as names in use are refused.
            await _stream(side, channel, f"{name}-{time.monotonic_ns()}", play, visit)
        except grpc.aio.AioRpcError as error:
            raise run.LoadTestRefusal(_grpc_code_of(error)) from None


async def _stream(
    side: target.LoadTestTarget,
    channel: Any,
    name: str,
    play: run.LoadTestPlay,
    visit: LoadTestSession,
) -> None:
    messages = side.messages
    metadata = [("authorization", f"Bearer {side.token}")] if side.token else []
    create = channel.unary_unary(
        CREATE, messages.SessionRequest.SerializeToString, messages.SessionResponse.FromString
    )
    request = messages.SessionRequest(session_id=name, attributes={"session_id": name})
    session = await create(request, metadata=metadata, timeout=CREATE_S)
    recognize = channel.stream_stream(
        RECOGNIZE, messages.AudioChunk.SerializeToString, messages.STTResult.FromString
    )
    call = recognize(metadata=[*metadata, ("session-id", name)])

    async def write(sound: bytes) -> None:
        about = {"session_id": name, "session_token": session.token}
        await call.write(messages.AudioChunk(pcm16=sound, sample_rate=speech.LIVE_RATE, **about))

    async def send() -> None:
        await play(run.LoadTestSender(write))
        await call.done_writing()

    try:
        await run.run_until_done(send(), _read_grpc(call, visit), side.answer_s)
    finally:
        call.cancel()


async def _read_grpc(call: Any, visit: LoadTestSession) -> None:
    async for result in call:
        middle = (result.start_sec + result.end_sec) / 2
        visit.heard(visit.turn_at(middle), time.monotonic(), final=result.is_final)
    said = dict(await call.trailing_metadata() or ())
    for name in DECODE:
        value = said.get(f"stt-decode-{name.replace('_', '-')}-sec")
        if value is not None:
            visit.decode[name] = float(value)


def _grpc_code_of(error: Any) -> str:
    """Return the number at the start of the details, such as ERR1008, or the status."""
    word = (error.details() or "").partition(" ")[0]
    return word if word.startswith("ERR") else str(error.code().name)


@asynccontextmanager
async def open_live_client(
    side: target.LoadTestTarget, tempo: run.LoadTestTempo, **options: Any
) -> AsyncGenerator[run.LoadClient, None]:
    """Yield a client for live sessions of ``side``, without retries. ``options``: those of
    `/v1/live`.

    Raises:
        vibevoice_asr_client.TrustInvalid: the certificate cannot be trusted.
    """
    from vibevoice_asr_client import NEVER, AsyncClient

    match side.wire:
        case target.LoadTestLiveWire.STREAMING:
            yield run.LoadClient(partial(_streaming, side, await _context(side)), tempo)
        case target.LoadTestLiveWire.GRPC:
            yield run.LoadClient(partial(_grpc, side, await _credentials(side)), tempo)
        case _:
            async with AsyncClient(side.url, side.token, trust=side.trust, retry=NEVER) as client:
                options = {"diarize": False, **options}
                yield run.LoadClient(partial(_live, client, options, side.answer_s), tempo)


async def _credentials(side: target.LoadTestTarget) -> Any:
    import grpc

    if not side.encrypted:
        return None
    return grpc.ssl_channel_credentials(await asyncio.to_thread(_roots, side))


def _roots(side: target.LoadTestTarget) -> bytes | None:
    """Return the trusted certificate in PEM; `None`: those of the system."""
    from vibevoice_asr_client import TrustInvalid

    trust = side.trust
    if trust is None or not trust.given:
        return None
    try:
        if trust.ca_cert is not None:
            return Path(trust.ca_cert).read_bytes()
        host, _, port = side.target.rpartition(":")
        shown = ssl.get_server_certificate((host.strip("[]"), int(port)))
    except OSError as error:
        raise TrustInvalid(
            f"The certificate of {side.target} cannot be read: {error.strerror or error}."
        ) from None
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()
    if trust.insecure or found == (trust.fingerprint or "").replace(":", "").strip().lower():
        return shown.encode()
    raise TrustInvalid(
        f"The server at {side.target} has another certificate: {found}.",
        hint=(
            "The service may have renewed it (see its log), or somebody intercepts the connection."
        ),
    )
