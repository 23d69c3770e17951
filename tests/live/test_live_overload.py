"""A live engine that has enough to do: who is refused, and what is left out, on each wire.

The engine takes a second for whatever it is given, so few speakers are enough for any machine.
"""

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import pytest
from grpc_in_process import Caller
from grpc_in_process import ended as ended_of
from module_services import service_of_module
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, Server, wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from yap_client import Streaming, base64_of

from sidecar import errors
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk

LOUD, QUIET = tone(0.1), tone(0.1, 0.0)
UTTERANCE = (LOUD,) * 5 + (QUIET,) * 7
LISTENED_S = 11
"""Of silence: who has heard so much is no newcomer."""
MANY = 400
FULL = errors.LiveFull
DROPPED = errors.UtteranceDropped.code


SETTINGS = {
    "live_sessions": MANY,
    "live_delay": "1",
    "scripted_hear": "1",
    "grpc_port": 0,
    "live_idle": "1h",  # a listener says nothing while a slow machine gathers its crowd
}
slow = service_of_module(voice_engine="scripted", conversations=9, **SETTINGS)
"""A second for each stretch, and final words are to come within one more."""


LISTENERS = 48
"""More than overload the engine, with three times as many behind them."""


class Speaker:
    """A session on our own wire, as fast as time goes: silent until it speaks, which it does until
    it is left."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._part: Iterator[bytes] = itertools.repeat(QUIET)
        self._heard: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        url = f"ws://127.0.0.1:{self._server.port}/v1/live"
        self._socket: ClientConnection = await connect(url, ping_interval=None)
        await self._socket.send(json.dumps({"type": "begin", "diarize": False}))
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._listen())]
        return self

    def speak(self) -> None:
        """Speak from now on."""
        self._part = itertools.cycle(UTTERANCE)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._socket.close()

    async def first(self, *kinds: str, within_s: float = PATIENCE_S) -> dict[str, Any] | None:
        """The first message of these types, or with these codes; None if none comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    self._news.clear()
                    for one in self._heard:
                        if {one["type"], one.get("code")} & set(kinds):
                            return one
                    await self._news.wait()
        return None

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._socket.send(next(self._part))
                await asyncio.sleep(0.1)  # real time: the pace of speech, or slower

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                self._heard.append(json.loads(message))
                self._news.set()


@contextlib.asynccontextmanager
async def crowd(server: Server, listened_s: int, last: str) -> AsyncIterator[dict[str, Any]]:
    """So many speakers that one is told ``last``: that message of it. ``listened_s``: for how long
    each was silent before."""
    async with contextlib.AsyncExitStack() as stack:

        async def new() -> Speaker:
            return await stack.enter_async_context(Speaker(server))

        first = await new()
        first.speak()
        await first.first("partial", "final")  # the engine has measured what it takes
        listeners = [await new() for _ in range(LISTENERS if listened_s else 0)]
        await asyncio.sleep(listened_s)  # real time: who sends silence faster is ahead of it
        told, count = None, 0
        while told is None and (count := count + 1) < MANY:
            speaker = listeners.pop() if listened_s else await new()
            speaker.speak()
            await speaker.first("speech_started", last)
            told = await speaker.first(last, within_s=0.3)
        assert told is not None
        for _ in range(3 * count):  # what it takes is still being measured
            speaker = listeners.pop() if listened_s else await new()
            speaker.speak()
        yield told


async def spoken(socket: ClientConnection, *messages: Any) -> None:
    """Say them again and again, until the other side closes."""
    with contextlib.suppress(ConnectionClosed):
        for message in itertools.cycle(messages):
            await socket.send(message)
            await asyncio.sleep(0.1)  # real time: the pace of speech, or slower


def appended(pcm: bytes) -> str:
    """As the Realtime wire takes it, at 24,000 samples a second."""
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64_of(pcm)})


