"""What a client puts into a conversation over OpenAI's Realtime API, as the packages of others do:
in bursts, at any place, with calls that went before, and with null where nothing is meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llm_server import Obedient, obedient
from service_process import Server
from test_realtime_dialogue import Caller, calling
from test_realtime_tools import WEATHER
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ITEMS_KEPT = 40


@pytest.fixture(scope="module")
def mind() -> Iterator[Obedient]:
    with obedient() as one:
        yield one


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory, mind: Obedient) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("thoughtful")
    with Server(home, voice_engine="scripted", conversations=9, llm=mind.url) as one:
        yield one


def message(name: str, text: str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    part = {"type": kind, "text": text}
    return {"id": name, "type": "message", "role": role, "content": [part]}


async def put(caller: Caller, item: dict[str, Any], after: str | None = None) -> None:
    await caller.send("conversation.item.create", item=item, previous_item_id=after)


async def stands(caller: Caller, count: int) -> list[tuple[str | None, str]]:
    """The next items that are told to stand there, each behind which."""
    done = [await caller.until("conversation.item.done") for _ in range(count)]
    return [(one["previous_item_id"], one["item"]["id"]) for one in done]


async def told(caller: Caller, mind: Obedient) -> list[tuple[str, str | None]]:
    """What the model is told when it is to answer now, without the session's instructions."""
    await caller.send("response.create", response={"output_modalities": ["text"]})
    await caller.until("response.done")
    messages = mind.replies[-1]["messages"]
    return [(one["role"], one["content"]) for one in messages if one["role"] != "system"]


async def test_an_item_stands_where_its_client_says_that_it_does(
    thoughtful: Server, mind: Obedient
) -> None:
    async with calling(thoughtful) as caller:
        await put(caller, message("b", "second", "assistant"))
        await put(caller, message("a", "first"), "root")
        await put(caller, message("d", "third plain"))
        await put(caller, message("c", "between"), "b")
        places = await stands(caller, 4)
        assert places == [(None, "b"), (None, "a"), ("b", "d"), ("b", "c")]
        unknown = {"item": message("e", "x"), "previous_item_id": "nobody"}
        refused = await caller.refused("conversation.item.create", **unknown)
        assert refused == ("item_unknown", "item_id")
        assert await told(caller, mind) == [
            ("user", "first"),
            ("assistant", "second"),
            ("user", "between third plain"),
        ]


async def test_items_are_sent_in_a_burst_and_name_those_before_them(
    thoughtful: Server, mind: Obedient
) -> None:
    async with calling(thoughtful) as caller:
        await caller.until("conversation.created")
        names = [f"item_{number}" for number in range(10)]
        for before, name in zip(["root", *names], names, strict=False):
            await put(caller, message(name, f"{name} plain"), before)
        await caller.send("conversation.item.delete", item_id=names[-1])
        await caller.send("conversation.item.retrieve", item_id=names[-2])
        places = await stands(caller, 10)
        assert places == list(zip([None, *names[:-1]], names, strict=True))
        assert (await caller.until("conversation.item.deleted"))["item_id"] == names[-1]
        assert (await caller.until("conversation.item.retrieved"))["item"]["id"] == names[-2]
        said = await told(caller, mind)
        assert said == [("user", " ".join(f"{name} plain" for name in names[:-1]))]


async def test_a_new_item_is_never_the_one_that_has_no_room(
    thoughtful: Server, mind: Obedient
) -> None:
    async with calling(thoughtful) as caller:
        for number in range(ITEMS_KEPT):
            await put(caller, message(f"item_{number}", f"{number} plain"))
        await put(caller, message("first", "first of all"), "root")
        assert (await stands(caller, ITEMS_KEPT + 1))[-1] == (None, "first")
        ((_, said),) = await told(caller, mind)
        assert said is not None
        assert said.startswith("first of all")
        taken = await caller.refused("conversation.item.create", item=message("root", "x"))
        assert taken == ("field_invalid", "item.id")


