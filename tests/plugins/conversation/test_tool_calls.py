"""Calls of tools in a conversation's machine: what is told of them, when they count, and what a
model is told of what came of them."""

import pytest
from conversation_simulator import Table

from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.assistant_turn import APOLOGY
from sidecar.plugins.conversation.chat_completions import (
    MAX_ARGUMENT_CHARACTERS,
    MAX_TOOL_CALLS,
    ChatMessage,
    ChatRole,
    ToolCall,
    ToolCallDelta,
    ToolDefinition,
    ToolSet,
)
from sidecar.plugins.conversation.errors import CallUnknown, LlmGarbled

TOOLS = ToolSet((ToolDefinition("weather"), ToolDefinition("clock")))
OSLO = ToolCall("call_a", "weather", '{"city":"Oslo"}')


class ToolTable(Table):
    """A machine whose client has tools."""

    def __init__(self, options: events.ConversationOptions | None = None) -> None:
        super().__init__(options or events.ConversationOptions(tools=TOOLS))

    def calls(self, *fragments: ToolCallDelta, ended: bool = True) -> None:
        turn = self.talk.turn
        for one in fragments:
            self.take(events.LlmToolCallDelta(self.now, turn, one))
        if ended:
            self.take(events.StageEnded(self.now, turn, events.ConversationStage.LLM))

    def asks_for(self, call: ToolCall = OSLO, index: int = 0) -> None:
        self.calls(*written(call, index))

    def returns(self, output: str, call: str = OSLO.id) -> None:
        self.take(events.ToolResultAdded(self.now, call, output, f"item of {call}"))

    def answered(self) -> tuple[ChatMessage, ...]:
        """What the LLM is given when the client asks for an answer."""
        self.asks()
        return self.asked


@pytest.fixture
def table() -> ToolTable:
    """Somebody wants to know whether it rains."""
    table = ToolTable()
    table.types("Does it rain in Oslo?")
    return table


def written(call: ToolCall, index: int = 0) -> list[ToolCallDelta]:
    """As models write one."""
    cut = len(call.arguments) // 2
    begun = ToolCallDelta(index, call.id, call.name)
    return [begun, *(ToolCallDelta(index, arguments=part) for part in
                     (call.arguments[:cut], call.arguments[cut:]))]  # fmt: skip


def test_tool_call_is_sent_in_pieces_and_its_output_is_answered_on_request(
    table: ToolTable,
) -> None:
    assert table.of(events.GenerateReply)[0].tools == TOOLS
    table.asks_for()
    assert table.told(events.ToolCallStarted) == [events.ToolCallStarted(1, "call_a", "weather")]
    assert "".join(one.text for one in table.told(events.ToolCallArgumentsDelta)) == OSLO.arguments
    assert [one.call for one in table.told(events.ToolCallEnded)] == [OSLO]
    assert table.endings == [events.ReplyEnding.COMPLETED]
    assert table.told(events.ConversationError) == []
    table.returns("rain")
    assert table.told(events.HistoryEntryRecorded)[-1].name == "item of call_a"
    assert len(table.of(events.GenerateReply)) == 1, "an answer is asked for"
    assert table.answered() == (
        ChatMessage(ChatRole.USER, "Does it rain in Oslo?"),
        ChatMessage(ChatRole.ASSISTANT, "", (OSLO,)),
        ChatMessage(ChatRole.TOOL, "rain", call="call_a"),
    )
    table.thinks("It rains.")
    table.voices()
    table.plays(99)
    table.types("And now?")
    assert [one.role for one in table.asked] == [
        *(ChatRole.USER, ChatRole.ASSISTANT, ChatRole.TOOL, ChatRole.ASSISTANT, ChatRole.USER)
    ]


def test_interleaved_tool_calls_are_sent_in_order_and_the_llm_gets_those_with_an_output() -> None:
    clock = ToolCall("call_b", "clock", "{}")
    table = ToolTable()
    table.types("What is going on in Oslo?")
    table.take(events.LlmToken(table.now, 1, "One moment. "))
    a, b = written(OSLO), written(clock, 1)
    table.calls(a[0], b[0], a[1], b[1], b[2], a[2])
    table.voices()
    table.plays(99)
    assert [one.call for one in table.told(events.ToolCallEnded)] == [OSLO, clock]
    table.returns("noon", "call_b")
    assert table.answered()[1:] == (
        ChatMessage(ChatRole.ASSISTANT, "One moment.", (clock,)),
        ChatMessage(ChatRole.TOOL, "noon", call="call_b"),
    ), "nobody is told of a call of which nothing came yet"
    table.cancels()
    table.returns("rain")
    assert table.answered()[1:] == (
        ChatMessage(ChatRole.ASSISTANT, "One moment.", (clock, OSLO)),
        ChatMessage(ChatRole.TOOL, "noon", call="call_b"),
        ChatMessage(ChatRole.TOOL, "rain", call="call_a"),
    )


