"""Items and tools in a conversation over OpenAI's Realtime API, by its own package for Python,
against a real service and a model that calls them: items in bursts, at any place, with calls that
went before, and with null where nothing is meant."""

import json
from typing import Any

import pytest
from llm_server import Obedient
from module_services import mind as mind
from module_services import thoughtful as thoughtful
from service_process import Server
from test_realtime_dialogue import ALOUD, ITEM, READ, Caller, calling, sound
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "How it is outside.",
    "parameters": CITY,
}
CLOCK = {"type": "function", "name": "clock", "description": "", "parameters": None}
ARGUMENTS = "response.function_call_arguments"
CALLED = ["response.output_item.added", "conversation.item.added"]
MADE = [f"{ARGUMENTS}.done", "conversation.item.done", "response.output_item.done"]


async def returned(caller: Caller, call: str, output: str) -> None:
    item = {"type": "function_call_output", "call_id": call, "output": output}
    await caller.send("conversation.item.create", item=item)
    done = await caller.until("conversation.item.done")
    assert done["item"]["output"] == output
    assert done["item"]["call_id"] == call


async def test_tool_call_is_streamed_and_its_output_is_answered_on_request(
    thoughtful: Server, mind: Obedient
) -> None:
    async with calling(thoughtful) as caller:
        session = await caller.update(tools=[WEATHER, CLOCK], tool_choice="required")
        assert (session["tools"], session["tool_choice"]) == ([WEATHER, CLOCK], "required")
        done = await caller.answered("It asks")
        assert caller.kinds()[3:] == [*ITEM, "response.created", *CALLED, *MADE, "response.done"]
        (item,) = done["output"]
        assert item["type"] == "function_call"
        assert (item["name"], item["call_id"]) == ("weather", "call_a")
        assert json.loads(item["arguments"]) == {"city": "Oslo"}
        assert caller.joined(f"{ARGUMENTS}.delta") == item["arguments"]
        asked = mind.replies[-1]
        assert [one["function"]["name"] for one in asked["tools"]] == ["weather", "clock"]
        assert asked["tools"][0]["function"]["parameters"] == CITY
        assert asked["tool_choice"] == "required"
        await returned(caller, "call_a", "rain")
        assert mind.replies[-1] is asked, "an answer is asked for"
        done = await caller.response()
        assert caller.kinds()[-len(ALOUD) :] == ALOUD
        assert done["output"][0]["content"][0]["transcript"] == "Good morning, Ada."
        assert [one["role"] for one in mind.replies[-1]["messages"]][-3:] == [
            *("user", "assistant", "tool")
        ]
        assert mind.replies[-1]["messages"][-1]["tool_call_id"] == "call_a"
        await caller.delete(item["id"])
        await caller.answered("And plain", tool_choice="none")
        assert not any("tool_calls" in one for one in mind.replies[-1]["messages"])
        assert mind.replies[-1]["tool_choice"] == "none"


async def test_response_can_have_text_and_several_tool_calls(
    thoughtful: Server, mind: Obedient
) -> None:
    async with calling(thoughtful) as caller:
        done = await caller.answered("It calls", tools=[WEATHER, CLOCK])
        said, weather, clock = done["output"]
        assert said["content"][0]["transcript"] == "One moment. "
        assert [one["name"] for one in (weather, clock)] == ["weather", "clock"]
        places = {one["item_id"]: one["output_index"] for one in caller.events
                  if one["type"].startswith((ARGUMENTS, "response.output_audio"))}  # fmt: skip
        assert places == {said["id"]: 0, weather["id"]: 1, clock["id"]: 2}
        assert await caller.retrieved(said["id"]) == "One moment. "
        for call, output in (("call_b", "noon"), ("call_a", "rain")):
            await returned(caller, call, output)
        await caller.response()
        told = mind.replies[-1]["messages"][-3:]
        assert [one["id"] for one in told[0]["tool_calls"]] == ["call_b", "call_a"]
        assert told[0]["content"].startswith("One moment."), "said, as far as it was heard"
        assert [one["content"] for one in told[1:]] == ["noon", "rain"]
        assert "tools" not in mind.replies[-1], "those were of one answer"


async def test_tool_call_is_cancelled_by_speech_and_its_output_or_a_second_one_is_refused(
    thoughtful: Server,
) -> None:
    async with calling(thoughtful) as caller:
        await caller.update(tools=[WEATHER], output_modalities=["text"])
        await caller.say("It dangles")
        await caller.send("response.create")
        await caller.until(f"{ARGUMENTS}.delta")
        await caller.speak(sound(0.3, 1.0) + sound(0, 0.8), pace=False)
        done = (await caller.until("response.done"))["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        (item,) = done["output"]
        assert (item["type"], item["status"]) == ("function_call", "incomplete")
        assert f"{ARGUMENTS}.done" not in caller.kinds()
        await caller.until("response.done")
        assert caller.kinds()[-len(READ) :] == READ, "what was said is answered"
        late = {"type": "function_call_output", "call_id": "call_a", "output": "rain"}
        unknown = ("call_unknown", "item.call_id")
        assert await caller.refused("conversation.item.create", item=late) == unknown
        done = await caller.answered("It asks")
        await returned(caller, done["output"][0]["call_id"], "rain")
        late["call_id"] = done["output"][0]["call_id"]
        assert await caller.refused("conversation.item.create", item=late) == unknown


async def test_tools_for_the_repeat_model_are_refused(thoughtful: Server) -> None:
    refused = ("tools_unavailable", "tools")
    async with calling(thoughtful, model="repeat") as caller:
        session = {"type": "realtime", "tools": [WEATHER]}
        assert await caller.refused("session.update", session=session) == refused
        wish = {"tools": [WEATHER]}
        assert await caller.refused("response.create", response=wish) == refused
        assert (await caller.update(tools=[], tool_choice="auto"))["tools"] == []
        assert (await caller.answered("Hello."))["status"] == "completed"
    agreed = {"session": {"type": "realtime", "model": "repeat", "tools": [WEATHER]}}
    answer = thoughtful.client.post("/v1/realtime/client_secrets", json=agreed)
    assert answer.json()["error"]["code"] == "tools_unavailable"


ITEMS_KEPT = 40


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
    await caller.response(output_modalities=["text"])
    messages = mind.replies[-1]["messages"]
    return [(one["role"], one["content"]) for one in messages if one["role"] != "system"]


async def test_item_is_inserted_after_the_named_one_and_an_unknown_one_is_refused(
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


async def test_item_in_a_burst_may_name_the_item_sent_just_before_it_as_its_place(
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


async def test_full_history_keeps_an_item_inserted_at_its_start_and_id_root_is_refused(
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


async def test_tool_call_of_an_earlier_conversation_can_be_added_once_and_reaches_the_llm(
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


async def test_response_without_items_and_instructions_is_an_error_with_its_event_id(
    thoughtful: Server,
) -> None:
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


async def test_null_fields_of_a_response_are_those_of_the_session(
    thoughtful: Server, mind: Obedient
) -> None:
    nothing = {"instructions": None, "metadata": None, "tools": None, "conversation": None}
    async with calling(thoughtful) as caller:
        await caller.update(instructions="Be brief.")
        await put(caller, {**message("a", "plain"), "status": None})
        await caller.send("response.create", response=nothing, event_id=None)
        await caller.until("response.done")
        assert mind.replies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_conversation_in_the_beta_protocol_is_refused(thoughtful: Server) -> None:
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
