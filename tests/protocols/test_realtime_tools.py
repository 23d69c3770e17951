"""Tools in a conversation over OpenAI's Realtime API, by its own package for Python, against a real
service and a model that calls them: what is told, what comes back, and what does not count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llm_server import Obedient, obedient
from service_process import Server
from test_realtime_dialogue import ALOUD, ITEM, READ, Caller, calling, sound

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


@pytest.fixture(scope="module")
def mind() -> Iterator[Obedient]:
    with obedient() as one:
        yield one


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory, mind: Obedient) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("thoughtful")
    with Server(home, voice_engine="scripted", conversations=9, llm=mind.url) as one:
        yield one


async def returned(caller: Caller, call: str, output: str) -> None:
    item = {"type": "function_call_output", "call_id": call, "output": output}
    await caller.send("conversation.item.create", item=item)
    done = await caller.until("conversation.item.done")
    assert done["item"]["output"] == output
    assert done["item"]["call_id"] == call


async def test_a_tool_is_called_as_it_is_written_and_what_came_of_it_is_answered(
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
        await caller.send("response.create")
        done = (await caller.until("response.done"))["response"]
        assert caller.kinds()[-len(ALOUD) :] == ALOUD
        assert done["output"][0]["content"][0]["transcript"] == "Good morning, Ada."
        assert [one["role"] for one in mind.replies[-1]["messages"]][-3:] == [
            *("user", "assistant", "tool")
        ]
        assert mind.replies[-1]["messages"][-1]["tool_call_id"] == "call_a"
        await caller.send("conversation.item.delete", item_id=item["id"])
        await caller.until("conversation.item.deleted")
        await caller.answered("And plain", tool_choice="none")
        assert not any("tool_calls" in one for one in mind.replies[-1]["messages"])
        assert mind.replies[-1]["tool_choice"] == "none"


async def test_an_answer_may_say_something_and_call_several(
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
        await caller.send("response.create")
        await caller.until("response.done")
        told = mind.replies[-1]["messages"][-3:]
        assert [one["id"] for one in told[0]["tool_calls"]] == ["call_b", "call_a"]
        assert told[0]["content"].startswith("One moment."), "said, as far as it was heard"
        assert [one["content"] for one in told[1:]] == ["noon", "rain"]
        assert "tools" not in mind.replies[-1], "those were of one answer"


async def test_who_speaks_while_a_call_is_written_ends_it_and_nobody_carries_it_out(
    thoughtful: Server,
) -> None:
    async with calling(thoughtful) as caller:
        await caller.update(tools=[WEATHER], output_modalities=["text"])
        await caller.say("It dangles")
        await caller.send("response.create")
        await caller.until(f"{ARGUMENTS}.delta")
        await caller.speak(sound(0.3, 1.0) + sound(0, 0.8))
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


async def test_tools_that_mean_nothing_are_refused_by_the_name_of_the_field(
    thoughtful: Server,
) -> None:
    named = {"type": "function", "name": "clock"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tools": 7}, "session.tools"),
        ({"tools": [{**WEATHER, "type": "mcp"}]}, "session.tools"),
        ({"tools": [{**WEATHER, "name": "a b"}]}, "session.tools"),
        ({"tools": [WEATHER, WEATHER]}, "session.tools"),
        ({"tools": [{**WEATHER, "parameters": "x"}]}, "session.tools.parameters"),
        ({"tools": [{**WEATHER, "description": "x" * 70_000}]}, "session.tools"),
        ({"tools": [WEATHER], "tool_choice": named}, "session.tool_choice"),
        ({"tool_choice": "sometimes"}, "session.tool_choice"),
    ]
    output = {"type": "function_call_output", "call_id": "call_a", "output": "x"}
    items: list[tuple[dict[str, Any], str, str]] = [
        ({**output, "output": None}, "field_missing", "item.output"),
        ({**output, "output": 7}, "field_invalid", "item.output"),
        ({**output, "output": "x" * 40_000}, "field_invalid", "item.output"),
        ({**output, "call_id": None}, "field_missing", "item.call_id"),
        ({**output}, "call_unknown", "item.call_id"),
    ]
    async with calling(thoughtful) as caller:
        for session, param in wrong:
            asked = {"type": "realtime", **session}
            found = await caller.refused("session.update", session=asked)
            assert found == ("field_invalid", param), session
        for item, code, param in items:
            found = await caller.refused("conversation.item.create", item=item)
            assert found == (code, param), item
        chosen = await caller.update(tools=[WEATHER, CLOCK], tool_choice=named)
        assert chosen["tool_choice"] == named
        assert (await caller.update(tools=[WEATHER]))["tool_choice"] == "auto"
        assert (await caller.update(tools=[]))["tools"] == []


async def test_who_only_repeats_says_that_it_calls_no_tools(thoughtful: Server) -> None:
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
