"""Values that no client means, for every option of the live wires of text: a clear answer, and the
session of somebody else does not notice. Those of others:
`tests/plugins/grpc_stt/test_grpc_stt_fuzz.py`, `test_wyoming.py` and `test_s2s_routes.py` there."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from live_wire import wire
from module_services import service_of_module
from scripted_speech import sound, talk
from service_process import Server
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from sidecar.api.http import request_headers
from sidecar.api.http.openapi import OPTIONS
from sidecar.api.http.websocket_connections import MALFORMED_PER_MINUTE
from sidecar.api.live_messages import LiveBeginRequest, LiveChangeRequest, LiveEndpointing
from sidecar.plugins.realtime.dialogue_config import RealtimeDialogueConfig
from sidecar.plugins.realtime.session_config import (
    RealtimeDelay,
    RealtimeTranscriptionConfig,
)

NUMBERS = (
    *("1e308", "-1e308", "5e-324", "-0.0", "1e400"),
    *("NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1" + "0" * 5000),
)
VALUES = (
    *NUMBERS,
    *("true", "null", '"1e308"', json.dumps("x" * 100_000), json.dumps("\0")),
    *("[" * 150 + "1e308" + "]" * 150, '{"a": {"b": [1e308]}}'),
)
"""As they stand in JSON, or would in that of a careless client."""
NO_BASE64 = json.dumps({"type": "input_audio_buffer.append", "audio": "!"})
FAULTS = {"internal", "engine_crashed", "engine_failed", "server_error", "internal_error"}
SPEECH = sound((0.3, 0.3), (0.7, 0.0))
MANY = 6
"""Connections at once."""


service = service_of_module(
    voice_engine="none",
    conversations=20,
    live_grace=0,
    live_idle="1h",
    limits={"live_messages_per_minute": 0, "live_cancels_per_minute": 0},
)


async def heard(socket: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    """All that comes as text, to the end of the connection, which says why it ends."""
    try:
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                yield json.loads(message)
    except ConnectionClosed:
        assert socket.close_code not in (1006, 1011), "closed without a word"


def nested(path: str, value: str, **beside: Any) -> str:
    """An object with the value at a path; ``beside``: fields of the outermost."""
    outer, *inner = path.split(".")
    for name in reversed(inner):
        value = f"{{{json.dumps(name)}: {value}}}"
    rest = "".join(f", {json.dumps(name)}: {json.dumps(one)}" for name, one in beside.items())
    return f"{{{json.dumps(outer)}: {value}{rest}}}"


async def at_once(attacks: list[Awaitable[None]]) -> None:
    """Some of them side by side."""
    gate = asyncio.Semaphore(MANY)

    async def one(attack: Awaitable[None]) -> None:
        async with gate:
            await attack

    await asyncio.gather(*map(one, attacks))


async def someone(server: Server, meanwhile: Callable[[], Awaitable[None]]) -> list[str]:
    """What a session is told in which something happens in the middle of an utterance."""
    raw, middle, told = talk(0.3, 0.2), 2 * 16_000, []
    async with wire(server) as socket:
        await socket.send(json.dumps({"type": "begin", "partials": False, "diarize": False}))
        await socket.send(raw[:middle])
        await meanwhile()
        await socket.send(raw[middle:])
        await socket.send(json.dumps({"type": "finish"}))
        async for event in heard(socket):
            told.append(event)
            if event["type"] == "summary":
                await socket.close()
    kept = [one for one in told if one["type"] not in ("began", "received")]
    same = [json.dumps({**one, "number": 0, "wait_s": 0, "work_s": 0}) for one in kept]
    return sorted(same)  # whether a final or the next utterance comes first is chance


# /v1/live


def live_options(order: type[LiveBeginRequest | LiveChangeRequest]) -> Iterator[str]:
    for name in order.model_fields:
        if name == "endpointing":
            yield from (f"endpointing.{inner}" for inner in LiveEndpointing.model_fields)
        if name != "type":
            yield name


async def of_live(server: Server, share: int = 3) -> None:
    """Each option with a third of the values, and each value with a third of the options."""
    begin = json.dumps({"type": "begin"})

    async def attack(*said: str) -> None:
        async with wire(server) as socket:
            try:
                for message in (*said, SPEECH, '{"type": "finish"}'):
                    await socket.send(message)
            except ConnectionClosed:
                pass  # the first was refused
            async for event in heard(socket):
                assert event.get("code") not in FAULTS, (said, event)
                if event["type"] == "summary":
                    return
            assert event["type"] == "error", (said, event)
            assert event["message"]
            assert event["hint"]

    await at_once(
        [
            *(
                attack(nested(path, value, type="begin"))
                for at, path in enumerate(live_options(LiveBeginRequest))
                for value in VALUES[at % share :: share]
            ),
            *(
                attack(begin, nested(path, value, type="change"))
                for at, path in enumerate(live_options(LiveChangeRequest))
                for value in VALUES[at % share :: share]
            ),
        ]
    )


async def of_live_with_all_values(server: Server) -> None:
    await of_live(server, 1)


# OpenAI's Realtime API: what a session can be is read from how it is told


def paths(view: Mapping[str, Any], before: str = "session") -> Iterator[str]:
    for name, value in view.items():
        yield f"{before}.{name}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{before}.{name}")


TRANSCRIBES = RealtimeTranscriptionConfig(
    model="whisper-1", requested_language="en", prompt="words", delay=RealtimeDelay.LOW
)
TALKS = RealtimeDialogueConfig("gpt-realtime", transcription=TRANSCRIBES)
EVENTS = (
    ("input_audio_buffer.append", "audio"),
    ("conversation.item.truncate", "audio_end_ms"),
    ("conversation.item.truncate", "content_index"),
    ("conversation.item.truncate", "item_id"),
    ("conversation.item.create", "item"),
    ("conversation.item.create", "item.content"),
    ("conversation.item.retrieve", "item_id"),
    ("response.create", "response"),
    ("response.create", "response.metadata.a"),
    ("response.create", "response.tools"),
    ("response.cancel", "response_id"),
    ("session.update", "event_id"),
)


async def of_realtime(server: Server, query: str, asked: list[tuple[str, str]], kind: str) -> None:
    async def attack(event: str, path: str) -> None:
        async with wire(server, f"/v1/realtime?{query}") as socket:
            for value in VALUES:
                await socket.send(nested(path, value, type=event))
            await socket.send(json.dumps({"type": "session.update", "session": {"type": kind}}))
            heard_now = {"audio": base64.b64encode(SPEECH).decode()}
            await socket.send(json.dumps({"type": "input_audio_buffer.append", **heard_now}))
            await socket.send(json.dumps({"type": "the last", "event_id": "the last"}))
            answers = 0
            async for told in heard(socket):
                answers += told["type"] in ("error", "session.updated")
                if told["type"] == "error":
                    error = told["error"]
                    assert error["code"] not in FAULTS, (path, told)
                    assert error["message"]
                    if error["event_id"] == "the last":
                        assert answers > len(VALUES) or event != "session.update"
                        return
        raise AssertionError(f"{path} ended the connection")

    await at_once([attack(*one) for one in asked])


async def of_transcriptions(server: Server) -> None:
    today = [("session.update", path) for path in paths(TRANSCRIBES.view("", 0))]
    beta = [("transcription_session.update", path) for path in paths(TRANSCRIBES.beta_view("", 0))]
    await of_realtime(server, "intent=transcription", today + beta, "transcription")


async def of_dialogues(server: Server) -> None:
    session = [("session.update", path) for path in paths(TALKS.view("", 0))]
    await of_realtime(server, "model=gpt-realtime", [*session, *EVENTS], "realtime")


# /api/asr-streaming


async def of_streaming(server: Server) -> None:
    ids = {"session_id": "s", "request_id": "r"}

    async def attack(kind: str, path: str) -> None:
        async with wire(server, "/api/asr-streaming") as socket:
            for value in VALUES:
                said = {**ids, "type": kind}
                said.pop(path, None)
                await socket.send(nested(path, value, **said))
            last = {"type": "session.update", "session_id": "s", "request_id": "the last"}
            await socket.send(json.dumps(last))
            async for told in heard(socket):
                if told["type"] == "error":
                    assert told["payload"]["code"] not in FAULTS, (path, told)
                    assert told["payload"]["reason_code"]
                if (told["type"], told["request_id"]) == ("session.updated", "the last"):
                    return
        raise AssertionError(f"{path} ended the connection")

    await at_once(
        [
            attack("session.update", "payload.model"),
            attack("input_audio_buffer.append", "payload.audio"),
            attack("input_audio_buffer.commit", "payload.final"),
            attack("cancel", "payload.reason"),
            *(attack("session.update", one) for one in ("payload", "session_id", "request_id")),
            attack("ping", "type"),
        ]
    )


# HTTP: its options are those of the page for generators


async def of_http(server: Server) -> None:
    asked = [
        *(("/v1/estimate", name) for name in (*OPTIONS, "duration")),
        *(("/v1/realtime/client_secrets", path) for path in ("session", *paths(TALKS.view("", 0)))),
    ]
    head = {"Content-Type": "application/json"}

    def attack(path: str, name: str) -> None:
        for value in VALUES:
            body = nested(name, value, **({} if name == "duration" else {"duration": 1}))
            answer = server.client.post(path, content=body, headers=head)
            assert answer.status_code < 500, (path, name, value[:20], answer.text)

    def ask(path: str) -> None:
        for value in (one[:4000] for one in VALUES):
            answer = server.client.get(path, params={"limit": value, "after": value})
            assert answer.status_code == 422, (path, value[:20], answer.text)

    await at_once([asyncio.to_thread(attack, *one) for one in asked])
    await at_once([asyncio.to_thread(ask, "/v1/jobs")])


@pytest.mark.slow_except("of_live]", "of_http")
@pytest.mark.parametrize(
    "attack",
    [of_live, of_live_with_all_values, of_transcriptions, of_dialogues, of_streaming, of_http],
)
async def test_absurd_option_values_cause_no_internal_error_and_no_harm_to_other_sessions(
    service: Server, attack: Callable[[Server], Awaitable[None]]
) -> None:
    await someone(service, lambda: asyncio.sleep(0))  # a first session waits for the engine
    usual = await someone(service, lambda: asyncio.sleep(0))
    assert sum('"type": "final"' in one for one in usual) == 2
    log = len(service.log())
    assert await someone(service, lambda: attack(service)) == usual
    for word in ("Traceback", "CRITICAL", "internal error"):
        assert word not in service.log()[log:]


@pytest.mark.parametrize(
    ("path", "message", "code"),
    [
        ("/api/asr-streaming", "no JSON", 4002),
        ("/v1/realtime?intent=transcription", "no JSON", 1008),
        ("/v1/realtime?intent=transcription", NO_BASE64, 1008),
        ("/v1/realtime?model=gpt-realtime", "no JSON", 1008),
    ],
)
async def test_client_that_sends_only_invalid_messages_is_rate_limited_and_closed(
    service: Server, path: str, message: str, code: int
) -> None:
    async with wire(service, path) as socket:
        for _ in range(MALFORMED_PER_MINUTE + 1):
            await socket.send(message)
        told = [event async for event in heard(socket)]
    assert "rate_limited" in json.dumps(told[-1])
    assert socket.close_code == code


@pytest.mark.parametrize("item", ["0", "[]", "{}", "[0]", '{"a": 1.5}'])
def test_message_with_too_many_values_is_refused(item: str) -> None:
    most = request_headers.MAX_JSON_VALUES // 3
    assert len(request_headers.parse_json_message(f"[{', '.join([item] * most)}]")) == most
    with pytest.raises(ValueError, match="100,000 values"):
        request_headers.parse_json_message(f"[{', '.join([item] * 3 * most)}, 0, 0]")
