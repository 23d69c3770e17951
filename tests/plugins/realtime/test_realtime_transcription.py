"""OpenAI's Realtime transcription: its own package for Python, and plain WebSockets, against a real
service."""

import base64
import contextlib
import itertools
import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import websockets
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse
from pydantic import TypeAdapter
from service_process import REPOSITORY, Server, wait_until
from websockets.asyncio.client import ClientConnection, connect

GOLDEN = json.loads((REPOSITORY / "tests/golden/realtime.json").read_text("utf-8"))
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TOKEN = "correct-horse-battery-staple"
RATE = 24_000
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"
SEGMENT = "conversation.item.input_audio_transcription.segment"
NULL_VAD = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}


def sound(level: float, seconds: float) -> bytes:
    """So loud, 16-bit at 24 kHz."""
    return struct.pack("<h", round(level * 32767)) * round(seconds * RATE)


SPEECH = sound(0, 0.5) + sound(0.3, 1) + sound(0, 1) + sound(0.2, 1) + sound(0, 1)
"""Two turns, as the scripted engine hears it: what is loud is speech."""
FIRST = len(sound(0, 2.5))
"""Bytes of the first, and the pause behind it."""


def loudest(text: str) -> int:
    """The tenths that the loudest of the engine's words stands for."""
    return max(round(int(word[1:]) / 100) for word in text.split())


def appended(raw: bytes) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(raw).decode()}


def pieces(raw: bytes, seconds: float = 0.1) -> Iterator[dict[str, Any]]:
    size = round(seconds * RATE) * 2
    return (appended(raw[at : at + size]) for at in range(0, len(raw), size))


class Client:
    """Somebody who speaks the protocol without a package."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.connection.send(json.dumps(event))

    async def next(self) -> dict[str, Any]:
        return dict(json.loads(await self.connection.recv()))

    async def until(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Everything up to the ``count``-th event of this type."""
        found = []
        while count:
            found.append(await self.next())
            count -= found[-1]["type"] == name
        return found


@contextlib.asynccontextmanager
async def connected(
    server: Server, query: str = "?intent=transcription", **options: Any
) -> AsyncIterator[Client]:
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    async with connect(url, max_size=None, ping_interval=None, **options) as connection:
        yield Client(connection)


