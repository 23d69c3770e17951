"""The wire of a yap server: its own kind of client, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
from scripted_speech import tone
from service_process import PATIENCE_S, Server, wait_until, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from yap_client import RATE, Streaming, base64_of

from sidecar.api.http.websocket_connections import MALFORMED_PER_MINUTE

TOKEN = "correct-horse-battery-staple"
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/streaming.json").read_text())
IDLE_S, LONGEST_S = 2.0, 4.5


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Everything is little, and nobody is heard soon."""
    little = {"live_messages_per_minute": 40, "live_cancels_per_minute": 2, "live_inbound": 4}
    little |= {"live_buffer": 20, "live_ping": 1}
    folder = tmp_path_factory.mktemp("strict")
    with Server(folder, token=TOKEN, live_sessions=2, scripted_hear=60, limits=little) as running:
        yield running


def told(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a conversation comes to, however many partials there were in it."""
    found: list[dict[str, Any]] = []
    words: dict[str, str] = {"transcription.delta": "", "token": ""}
    for frame in frames:
        kind, payload = frame["type"], frame["payload"]
        if kind == "status":
            continue
        if kind in words:
            words[kind] += payload["delta" if kind == "transcription.delta" else "text"]
            continue
        if kind == "final":
            found += [{"type": each, "text": text} for each, text in words.items()]
            words = dict.fromkeys(words, "")
        found.append(frame)
    return found


async def test_a_conversation_goes_as_it_always_did(server: Server) -> None:
    async with Streaming(server) as client:
        created = await client.ready()
        assert created["payload"].pop("created") > 1.7e9
        assert created["payload"].pop("id") == created.pop("session_id")
        await client.send("session.update", "setup", {"model": None})
        assert (await client.frame())["payload"].pop("id")
        assert (
            await client.utterance(tone(1.0) + tone(1.0, 0) + tone(0.5, 0.2))
            == GOLDEN[4]["payload"]["normalized_text"]
        )
        await client.send("ping", "p1")
        await client.until("pong")
        assert await client.utterance(b"", "r2") == ""
        await client.begin("r3")
        await client.append(tone(0.5), "r3")
        await client.send("cancel", "r3")
        await client.until("cancelled")
        await client.send("end", "bye")
        await client.until("session_end")
        assert await client.closed() == (1000, "")
        hears = {"model": server.health()["live_engine"]}
        assert told(client.frames) == [
            {**one, "payload": {**payload, **hears}} if "model" in payload else one
            for one in GOLDEN
            for payload in [one.get("payload", {})]
        ]


async def test_a_request_that_begins_drops_the_one_that_goes_on_without_a_word(
    server: Server,
) -> None:
    async with Streaming(server) as client:
        await client.ready()
        await client.begin("r1")
        await client.append(tone(3.0, 0.9), "r1")
        assert await client.utterance(tone(0.5, 0.2), "r2")
        await client.begin("r3")
        await client.append(tone(0.5), "r3")
        await client.end("r3")
        await client.begin("r4")  # r3 has ended and its final is on the way, so it is told
        await client.append(tone(2.0, 0.9), "r4")
        assert (await client.utterance(tone(0.5, 0.2), "r5")).split()[-1] == "w199"
        done = [one for one in client.frames if one["type"] == "transcription.done"]
        assert [one["request_id"] for one in done] == ["r2", "r3", "r5"]
        assert all("w899" not in one["payload"]["text"] for one in done)


async def test_a_cancel_does_not_overtake_what_has_ended_before(server: Server) -> None:
    async with Streaming(server) as client:
        await client.ready()
        for number in range(3):  # all at once: none of them has been heard when the cancel comes
            await client.begin(f"e{number}")
            await client.append(tone(2.0, 0.2), f"e{number}")
            await client.end(f"e{number}")
        await client.begin("c")
        await client.append(tone(2.0, 0.9), "c")
        await client.send("cancel", "c")
        assert (await client.utterance(tone(1.0, 0.2), "last")).split()[-1] == "w199"
        done = [one for one in client.frames if one["type"] == "transcription.done"]
        assert [one["request_id"] for one in done] == ["e0", "e1", "e2", "last"]
        assert all(one["payload"]["text"].count("w199") >= 4 for one in done[:3])
        assert "w899" not in json.dumps(client.frames)


async def test_nothing_follows_a_cancel_and_the_next_request_is_whole(server: Server) -> None:
    async with Streaming(server) as client:
        await client.ready()
        for number in range(5):
            await client.begin(f"a{number}")
            await client.append(tone(0.3 * number, 0.9), f"a{number}")
            if number % 2:
                await client.end(f"a{number}")
            await client.send("cancel", f"a{number}", {"reason": "changed my mind"})
        assert (await client.until("cancelled"))["payload"] == {"reason": "changed my mind"}
        assert (await client.utterance(tone(1.0, 0.2), "b")).split()[-1] == "w199"
        cancelled: set[str] = set()
        for frame in client.frames:
            assert frame["request_id"] not in cancelled
            if frame["type"] == "cancelled":
                cancelled.add(frame["request_id"])
        assert len(cancelled) == 5


APPEND, COMMIT = "input_audio_buffer.append", "input_audio_buffer.commit"
SILENCE = base64_of(tone(0.1, 0))
MESSAGES = {
    "not JSON": ("{", "invalid_message", "invalid_message"),
    "not an object": ("[1]", "invalid_message", "invalid_message"),
    "without end": ("[" * 100_000, "invalid_message", "invalid_message"),
    "half a pair for an id": (
        r'{"type": "cancel", "session_id": "s", "request_id": "\ud800"}',
        *("invalid_message", "invalid_message"),
    ),
    "binary": (b"\x00\x01", "invalid_message", "invalid_message"),
    "without a type": ({"type": " "}, "invalid_message", "invalid_message"),
    "a number for an id": ({"session_id": 7}, "invalid_message", "invalid_message"),
    "an empty id": ({"request_id": ""}, "invalid_message", "invalid_message"),
    "a list for a payload": ({"payload": []}, "invalid_message", "invalid_message"),
    "unknown": ({"type": "sing"}, "invalid_message", "unknown_message_type"),
    "another request's sound": (
        {"type": APPEND, "request_id": "r2", "payload": {"audio": SILENCE}},
        *("invalid_payload", "no_active_request"),
    ),
    "another request's end": (
        {"type": COMMIT, "request_id": "r2", "payload": {"final": True}},
        *("invalid_payload", "request_id_mismatch"),
    ),
    "no sound": ({"type": APPEND}, "invalid_payload", "missing_audio"),
    "sound that is none": (
        {"type": APPEND, "payload": {"audio": "!" + SILENCE}},
        *("invalid_payload", "invalid_audio"),
    ),
    "half a sample": (
        {"type": APPEND, "payload": {"audio": base64_of(b"abc")}},
        *("invalid_payload", "sound_invalid"),
    ),
    "eleven seconds": (
        {"type": APPEND, "payload": {"audio": base64_of(tone(11, 0))}},
        *("invalid_payload", "chunk_too_long"),
    ),
    "an end that is a word": (
        {"type": COMMIT, "payload": {"final": "yes"}},
        *("invalid_payload", "invalid_final"),
    ),
    "another model": (
        {"type": "session.update", "payload": {"model": "x"}},
        *("invalid_payload", "unsupported_model"),
    ),
}


async def test_a_message_that_means_nothing_is_refused_and_the_connection_goes_on(
    server: Server,
) -> None:
    async with Streaming(server) as client:
        await client.ready()
        await client.end()
        assert (await client.refused())["reason_code"] == "no_active_request"
        await client.begin()
        for raw, code, reason in MESSAGES.values():
            if isinstance(raw, dict):
                whole = {"type": "ping", "session_id": "s", "request_id": "r1"}
                raw = json.dumps(whole | raw)
            await client.live.send(raw)
            refused = await client.refused()
            assert (refused["code"], refused["reason_code"]) == (code, reason), raw[:100]
        mismatch = next(
            one["payload"]["details"]
            for one in client.frames
            if one["payload"].get("reason_code") == "request_id_mismatch"
        )
        assert mismatch["active_request_id"] == "r1"
        assert refused["details"]["allowed_model"] == "scripted"
        assert refused["details"]["requested"] == "x"
        await client.append(tone(0.5))
        await client.end()
        assert await client.transcript()


async def test_garbage_of_every_kind_leaves_the_service_as_it_was(server: Server) -> None:
    async with Streaming(server) as client:
        await client.ready()
        for size in (1, 10, 1000):
            await client.live.send(secrets.token_bytes(size))
            await client.live.send(base64.b64encode(secrets.token_bytes(size)).decode())
            for _ in range(2):
                assert (await client.refused())["code"] == "invalid_message"
    async with Streaming(server) as client:
        await client.ready()
        with contextlib.suppress(ConnectionClosed):
            await client.live.send("x" * (10 << 20))
        code, reason = await client.closed()
        assert code == 1009
        assert reason
    assert "Traceback" not in server.log()


async def test_who_is_not_known_is_told_so_in_a_frame(strict: Server) -> None:
    for key, options in (("", {}), ("wrong", {}), ("", {"additional_headers": {"X-API-Key": "x"}})):
        async with Streaming(strict, key, options) as client:
            assert (await client.refused())["code"] == "authentication_failed"
            [frame] = client.frames
            assert frame["session_id"] == frame["request_id"] == "unknown"
            assert await client.closed() == (4001, "authentication_failed")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    ticket = strict.client.post("/v1/live/ticket", headers=bearer).json()["ticket"]
    url = f"ws://127.0.0.1:{strict.port}/api/asr-streaming?ticket={ticket}"
    async with connect(url, subprotocols=["asr-streaming"]) as live:
        assert json.loads(await live.recv())["type"] == "session.created"
        assert live.subprotocol == "asr-streaming"
    async with connect(url) as live:
        assert json.loads(await live.recv())["payload"]["code"] == "authentication_failed"
    assert strict.client.post("/v1/live/ticket").status_code == 401
    assert strict.client.get("/healthz").json() == {"status": "ok"}
    assert ticket not in strict.log()
    assert TOKEN not in strict.log()


async def test_one_more_than_there_is_room_for_is_told_so_in_a_frame(strict: Server) -> None:
    await asyncio.to_thread(_until_empty, strict)
    async with Streaming(strict, TOKEN) as first, Streaming(strict, TOKEN) as second:
        await first.ready()
        await second.ready()
        async with Streaming(strict, TOKEN) as third:
            assert (await third.refused())["code"] == "server_at_capacity"
            assert await third.closed() == (4002, "server_at_capacity")


@pytest.mark.slow
async def test_who_says_nothing_and_who_stays_too_long_is_closed(
    start_server: Callable[..., Server],
) -> None:
    there = start_server(live_idle=IDLE_S, live_longest=LONGEST_S)
    async with Streaming(there) as idle, Streaming(there) as busy:
        await busy.ready()

        async def pinging() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await busy.send("ping")
                    await asyncio.sleep(IDLE_S / 5)

        pings = asyncio.ensure_future(pinging())
        assert await idle.closed() == (4000, "idle timeout")
        assert [frame["type"] for frame in idle.frames] == ["session.created"]
        assert await busy.closed() == (4003, "max connection duration reached")
        assert {frame["type"] for frame in busy.frames} == {"session.created", "pong"}
        await pings


async def test_who_sends_nothing_but_nonsense_is_sent_away(strict: Server) -> None:
    await asyncio.to_thread(_until_empty, strict)
    async with Streaming(strict, TOKEN) as client:
        await client.ready()
        for _ in range(MALFORMED_PER_MINUTE + 1):
            await client.send("nonsense")
            refused = await client.refused()
        assert (refused["code"], refused["reason_code"]) == ("rate_limited", "message_rate_limited")
        assert (await client.closed())[0] == 4002


async def test_too_many_messages_are_refused_and_those_that_wait_end_it(strict: Server) -> None:
    await asyncio.to_thread(_until_empty, strict)
    async with Streaming(strict, TOKEN) as client:
        await client.ready()
        for _ in range(3):
            await client.send("cancel")
        refused = await client.refused()
        assert (refused["code"], refused["reason_code"]) == ("rate_limited", "cancel_rate_limited")
        assert 1 <= refused["details"].pop("retry_in") <= 60
        assert refused["details"] == {
            "reason_code": "cancel_rate_limited",
            "limit": 2,
            "window_seconds": 60,
            "kind": "cancel",
        }
        for _ in range(41):
            await client.send("session.update")
            await client.until("session.updated", "error")
        assert client.frames[-1]["payload"]["reason_code"] == "message_rate_limited"
        await client.send("ping")
        await client.until("pong")
    async with Streaming(strict, TOKEN) as client:
        await client.ready()
        await client.begin()
        with contextlib.suppress(ConnectionClosed):
            await client.append(tone(40), chunk=2 * RATE)  # half of it is as much as may wait
        refused = await client.refused()
        assert (refused["code"], refused["reason_code"]) == ("internal_error", "inbound_queue_full")
        assert refused["details"]["inbound_queue_max"] == 4
        assert await client.closed() == (4002, "inbound_queue_full")


async def test_a_connection_whose_peer_has_stopped_gives_its_place_back(strict: Server) -> None:
    await asyncio.to_thread(_until_empty, strict)
    halves = [_half_open(strict) for _ in range(2)]
    await asyncio.to_thread(_until_empty, strict)
    for half in halves:
        half.close()


@pytest.mark.slow
async def test_a_thousand_come_and_go_and_nothing_stays(server: Server) -> None:
    async def come_and_go(number: int) -> None:
        async with Streaming(server) as client:
            if number % 4:
                await client.ready()
            if number % 8 == 1:
                await client.begin()
                await client.append(tone(0.2))
            if number % 3 == 0:
                client.live.transport.abort()

    await come_and_go(1)
    process = psutil.Process(server.process.pid)
    before = process.num_fds(), process.num_threads(), len(server.family())
    for begin in range(0, 1000, 50):
        await asyncio.gather(*(come_and_go(number) for number in range(begin, begin + 50)))
    await asyncio.to_thread(
        wait_until,
        lambda: process.num_fds() <= before[0] + 2,
        PATIENCE_S,
        f"no more open files than {before[0]}",
    )
    assert process.num_threads() <= before[1] + 2
    assert len(server.family()) <= before[2], "who looks at files may have gone meanwhile"
    async with contextlib.AsyncExitStack() as stack:  # every place there is can be had again
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(100):
                await admitted(stack, server)
    assert "Traceback" not in server.log()


async def admitted(stack: contextlib.AsyncExitStack, server: Server) -> None:
    """Have a place, as soon as the last who vanished is known to be gone."""
    while True:
        client = await stack.enter_async_context(Streaming(server))
        try:
            await client.ready()
            return
        except ConnectionClosed:
            await asyncio.sleep(0.05)


async def test_an_engine_that_dies_in_the_middle_of_a_word_costs_no_word(server: Server) -> None:
    async with Streaming(server) as client:
        await client.ready()
        await client.begin()
        words = 0

        async def speaking() -> None:
            nonlocal words
            while True:
                await client.append(tone(0.25, 0.2))
                words += 1
                await asyncio.sleep(0.05)

        speaks = asyncio.ensure_future(speaking())
        await client.until("transcription.delta")
        inside = [one for one in server.family()[1:] if "worker_main" in " ".join(one.cmdline())]
        assert inside
        for process in inside:
            os.kill(process.pid, signal.SIGKILL)
        speaks.cancel()
        await asyncio.wait({speaks})
        await client.append(tone(1.0, 0.2))
        await client.end()
        await client.until("final")
        said = client.frames[-1]["payload"]["normalized_text"].split()
        notices = [one["payload"].get("code") for one in client.frames if one["type"] == "status"]
        assert "engine_restarted" in notices
        assert set(said) == {"w199"}
        assert len(said) >= words + 4


async def test_the_end_of_the_service_comes_after_the_finals(
    start_server: Callable[..., Server],
) -> None:
    there = start_server(shutdown_grace=20, scripted_hear=0.3)
    async with Streaming(there) as client, Streaming(there) as other:
        await client.ready()
        await client.begin()
        await client.append(tone(2.0))
        await client.send("session.update")
        await client.until("session.updated")
        there.process.terminate()
        frame = await client.until("transcription.done", "error")
        assert frame["type"] == "transcription.done"
        assert frame["payload"]["text"]
        assert (await client.refused())["reason_code"] == "shutting_down"
        assert await client.closed() == (1001, "shutting_down")
        assert (await other.closed())[0] == 1001
    assert await asyncio.to_thread(there.process.wait, PATIENCE_S) == 0


@pytest.mark.slow
async def test_the_embedded_engine_hears_a_real_voice(
    start_server: Callable[..., Server], voice: bytes, tmp_path: Path
) -> None:
    there = start_server(engine="auto")
    (tmp_path / "voice.wav").write_bytes(voice)
    pcm, rate = soundfile.read(tmp_path / "voice.wav", dtype="int16")
    assert rate == 16_000
    async with Streaming(there) as client:
        await client.ready()
        said = (await client.utterance(pcm.tobytes())).lower()
        assert "ever tried" in said


def _until_empty(server: Server) -> None:
    """Wait until both places of the strict one are free."""

    async def both() -> bool:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                client = await stack.enter_async_context(Streaming(server, TOKEN))
                if (await client.frame())["type"] != "session.created":
                    return False
        return True

    wait_until(lambda: asyncio.run(both()), PATIENCE_S, "there is room")


def _half_open(server: Server) -> socket.socket:
    """A peer that shakes hands and then does nothing, not even answer a ping."""
    half = server.raw()
    half.sendall(
        f"GET /api/asr-streaming?api_key={TOKEN} HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert half.recv(12) == b"HTTP/1.1 101"
    return half


def test_plain_requests_find_no_page_at_its_address(server: Server) -> None:
    answer = web.get(f"http://127.0.0.1:{server.port}/api/asr-streaming")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