@contextlib.asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """``work`` goes on meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(socket: ClientConnection, *kinds: str, **fields: Any) -> dict[str, Any]:
    """The next JSON message of these kinds."""
    while True:
        message = await socket.recv()
        body = json.loads(message) if isinstance(message, str) else {"type": "sound"}
        if body["type"] in kinds and fields.items() <= body.items():
            return dict(body)


def shed_on_grpc(server: Server) -> bool:
    """Whether an utterance of a gRPC session was left out."""
    page = server.client.get("/metrics").text
    return re.search(r'live_utterances_shed_total\{wire="grpc"\} [1-9]', page) is not None


async def test_session_beyond_capacity_is_refused_when_it_first_speaks_on_every_wire(
    slow: Server,
) -> None:
    async with crowd(slow, 0, "error") as refused:
        assert (refused["code"], refused["retry_after"]) == (FULL.code, 5)

        async with Streaming(slow) as yap:
            await yap.ready()
            await yap.send("input_audio_buffer.commit", payload={"final": False})
            append = {"type": "input_audio_buffer.append", "session_id": "s", "request_id": "r1"}
            append["payload"] = {"audio": base64_of(LOUD)}  # type: ignore[assignment]
            async with beside(spoken(yap.live, json.dumps(append))):
                said = await yap.refused()
                assert said["code"] == "server_at_capacity"
                assert said["details"]["retry_in"] == 5
                assert (await yap.closed())[0] == 4002

        url = f"ws://127.0.0.1:{slow.port}/v1/realtime?intent=transcription"
        async with (
            connect(url, ping_interval=None) as socket,
            beside(spoken(socket, appended(tone(0.15)))),
        ):
            error = (await until(socket, "error"))["error"]
            assert error["code"] == FULL.code
            assert error["message"].endswith("Retry after 5 s.")
            await socket.wait_closed()
            assert socket.close_code == 1013

        async with Caller(slow.health()["grpc_port"]) as caller:
            await caller.create("one too many")

            async def chunks() -> AsyncIterator[AudioChunk]:
                while True:
                    yield AudioChunk(session_id="one too many", pcm16=LOUD, sample_rate=16_000)
                    await asyncio.sleep(0.1)  # real time: the pace of speech, or slower

            ended = await ended_of(caller.open(chunks(), session_id="one too many"))
            assert ended.status.name == "RESOURCE_EXHAUSTED"
            assert ended.trailing["error-code"] == FULL.code
            assert ended.trailing["retry-after"] == "5"

        async with Page(slow) as page:
            async with beside(spoken(page.live, LOUD)):
                error = await page.until("error")
            assert (error["code"], error["retry_after"]) == (FULL.code, 5)

        page = slow.client.get("/metrics").text
        for name, count in (("talk", 1), ("streaming", 1), ("realtime", 1), ("grpc", 1)):
            labels = f'{{code="{FULL.code}",wire="{name}"}}'
            assert f"live_sessions_refused_total{labels} {count}" in page


@pytest.mark.slow
async def test_silent_session_that_speaks_in_overload_loses_an_utterance_with_notice_on_every_wire(
    slow: Server,
) -> None:
    silence = [QUIET] * (10 * LISTENED_S)
    async with contextlib.AsyncExitStack() as stack:
        yap = await stack.enter_async_context(Streaming(slow))
        await yap.ready()
        await yap.begin("silence")
        await yap.append(b"".join(silence), "silence")
        url = f"ws://127.0.0.1:{slow.port}/v1/realtime?intent=transcription"
        realtime = await stack.enter_async_context(connect(url, ping_interval=None))
        for _ in range(LISTENED_S):
            await realtime.send(appended(tone(1.5, 0.0)))
        page = await stack.enter_async_context(Page(slow))
        for quiet in silence:
            await page.live.send(quiet)
        caller = await stack.enter_async_context(Caller(slow.health()["grpc_port"]))
        await caller.create("listener")
        over = asyncio.Event()

        async def chunks() -> AsyncIterator[AudioChunk]:
            for quiet in silence:
                yield AudioChunk(session_id="listener", pcm16=quiet, sample_rate=16_000)
            for part in itertools.cycle(UTTERANCE):
                if over.is_set():
                    break
                yield AudioChunk(session_id="listener", pcm16=part, sample_rate=16_000)
                await asyncio.sleep(0.1)  # real time: the pace of speech, or slower
            yield AudioChunk(session_id="listener", is_final=True)

        notice = await stack.enter_async_context(crowd(slow, LISTENED_S, DROPPED))
        assert notice["type"] == "notice"
        streaming = asyncio.create_task(ended_of(caller.open(chunks(), session_id="listener")))

        async with beside(
            spoken(
                realtime,
                *(appended(tone(0.15) if one is LOUD else tone(0.15, 0.0)) for one in UTTERANCE),
            )
        ):
            failed = await until(realtime, "conversation.item.input_audio_transcription.failed")
        assert failed["error"]["code"] == DROPPED
        assert failed["error"]["message"].endswith("Retry after 5 s.")

        status: dict[str, Any] = {}
        for number in itertools.count():
            text = await yap.utterance(tone(0.5), f"r{number}")
            said = [one["payload"] for one in yap.frames if one["type"] == "status"]
            dropped = [one for one in said if one.get("source") == "utterance"]
            if dropped:
                assert text == ""
                status = dropped[0]
                break
        assert status["kind"] == "overload_drop"
        assert status["dropped_seconds"] >= 0.4

        async with beside(spoken(page.live, *UTTERANCE)):
            assert (await page.until("notice", code=DROPPED))["message"]

        await asyncio.to_thread(wait_until, lambda: shed_on_grpc(slow), "its utterance is left out")
        over.set()
        ended = await streaming
        assert int(ended.trailing["dropped-utterances"]) >= 1
        assert ended.status.name == "OK"
    assert slow.health()["status"] == "ok"
