"""Clients that send nothing while nobody speaks: muted ones, push-to-talk, own detection."""

import asyncio
import base64
import dataclasses
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgi_server import served
from grpc_client import Client
from live_wire import next_of, say, wire
from module_services import service_of_module
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, Server
from websockets.asyncio.client import ClientConnection, connect
from yap_client import Streaming

from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.live_events import Final, LiveEvent, SpeechStopped, TurnEnded
from sidecar.interfaces.live_options import (
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    SampleEncoding,
)
from sidecar.live.sessions.input_log import InputLog, InputLogTotals
from sidecar.live.sessions.session import MAX_AHEAD_S, Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk
from sidecar.server.http_app import create_whole_app
from sidecar.service.facade import Service

SECOND = 32_000
PATIENT = LiveOptions(endpointing=EndpointingOptions(silence_s=2.0))
quick = service_of_module(limits={"live_late": 0.1}, grpc_port=0, voice_engine="scripted")


class Clock:
    """Time that a test sets, and a session on it."""

    def __init__(self, options: LiveOptions | None = None, late_s: float = 0.5) -> None:
        self.now = 100.0
        self.session = Session(
            *("s", "o", options or LiveOptions(), SessionBounds(late_s=late_s)),
            *(InputLogTotals(1 << 30), lambda: self.now),
        )

    async def audio(self, seconds: float) -> None:
        await self.session.send(bytes(2 * round(seconds * 16_000)))

    def passes(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.session.wait_for_audio(step)

    @property
    def pauses(self) -> int:
        """Pauses that an engine would get."""
        log = self.session.input_log
        log.rewind()
        return sum(one is LiveOrder.PAUSE for one in iter(log.take, None))


@pytest.mark.parametrize(
    ("options", "chunk_s", "waits_s"),
    [(LiveOptions(), 0.1, 1.0), (PATIENT, 0.1, 2.5), (LiveOptions(), 2.0, 2.5)],
)
async def test_missing_audio_is_silence_after_its_length_or_a_chunk_and_the_margin_once(
    options: LiveOptions, chunk_s: float, waits_s: float
) -> None:
    clock = Clock(options)
    clock.passes(PATIENCE_S)
    assert clock.pauses == 0, "nothing came yet"
    for pauses in (1, 2):
        await clock.audio(chunk_s)
        clock.passes(waits_s - 0.05)
        assert clock.pauses == pauses - 1, "it may be late"
        clock.passes(0.2)
        assert clock.pauses == pauses
        clock.passes(PATIENCE_S)
        assert clock.pauses == pauses


async def test_steady_audio_in_real_time_late_or_in_bursts_is_never_taken_for_silence() -> None:
    for chunks, chunk_s, every_s in ((1, 0.1, 0.1), (20, 0.1, 2.0), (2, 1.0, 2.0), (1, 0.1, 0.9)):
        clock = Clock()
        for _ in range(10):
            for _ in range(chunks):
                await clock.audio(chunk_s)
            clock.passes(every_s)
        assert clock.pauses == 0, (chunks, chunk_s, every_s)


@pytest.mark.parametrize("part_s", [1.0, 10.0])
async def test_audio_in_one_message_is_waited_for_as_long_as_it_lasts_however_it_is_divided(
    part_s: float,
) -> None:
    clock = Clock()
    for _ in range(5):
        with clock.session.executing():
            for _ in range(round(10.0 / part_s)):
                await clock.audio(part_s)
        clock.passes(10.4)
        assert clock.pauses == 0
    clock.passes(0.2)
    assert clock.pauses == 1
    await clock.audio(0.1)
    clock.passes(MAX_AHEAD_S + 0.6)
    assert clock.pauses == 2, "a short one"


async def test_client_ahead_of_real_time_is_waited_for_no_longer_than_the_most_that_counts() -> (
    None
):
    clock = Clock()
    for _ in range(30):
        await clock.audio(1.0)
    clock.passes(MAX_AHEAD_S + 0.4)
    assert clock.pauses == 0
    clock.passes(0.2)
    assert clock.pauses == 1


async def test_time_without_a_connection_or_with_audio_that_waits_for_the_engine_is_no_silence(
) -> None:  # fmt: skip
    clock = Clock()
    session = clock.session
    await clock.audio(1.0)
    session.disconnected_at = clock.now
    clock.passes(10.0)
    session.disconnected_at = None
    session.expect_audio()
    clock.passes(0.9)
    assert clock.pauses == 0, "its client has just come back"
    session.bounds = dataclasses.replace(session.bounds, buffer_s=0.0)
    sending = asyncio.ensure_future(clock.audio(1.0))
    assert not await done(sending)
    clock.passes(10.0)
    assert clock.pauses == 0, "what is to be heard is there, and an engine has no room for it"
    sending.cancel()
    await asyncio.wait({sending})
    session.expect_audio()  # its client comes back
    clock.passes(PATIENCE_S)
    assert clock.pauses == 1


async def test_time_in_which_a_command_is_executed_is_no_silence_whatever_is_changed_meanwhile(
) -> None:  # fmt: skip
    clock = Clock()
    session = clock.session
    await clock.audio(10.0)
    session.bounds = dataclasses.replace(session.bounds, buffer_s=4.0)
    sending = asyncio.ensure_future(clock.audio(1.0))
    assert not await done(sending)
    session.change(LiveOptions(endpointing=EndpointingOptions(silence_s=0.3)))
    clock.passes(10.0)
    assert clock.pauses == 0
    sending.cancel()
    await asyncio.wait({sending})
    clock.passes(PATIENCE_S)
    assert clock.pauses == 1


async def test_conversation_that_loads_the_voice_of_an_update_does_not_cut_the_utterance(
    open_service: Callable[..., Awaitable[Service]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, orders = 0.0, list[object]()
    loads, loaded = asyncio.Event(), asyncio.Event()
    service = await open_service(voice_engine="scripted")
    service.live.bounds = dataclasses.replace(service.live.bounds, late_s=0.1)
    service.live.now = lambda: now

    async def voices(_: object) -> tuple[str, ...]:
        loads.set()
        await loaded.wait()
        return ("low", "high")

    def passes_ten_seconds() -> None:
        nonlocal now
        for _ in range(50):
            now += 0.2
            service.live.check_time_limits()

    monkeypatch.setattr(ConversationRegistry, "voices", voices)
    monkeypatch.setattr(InputLog, "order", lambda _, order: orders.append(order))
    async with served(create_whole_app(service, AccessControl(), None)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/realtime?model=gpt-realtime"
        async with connect(url, proxy=None) as socket, asyncio.timeout(PATIENCE_S):
            audio = base64.b64encode(tone(1.0)).decode()
            await realtime(socket, "input_audio_buffer.append", audio=audio)
            session = {"type": "realtime", "audio": {"output": {"voice": "high"}}}
            await realtime(socket, "session.update", session=session)
            await loads.wait()
            passes_ten_seconds()
            assert LiveOrder.PAUSE not in orders
            loaded.set()
            while json.loads(await socket.recv())["type"] != "session.updated":
                pass
            passes_ten_seconds()
            assert LiveOrder.PAUSE in orders


async def done(sending: asyncio.Future[None]) -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return sending.done()


def test_pause_keeps_its_place_for_the_next_engine_until_the_audio_before_it_is_settled() -> None:
    log = InputLog(InputLogTotals(1 << 20))
    log.add(bytes(SECOND), SampleEncoding.PCM16, 16_000)
    log.order(LiveOrder.PAUSE)
    log.add(bytes(SECOND), SampleEncoding.PCM16, 16_000)
    assert not log.has_unanswered_order, "no client waits for an answer"
    for settled, replayed in ((0.5, 3), (1.0, 1), (2.0, 0)):
        while log.take():
            pass
        log.settle(settled, 0)
        log.rewind()
        assert len(log) == replayed, settled
    log.order(LiveOrder.PAUSE)
    log.take()
    assert log.lose() == [], "no engine answers it"


@pytest.mark.parametrize("channels", [1, 2])
async def test_utterances_with_no_audio_between_them_are_final_each_and_turns_of_their_own(
    open_service: Callable[..., Awaitable[Service]], channels: int
) -> None:
    service = await open_service()
    service.live.bounds = dataclasses.replace(service.live.bounds, late_s=0.1)
    names = ("Left", "Right")[: channels if channels > 1 else 0]
    session = service.live.open(ANONYMOUS, LiveOptions(), channel_names=names)
    told: list[LiveEvent] = []
    events = session.events()

    async def until_ended(count: int) -> None:
        while sum(isinstance(one, TurnEnded) for one in told) < count:
            told.append((await anext(events)).event)

    async with asyncio.timeout(PATIENCE_S):
        for turn in (1, 2):
            await session.send(b"".join(stereo(tone(0.8)) if channels > 1 else (tone(0.8),)))
            await until_ended(turn * channels)
        assert session.received_s == 1.6, "the audio is the clock of the words"
        assert session.received_orders == 0, "clients count theirs, and believe no other number"
        assert [len({one.turn for one in told if isinstance(one, kind)})
                for kind in (Final, SpeechStopped, TurnEnded)] == [2 * channels] * 3  # fmt: skip
        assert not any(one.committed for one in told if isinstance(one, TurnEnded))
        session.finish()
        *_, _ = [one async for one in events]


async def test_utterance_goes_on_after_a_connection_that_was_lost_in_the_middle_of_it(
    open_service: Callable[..., Awaitable[Service]],
) -> None:
    now = 0.0
    service = await open_service(live_grace=100.0)
    service.live.bounds = dataclasses.replace(service.live.bounds, late_s=0.1)
    service.live.now = lambda: now
    session = service.live.open(ANONYMOUS, LiveOptions())
    for lost_s in (50.0, 50.0, 0.0):
        await session.send(tone(0.8))
        service.live.leave(session)
        for _ in range(round(lost_s / 0.2)):
            now += 0.2
            service.live.check_time_limits()
        service.live.find(ANONYMOUS, session.id)
    session.finish()
    async with asyncio.timeout(PATIENCE_S):
        told = [one.event async for one in session.events()]
    assert sum(isinstance(one, TurnEnded) for one in told) == 1


def stereo(raw: bytes) -> Iterator[bytes]:
    for at in range(0, len(raw), 2):
        yield raw[at : at + 2] * 2


async def test_muted_client_gets_its_words_and_a_session_of_one_turn_its_summary(
    quick: Server,
) -> None:
    for turns in ("silence", "one"):
        async with wire(quick) as socket:
            await say(socket, "begin", turns=turns)
            await socket.send(tone(1.0))
            assert (await next_of(socket, "turn_ended"))["text"]
            if turns == "one":
                assert (await next_of(socket, "summary"))["transcript"]["segments"]


async def realtime(socket: ClientConnection, kind: str, **body: Any) -> None:
    await socket.send(json.dumps({"type": kind, **body}))


async def test_muted_realtime_clients_get_their_transcripts_and_answers(quick: Server) -> None:
    audio = {"input": {"format": {"type": "audio/pcm", "rate": 24_000}}}
    loud = base64.b64encode(tone(1.5)).decode()
    for query, kind, last in (
        ("intent=transcription", "transcription", "input_audio_transcription.completed"),
        ("model=gpt-realtime", "realtime", "response.done"),
    ):
        async with wire(quick, f"/v1/realtime?{query}") as socket, asyncio.timeout(PATIENCE_S):
            session = {"type": kind, "audio": audio}
            await realtime(socket, "session.update", session=session)
            await realtime(socket, "input_audio_buffer.append", audio=loud)
            kinds = list[str]()
            while not kinds or not kinds[-1].endswith(last):
                kinds.append(json.loads(await socket.recv())["type"])
                assert kinds[-1] != "error"
            assert "input_audio_buffer.speech_stopped" in kinds
            assert "input_audio_buffer.committed" in kinds


async def test_switched_off_microphone_of_a_conversation_ends_the_turn(quick: Server) -> None:
    async with Page(quick) as page:
        await page.until("status", state="ready")
        await page.live.send(tone(1.0))
        assert (await page.until("transcript"))["user"]


@pytest.mark.parametrize("mode", [0, 1])
def test_muted_grpc_client_gets_its_final_and_one_of_one_utterance_its_end(
    quick: Server, mode: int
) -> None:
    said = threading.Event()
    with Client(quick.health()["grpc_port"]) as client:
        client.create("muted", vad_mode=mode)

        def speak() -> Iterator[bytes]:
            chunk = AudioChunk(pcm16=tone(1.0), sample_rate=16_000, session_id="muted")
            yield chunk.SerializeToString()
            said.wait(PATIENCE_S)

        for result in client.open(speak()):
            if result.is_final:
                said.set()
        assert said.is_set()


async def test_open_request_of_a_yap_client_is_not_ended_by_missing_audio(quick: Server) -> None:
    async with Streaming(quick) as client:
        await client.ready()
        await client.begin("r1")
        await client.append(tone(1.0, 0.1), "r1")
        async with wire(quick) as socket:  # a session with the same clock, and turns by silence
            await say(socket, "begin")
            for _ in range(2):
                await socket.send(tone(1.0))
                await next_of(socket, "turn_ended")
        await client.append(tone(1.0, 0.2), "r1")
        await client.end("r1")
        text = (await client.until("transcription.done"))["payload"]["text"]
        assert len(set(text.split())) == 2, text