async def test_a_call_of_a_conversation_that_went_before_is_history(
    thoughtful: Server, mind: Obedient
) -> None:
    call = {"type": "function_call", "call_id": "call_9", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_9", "output": "rain"}
    async with calling(thoughtful) as caller:
        await caller.update(tools=[WEATHER])
        await put(caller, message("a", "How is it?"), "root")
        await put(caller, {**call, "id": "b"}, "a")
        await put(caller, {**output, "id": "c"}, "b")
        await put(caller, message("d", "It rains.", "assistant"), "c")
        await put(caller, message("e", "And plain"), "d")
        assert await stands(caller, 5) == list(zip([None, *"abcd"], "abcde", strict=True))
        items = [one["item"] for one in caller.events if one["type"] == "conversation.item.done"]
        assert items[1] == {"id": "b", "object": "realtime.item", "status": "completed", **call}
        taken = await caller.refused("conversation.item.create", item={**call, "id": "f"})
        assert taken == ("field_invalid", "item.call_id")
        lacking = {"type": "function_call", "call_id": "call_8", "arguments": "{}"}
        refused = await caller.refused("conversation.item.create", item=lacking)
        assert refused == ("field_missing", "item.name")
        assert await told(caller, mind) == [
            ("user", "How is it?"),
            ("assistant", None),
            ("tool", "rain"),
            ("assistant", "It rains."),
            ("user", "And plain"),
        ]
        called = mind.replies[-1]["messages"][-4]["tool_calls"][0]
        assert (called["id"], called["function"]["name"]) == ("call_9", "weather")


async def test_null_is_what_is_not_said(thoughtful: Server, mind: Obedient) -> None:
    async with calling(thoughtful) as caller:
        heard = {"language": "en", "prompt": "Ada", "model": "gpt-4o-transcribe"}
        audio = {"input": {"transcription": heard}}
        said = {"instructions": "Be brief.", "tools": [WEATHER], "audio": audio}
        before = await caller.update(**said)
        null = {
            "type": None,
            "instructions": None,
            "tools": None,
            "tool_choice": None,
            "output_modalities": None,
            "audio": {"input": {"transcription": dict.fromkeys(heard)}, "output": None},
        }
        await caller.send("session.update", session=null)
        assert (await caller.until("session.updated"))["session"] == before
        nothing = {"instructions": None, "metadata": None, "tools": None, "conversation": None}
        await put(caller, {**message("a", "plain"), "status": None}, None)
        await caller.send("response.create", response=nothing, event_id=None)
        await caller.until("response.done")
        assert mind.replies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_null_is_what_is_not_said_of_a_transcription(thoughtful: Server) -> None:
    async with calling(thoughtful, model="", intent="transcription") as caller:
        heard = {"language": "en", "prompt": "Ada", "model": "gpt-4o-transcribe"}
        for given in (heard, dict.fromkeys(heard)):
            audio = {"input": {"transcription": given, "format": None}}
            kind = "transcription" if given is heard else None
            await caller.send("session.update", session={"type": kind, "audio": audio})
            session = (await caller.until("session.updated"))["session"]
            assert session["audio"]["input"]["transcription"] == heard


async def test_what_asks_for_nothing_is_told_by_its_name(thoughtful: Server) -> None:
    async with calling(thoughtful) as caller:
        await caller.update(instructions="")
        for name in ("first", "second"):
            await caller.send("response.create", event_id=name)
        found = []
        while len(found) < 2:
            if (event := await caller.next())["type"] == "error":
                found.append((event["error"]["code"], event["error"]["event_id"]))
                assert "neither items nor instructions" in event["error"]["message"]
        assert found == [("reply_empty", "first"), ("reply_empty", "second")]


async def test_a_cancel_that_is_late_is_said_in_the_words_that_clients_look_for(
    thoughtful: Server,
) -> None:
    """LiveKit and OpenAI's agents go by the beginning of the message or by the code."""
    async with calling(thoughtful) as caller:
        await caller.send("response.cancel")
        while (event := await caller.next())["type"] != "error":
            pass
        assert event["error"]["code"] == "response_cancel_not_active"
        assert event["error"]["message"].startswith("Cancellation failed")


async def test_the_beta_s_names_are_refused_by_those_of_today(thoughtful: Server) -> None:
    wrong: list[tuple[str, dict[str, Any], str, str]] = [
        ("session", {"modalities": ["text", "audio"]}, "modalities", "session.output_modalities"),
        ("session", {"voice": "alloy"}, "voice", "session.audio.output.voice"),
        ("session", {"turn_detection": {}}, "turn_detection", "session.audio.input.turn_detection"),
        ("response", {"modalities": ["text"]}, "modalities", "response.output_modalities"),
    ]
    events = {"session": "session.update", "response": "response.create"}
    async with calling(thoughtful) as caller:
        for kind, fields, param, name in wrong:
            await caller.send(events[kind], **{kind: fields})
            while (event := await caller.next())["type"] != "error":
                pass
            error = event["error"]
            assert (error["code"], error["param"]) == ("field_invalid", f"{kind}.{param}")
            assert f"'{name}'" in error["message"]
        assert (await caller.update(modalities=None))["output_modalities"] == ["audio"]


async def test_no_conversation_is_held_in_the_beta_s_words(thoughtful: Server) -> None:
    url = f"ws://127.0.0.1:{thoughtful.port}/v1/realtime?model=gpt-realtime"
    for way in (
        {"additional_headers": {"OpenAI-Beta": "realtime=v1"}},
        {"subprotocols": ["realtime", "openai-beta.realtime-v1"]},
    ):
        async with connect(url, **way) as connection:  # type: ignore[arg-type]
            error = json.loads(await connection.recv())["error"]
            assert error["code"] == "field_invalid"
            assert "response.output_audio.delta" in error["message"]
            with pytest.raises(ConnectionClosed):
                await connection.recv()
