"""The wire of a yap server: its own kind of client, and everything that can go wrong on the way."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from asgi_server import served
from module_services import open_service as open_service
from module_services import service_of_module
from scripted_speech import tone
from service_process import PATIENCE_S, Server, StartServer, halted
from websockets.asyncio.client import connect
from yap_client import Streaming, base64_of

from sidecar.plugins.yap.messages import LONGEST_ID
from sidecar.server.app import create_app
from sidecar.service.facade import Service

TOKEN = "correct-horse-battery-staple"
GOLDEN = json.loads((Path(__file__).parents[2] / "golden/streaming.json").read_text("utf-8"))


FEW = {"live_messages_per_minute": 40, "live_cancels_per_minute": 2}
strict = service_of_module(token=TOKEN, live_sessions=3, limits=FEW)
"""A service with a token and few of everything."""


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


async def test_connection_exchanges_the_golden_frames(server: Server) -> None:
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


async def test_new_request_drops_the_active_one_and_one_that_has_ended_is_still_answered(
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


async def test_half_a_sample_of_a_request_is_not_the_start_of_the_next(server: Server) -> None:
    async with Streaming(server) as client:
        await client.ready()
        await client.begin("r1")
        await client.append(b"\x07", "r1")
        assert (await client.utterance(tone(1.0, 0.2), "r2")).split()[-1] == "w199"
        await client.begin("r3")
        await client.append(b"\x07", "r3")
        await client.send("cancel", "r3")
        assert (await client.utterance(tone(1.0, 0.2), "r4")).split()[-1] == "w199"


async def test_audio_that_comes_much_faster_than_it_is_recognized_has_its_final_and_pings_a_pong(
    server: Server,
) -> None:
    async with Streaming(server) as client:
        await client.ready()
        assert await client.utterance(tone(0.5))
        with contextlib.ExitStack() as stack:
            for worker in server.processes("sidecar.workers.worker_main"):
                stack.enter_context(halted(worker.pid))
            await client.begin("long")
            await client.append(tone(100.0), "long")
            await client.end("long")
            await client.send("ping", "p")
            await client.until("pong")
        assert len((await client.transcript("long")).split()) > 300


async def test_connection_ends_behind_the_answers_to_all_that_was_sent(server: Server) -> None:
    for committed in (True, False):
        async with Streaming(server) as client:
            await client.ready()
            await client.begin()
            await client.append(tone(5.0, 0.2))
            if committed:
                await client.end()
            await client.send("end", "bye")
            assert len((await client.transcript()).split()) == pytest.approx(20, abs=2)
            assert (await client.until("session_end"))["request_id"] == "bye"
            assert await client.closed() == (1000, "")


async def test_cancelled_request_sends_no_more_and_the_next_is_complete(server: Server) -> None:
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
            # A notice of load is the session's, and names the last request.
            assert frame["request_id"] not in cancelled or frame["type"] == "status", frame
            if frame["type"] == "cancelled":
                cancelled.add(frame["request_id"])
        assert len(cancelled) == 5


APPEND, COMMIT = "input_audio_buffer.append", "input_audio_buffer.commit"
SILENCE = base64_of(tone(0.1, 0))
OTHER = {"request_id": "r2", "payload": {"audio": SILENCE, "final": True}}
UPDATE = {"type": "session.update"}


def appended(audio: str) -> dict[str, Any]:
    return {"type": APPEND, "payload": {"audio": audio}}


REFUSED: list[tuple[str, str, list[Any]]] = [
    (
        *("invalid_message", "invalid_message"),
        [
            *("{", "[1]", "[" * 100_000, b"\x00\x01"),
            r'{"type": "cancel", "session_id": "s", "request_id": "\ud800"}',
            *({"type": " "}, {"session_id": 7}, {"request_id": ""}, {"payload": []}),
            {"request_id": "x" * (LONGEST_ID + 1)},
        ],
    ),
    ("invalid_message", "unknown_message_type", [{"type": "sing"}]),
    ("invalid_payload", "no_active_request", [OTHER | {"type": APPEND}]),
    ("invalid_payload", "request_id_mismatch", [OTHER | {"type": COMMIT}]),
    ("invalid_payload", "missing_audio", [{"type": APPEND}]),
    ("invalid_payload", "invalid_audio", [appended("!" + SILENCE)]),
    ("invalid_payload", "chunk_too_long", [appended(base64_of(tone(11, 0)))]),
    ("invalid_payload", "invalid_final", [{"type": COMMIT, "payload": {"final": "yes"}}]),
    ("invalid_payload", "unsupported_model", [UPDATE | {"payload": {"model": "x"}}]),
]


async def test_invalid_message_is_refused_with_its_reason_and_its_request_is_still_transcribed(
    server: Server,
) -> None:
    async with Streaming(server) as client:
        await client.ready()
        await client.end()
        assert (await client.refused())["reason_code"] == "no_active_request"
        await client.begin()
        for code, reason, messages in REFUSED:
            for raw in messages:
                if isinstance(raw, dict):
                    raw = json.dumps({"type": "ping", "session_id": "s", "request_id": "r1"} | raw)
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
        pcm = tone(0.5)
        for part in (pcm[:4801], pcm[4801:]):  # within a sample
            lines = base64.encodebytes(part).decode()  # as Android's default encoder breaks them
            await client.send(APPEND, payload={"audio": lines})
        await client.end()
        assert await client.transcript()


async def test_connection_with_wrong_key_is_refused_in_a_frame_and_closed_with_4001(
    strict: Server,
) -> None:
    async with Streaming(strict, "wrong") as client:
        assert (await client.refused())["code"] == "authentication_failed"
        [frame] = client.frames
        assert frame["session_id"] == frame["request_id"] == "unknown"
        assert await client.closed() == (4001, "authentication_failed")


async def test_ticket_opens_a_connection_of_the_offered_subprotocol(strict: Server) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    ticket = strict.client.post("/v1/live/ticket", headers=bearer).json()["ticket"]
    url = f"ws://127.0.0.1:{strict.port}/api/asr-streaming?ticket={ticket}"
    async with connect(url, subprotocols=["asr-streaming"]) as live:
        assert json.loads(await live.recv())["type"] == "session.created"
        assert live.subprotocol == "asr-streaming"


async def test_idle_connection_is_closed_and_a_pinging_one_at_its_longest_duration(
    open_service: Callable[..., Awaitable[Service]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    service = await open_service(live_idle=100, live_longest=150)
    monkeypatch.setattr(service.live, "now", lambda: now)
    async with served(create_app(service.settings, service)) as listener:
        there = cast(Server, SimpleNamespace(port=listener.getsockname()[1]))
        async with Streaming(there) as idle, Streaming(there) as busy:
            await idle.ready()
            await busy.ready()
            now = 99.0
            await busy.send("ping")
            await busy.until("pong")
            now = 100.0
            service.live.check_time_limits()
            assert await idle.closed() == (4000, "idle timeout")
            await busy.send("ping")
            await busy.until("pong")
            now = 150.0
            service.live.check_time_limits()
            assert await busy.closed() == (4003, "max connection duration reached")
        assert [frame["type"] for frame in idle.frames] == ["session.created"]
        assert [frame["type"] for frame in busy.frames] == ["session.created", "pong", "pong"]


async def test_messages_beyond_their_rate_are_refused_with_the_limit_but_audio_blocks_are_not(
    strict: Server,
) -> None:
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
        await client.begin("r1")
        for _ in range(100):  # blocks of an AudioWorklet
            await client.append(bytes(256), "r1")
        answers = list[str]()
        for _ in range(40):
            await client.send("session.update")
            answers.append((await client.until("session.updated", "error"))["type"])
        assert answers[0] == "session.updated"
        assert client.frames[-1]["payload"]["reason_code"] == "message_rate_limited"
        await client.send("ping")
        await client.until("pong")


async def test_connection_beyond_the_limit_is_refused_in_a_frame_until_one_leaves(
    strict: Server,
) -> None:
    async def places() -> int:
        """How many connections are let in."""
        async with contextlib.AsyncExitStack() as stack:
            for count in range(4):
                client = await stack.enter_async_context(Streaming(strict, TOKEN))
                if (await client.frame())["type"] == "error":
                    assert client.frames[-1]["payload"]["code"] == "server_at_capacity"
                    assert await client.closed() == (4002, "server_at_capacity")
                    return count
        return count

    for _ in range(2):
        while await places() != 3:
            pass  # who left before is not known to be gone yet


@pytest.mark.posix("signals")
async def test_shutdown_closes_connections_after_their_finals(start_server: StartServer) -> None:
    there = start_server(shutdown_grace=PATIENCE_S, scripted_hear=0.3)
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