def test_tool_call_of_a_speculative_reply_is_dropped_unsent_if_the_user_goes_on() -> None:
    table = ToolTable()
    table.starts()
    table.until(1.0)
    table.ends("Does it rain in")
    table.asks_for()
    assert table.told(events.ToolCallStarted) == []
    assert not table.talk.history.knows("call_a")
    table.goes_on()
    table.until(1.6)
    table.ends("Does it rain in Oslo?")
    table.until(3.5)
    assert table.told(events.ReplyStarted) != []
    assert table.told(events.ToolCallStarted) == [], "it was thought of for another turn"
    table.asks_for()
    assert len(table.told(events.ToolCallEnded)) == 1


def test_interrupted_tool_call_is_dropped_and_its_output_is_an_error(table: ToolTable) -> None:
    table.calls(*written(OSLO)[:2], ended=False)
    table.types("Never mind.")
    assert table.endings == [events.ReplyEnding.INTERRUPTED]
    table.take(events.LlmToolCallDelta(table.now, 1, written(OSLO)[2]))  # it has not noticed yet
    table.take(events.StageEnded(table.now, 1, events.ConversationStage.LLM))
    assert table.told(events.ToolCallEnded) == []
    table.returns("rain")
    assert table.errors == [CallUnknown]
    assert [one.role for one in table.asked] == [ChatRole.USER]


def test_speech_before_a_tool_output_is_answered_first_and_a_second_output_is_an_error(
    table: ToolTable,
) -> None:
    table.asks_for()
    table.says("Are you there?")
    table.replies("I am.")
    table.plays(99)
    table.returns("rain")
    roles = [(one.role, one.text) for one in table.answered()]
    assert roles[-2:] == [(ChatRole.ASSISTANT, "I am."), (ChatRole.TOOL, "rain")]
    table.returns("snow")
    assert table.errors == [CallUnknown], "once is enough"


@pytest.mark.parametrize(
    "fragments",
    [
        [ToolCallDelta(0, "call_a", "weather", '{"city":')],
        [ToolCallDelta(0, "call_a", "weather", "7")],
        [ToolCallDelta(0, "call_a", "")],
        [ToolCallDelta(at, "", "weather", "{}") for at in range(MAX_TOOL_CALLS + 1)],
        [ToolCallDelta(0, "call_a", "weather", '"' + "x" * MAX_ARGUMENT_CHARACTERS)],
    ],
    ids=["cut", "no object", "no name", "too many", "no end"],
)
def test_invalid_tool_calls_are_an_error_and_an_apology_is_spoken(
    fragments: list[ToolCallDelta], table: ToolTable
) -> None:
    table.calls(*fragments)
    assert table.errors == [LlmGarbled]
    assert table.told(events.ToolCallEnded) == []
    assert table.spoken == [APOLOGY]
    assert not table.talk.history.awaits("call_a")


def test_llm_failure_within_a_tool_call_makes_no_call_and_the_reply_fails(table: ToolTable) -> None:
    table.calls(*written(OSLO), ended=False)
    table.take(events.StageFailed(table.now, 1, events.ConversationStage.LLM, LlmGarbled()))
    assert table.told(events.ToolCallEnded) == []
    table.voices()
    table.plays(99)
    assert table.endings == [events.ReplyEnding.FAILED]
    assert events.StopStage(1, events.ConversationStage.LLM) in table.all


def test_tool_call_ids_are_unique_whatever_the_llm_server_sends() -> None:
    table = ToolTable()
    for _ in range(2):
        table.types("Does it rain in Oslo?")
        table.calls(
            *(ToolCallDelta(at, number, "clock") for at, number in enumerate(["0", "0", ""]))
        )
    ids = [one.call.id for one in table.told(events.ToolCallEnded)]
    assert ids[0] == "0", "the server's own, where it can be"
    assert len(set(ids)) == len(ids) == 6
    assert {one.call.arguments for one in table.told(events.ToolCallEnded)} == {"{}"}, (
        "nothing is nothing"
    )


def test_deleted_tool_call_takes_its_output_along_and_that_of_a_dropped_one_is_an_error() -> None:
    table = ToolTable(events.ConversationOptions(tools=TOOLS, most_messages=4))
    table.types("Does it rain in Oslo?")
    table.asks_for()
    table.returns("rain")
    table.take(events.HistoryEntryDeleted(table.now, table.told(events.ToolCallEnded)[0].entry))
    assert [one.role for one in table.answered()] == [ChatRole.USER]
    table.cancels()
    table.answered()
    table.asks_for()
    for text in ("One.", "Two.", "Three.", "Four."):
        table.types(text)
    table.returns("rain")
    assert table.errors == [CallUnknown], "it is long gone"