def canonical(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs from run to run: ids, dates, and how words fall into deltas."""
    names: dict[str, str] = {}
    for prefix, event in itertools.product(("sess", "item"), events):
        for found in (event.get("session", {}).get("id"), event.get("item_id")):
            if found and found.startswith(prefix) and found not in names:
                names[found] = f"{prefix}_{sum(one.startswith(prefix) for one in names.values())}"
    text = json.dumps([event for event in events if event["type"] != DELTA])
    for found, name in names.items():
        text = text.replace(f'"{found}"', f'"{name}"')
    plain = json.loads(text)
    for event in plain:
        del event["event_id"]
        event.get("session", {}).pop("expires_at", None)
    return list(plain)


async def test_events_of_a_transcription_session_equal_the_golden_file(server: Server) -> None:
    async with connected(server) as client:
        await client.send({"type": "session.update", "session": GOLDEN["session"]})
        events = []
        for turn in (SPEECH[:FIRST], SPEECH[FIRST:]):  # a turn is told before the next begins
            await client.send(*pieces(turn))
            events += await client.until(COMPLETED)
    assert canonical(events) == GOLDEN["events"]
    assert len({event["event_id"] for event in events}) == len(events)
    for event in events:
        EVENTS.validate_python(event, strict=True)
    for done in (event for event in events if event["type"] == COMPLETED):
        words = [one["delta"] for one in events if one["type"] == DELTA]
        said = [one for one in events if one["type"] == DELTA and one["item_id"] == done["item_id"]]
        assert words
        assert "".join(one["delta"] for one in said) == done["transcript"]


async def test_audio_messages_may_be_cut_within_a_sample(server: Server) -> None:
    size = 2 * RATE // 10 + 1
    async with connected(server) as client:
        await client.send({"type": "session.update", "session": NULL_VAD})
        for odd in (0, 1):  # half a sample at the end belongs to no later turn
            raw = SPEECH + bytes(odd)
            parts = (raw[at : at + size] for at in range(0, len(raw), size))
            await client.send(*map(appended, parts), {"type": "input_audio_buffer.commit"})
        events = await client.until(COMPLETED, 2)
    assert not [event for event in events if event["type"] == "error"]
    texts = [event["transcript"] for event in events if event["type"] == COMPLETED]
    assert [loudest(text) for text in texts] == [3, 3]


async def test_refused_commit_within_a_sample_does_not_shift_the_audio_after_it_by_a_byte(
    server: Server,
) -> None:
    commit = {"type": "input_audio_buffer.commit"}
    async with connected(server) as client:
        await client.send({"type": "session.update", "session": NULL_VAD})
        await client.send(appended(SPEECH[:101]), commit)  # too short, and cut within a sample
        await client.send(appended(SPEECH[101:]), commit)
        events = await client.until(COMPLETED)
    refused = [event["error"]["code"] for event in events if event["type"] == "error"]
    assert refused == ["input_audio_buffer_commit_empty"]
    assert [loudest(event["transcript"]) for event in events if event["type"] == COMPLETED] == [3]


async def test_invalid_event_is_an_error_and_audio_sent_after_it_is_transcribed(
    server: Server,
) -> None:
    model = {"input_audio_transcription": {"model": "gpt-9"}}
    wrong: list[tuple[dict[str, Any], str, str | None]] = [
        ({"type": "response.create", "event_id": "mine"}, "event_unsupported", None),
        ({"type": "input_audio_buffer.append", "audio": "A"}, "sound_invalid", "audio"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "transcription_session.update", "session": model}, "model_not_found", "model"),
    ]
    async with connected(server) as client:
        await client.next()
        for event, code, param in wrong:
            await client.send(event)
            said = await client.next()
            EVENTS.validate_python(said, strict=True)
            assert (said["error"]["code"], said["error"]["param"]) == (code, param)
            assert said["error"]["message"]
        await client.send(*pieces(SPEECH))
        await client.until(COMPLETED, 2)


async def test_unknown_model_is_refused_and_known_ones_open_a_transcription_session(
    server: Server,
) -> None:
    async with connected(server, "?model=gpt-9") as client:
        assert (await client.next())["error"]["code"] == "model_not_found"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.next()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "model_not_found")
    query = "?model=gpt-realtime&intent=transcription"
    async with connected(server, query) as client:
        assert (await client.next())["type"] == "session.created"
    async with connected(server, "?model=gpt-4o-transcribe") as client:
        heard = (await client.next())["session"]["audio"]["input"]
        assert heard["transcription"] == {"model": "gpt-4o-transcribe"}


async def test_beta_clients_are_answered_in_the_beta_protocol(server: Server) -> None:
    beta = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
    }
    headers = {"OpenAI-Beta": "realtime=v1"}
    async with connected(server, additional_headers=headers) as client:
        assert (await client.next())["type"] == "transcription_session.created"
        await client.send({"type": "transcription_session.update", "session": beta})
        updated = await client.next()
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["input_audio_format"] == "g711_ulaw"
        await client.send(appended(b"\x90" * 4000 + b"\xff" * 8000))
        events = await client.until(COMPLETED)
    assert "conversation.item.created" in [event["type"] for event in events]
    assert len(events[-1]["transcript"].split()) == 2


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a token and one place for who speaks."""
    with Server(tmp_path_factory.mktemp("strict"), token=TOKEN, live_sessions=1) as running:
        running.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield running


async def admitted(server: Server, full: bool = False, **options: Any) -> dict[str, Any]:
    """The first event that a connection sees, and its close code if it is an error, or the status
    that refuses it. Unless it is ``full``, whoever was there before may be on the way out."""
    while True:
        try:
            async with connected(server, **options) as client:
                first = await client.next()
                if first["type"] != "error":
                    return first
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await client.next()
            assert closed.value.rcvd is not None
            found = {"code": first["error"]["code"], "closed": closed.value.rcvd.code}
        except websockets.InvalidStatus as refused:
            answer = refused.response
            code = json.loads(answer.body)["error"]["code"]
            found = {"code": code, "status": answer.status_code}
        if full or found["code"] != "live_full":
            return found


async def test_key_is_read_from_header_or_subprotocol_and_pages_are_refused_by_close_codes(
    strict: Server,
) -> None:
    header = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
    assert (await admitted(strict, **header))["type"] == "session.created"
    offered = ["realtime", f"openai-insecure-api-key.{TOKEN}"]
    async with connected(strict, subprotocols=offered) as client:
        assert client.connection.subprotocol == "realtime"
        assert (await client.next())["type"] == "session.created"
        page = {"origin": f"http://127.0.0.1:{strict.port}"}
        full = await admitted(strict, full=True, **header)
        assert full == {"code": "live_full", "status": 503}
        full = await admitted(strict, full=True, **header, **page)
        assert full == {"code": "live_full", "closed": 1013}
    wrong = ["realtime", "openai-insecure-api-key.wrong"]
    refused = {"code": "token_invalid"}
    assert await admitted(strict, subprotocols=wrong) == {**refused, "status": 401}
    assert await admitted(strict, subprotocols=wrong, **page) == {**refused, "closed": 3000}
    assert (await admitted(strict, subprotocols=["realtime"]))["status"] == 401
    assert (await admitted(strict, subprotocols=["realtime"], **page))["closed"] == 3000


async def test_client_secret_opens_one_connection_whose_agreed_session_type_cannot_change(
    strict: Server,
) -> None:
    base = f"http://127.0.0.1:{strict.port}/v1"
    async with AsyncOpenAI(base_url=base, api_key=TOKEN) as client:
        given = await client.realtime.client_secrets.create(session=NULL_VAD)  # type: ignore[arg-type]
        ClientSecretCreateResponse.model_validate(given.model_dump(), strict=True)
    offered = ["realtime", f"openai-insecure-api-key.{given.value}"]
    first = await admitted(strict, subprotocols=offered)
    assert first["session"]["audio"]["input"]["turn_detection"] is None
    again = await admitted(strict, subprotocols=offered)
    assert again == {"code": "token_invalid", "status": 401}
    beta = strict.client.post(
        "/v1/realtime/transcription_sessions", json={"input_audio_format": "g711_alaw"}
    ).json()
    key = {"Authorization": f"Bearer {beta['client_secret']['value']}"}
    agreed = await admitted(strict, additional_headers=key)
    assert agreed["session"]["audio"]["input"]["format"] == {"type": "audio/pcma"}
    given = strict.client.post(
        "/v1/realtime/client_secrets", json={"session": {"type": "transcription"}}
    )
    key = {"Authorization": f"Bearer {given.json()['value']}"}
    async with connected(strict, "?model=gpt-realtime", additional_headers=key) as one:
        assert (await one.next())["session"]["type"] == "transcription"
        await one.send({"type": "session.update", "session": {"type": "realtime"}})
        assert (await one.next())["error"]["param"] == "session.type"
    wrong = strict.client.post("/v1/realtime/client_secrets", json={"session": {"type": "x"}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "session.type")


async def test_unknown_session_field_is_a_warning_with_the_nearest_field(server: Server) -> None:
    """Clients send fields of models that are not here, so none is refused."""
    wrong = {"type": "transcription", "audio": {"input": {"transcription": {"langauge": "de"}}}}
    meant = "There is no field 'langauge'; it has no effect. Did you mean 'language'?"
    async with connected(server) as client:
        await client.send({"type": "session.update", "session": wrong})
        await client.until("session.updated")
    wait_until(lambda: meant in server.log(), "it is logged")
    given = server.client.post("/v1/realtime/client_secrets", json={"session": wrong})
    assert meant in given.headers["warning"]
    whole = {
        "type": "transcription",
        "audio": {"input": {"noise_reduction": {"type": "far_field"}}},
    }
    given = server.client.post("/v1/realtime/client_secrets", json={"session": whole})
    assert "warning" not in given.headers


async def test_unknown_query_parameter_is_a_logged_warning_with_the_nearest_one(
    server: Server,
) -> None:
    async with connected(server, "?intnet=transcription&api_key=x"):
        pass
    meant = "There is no field 'intnet'; it has no effect. Did you mean 'intent'?"
    wait_until(lambda: meant in server.log(), "it is logged")
    assert "'api_key'; it has no effect" not in server.log()


async def test_cleared_audio_is_not_transcribed_and_committed_audio_is(strict: Server) -> None:
    key = {"Authorization": f"Bearer {TOKEN}"}
    await admitted(strict, additional_headers=key)
    async with connected(strict, additional_headers=key) as client:
        await client.send({"type": "session.update", "session": NULL_VAD})
        await client.send(appended(sound(0.1, 1)), {"type": "input_audio_buffer.commit"})
        await client.send(appended(sound(0.2, 1)), {"type": "input_audio_buffer.clear"})
        await client.send(appended(sound(0.3, 1)), {"type": "input_audio_buffer.commit"})
        events = await client.until(COMPLETED, 2)
    texts = [event["transcript"] for event in events if event["type"] == COMPLETED]
    assert [loudest(text) for text in texts] == [1, 3]
    names = [event["type"] for event in events]
    assert names.index(COMPLETED) < names.index("input_audio_buffer.cleared")
