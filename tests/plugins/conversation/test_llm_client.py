"""Who answers in a conversation: over a real socket, by a server that does all that servers do."""

import asyncio
import functools
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from llm_server import SAID, WORDS, Completions, completions
from service_process import PATIENCE_S, new_file
from virtual_time import virtual_time

from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.plugins import settings_class
from sidecar.plugins.conversation import chat_completions, conversation_registry, llm_client
from sidecar.plugins.conversation.chat_completions import (
    ChatMessage,
    ChatRole,
    Llm,
    LlmDelta,
    RepeatLlm,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    ToolSet,
)
from sidecar.plugins.conversation.checks import check_llm
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.conversation.errors import (
    LlmError,
    LlmFailed,
    LlmGarbled,
    LlmRefused,
    LlmTimeout,
    LlmUnreachable,
    ToolsUnavailable,
)
from sidecar.plugins.conversation.llm_client import LlmAddress, LlmClient, choose_llm, create_llm
from sidecar.service.system_checks import CheckState

Settings = settings_class()

ANSWER = "".join(WORDS)
CUT_THOUGHT = b'{"choices": [{"delta": {"content": "They greet"}, "finish_reason": "length"}]}'
NOBODY = "http://127.0.0.1:1"
ASKED = (
    ChatMessage(ChatRole.SYSTEM, "Be brief."),
    ChatMessage(ChatRole.USER, "Good morning."),
    ChatMessage(ChatRole.ASSISTANT, "Good …"),
    ChatMessage(ChatRole.USER, "It is Ada."),
)


@pytest.fixture
async def server() -> AsyncIterator[Completions]:
    async with completions("plain", "other") as one:
        yield one


@asynccontextmanager
async def client(server: Completions, model: str = "", **more: Any) -> AsyncIterator[LlmClient]:
    """Who asks a model of the server."""
    llm = LlmClient(LlmAddress(server.url, model, **more))
    try:
        yield llm
    finally:
        await llm.close()


@pytest.fixture
async def talks() -> AsyncIterator[ConversationRegistry]:
    """Conversations that look for a model on this machine."""
    made = ConversationRegistry(Settings(llm="auto"), cast(SessionRegistry, None), None)
    made.create_llm, made.fast_probe_s = here(Nobody=NOBODY), PATIENCE_S
    yield made
    await made.close()


def here(**servers: str) -> Callable[..., Coroutine[Any, Any, Llm]]:
    """The search among these servers of this machine; each has time to answer."""
    return functools.partial(create_llm, local=servers, probe_s=PATIENCE_S)


async def answered(llm: Llm) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        return [str(piece) async for piece in llm.reply(ASKED)]


async def by(server: Completions, model: str, **limits: float) -> list[str]:
    async with client(server, model, **limits) as llm:
        return await answered(llm)


@pytest.mark.parametrize("model", ["plain", "comments", "reasons", "thinks", "torn", "no end"])
async def test_reply_has_the_text_of_the_stream_without_the_reasoning(
    server: Completions, model: str
) -> None:
    assert "".join(await by(server, model)) == ANSWER


async def test_reasoning_without_an_opening_tag_is_removed_from_the_second_reply_on(
    server: Completions,
) -> None:
    """In the first reply the mark at its end is not spoken, nor is what was not spoken yet."""
    async with client(server, "thinks, unmarked") as llm:
        assert "".join(await answered(llm)) == f"They greet\n\n\n{ANSWER}"
        assert "".join(await answered(llm)) == ANSWER


def test_reply_without_reasoning_is_kept_though_the_model_reasoned_before() -> None:
    aloud = chat_completions.ReasoningFilter(reasons=True)
    assert aloud.feed("Hello ") + aloud.feed("there.") == ""
    assert aloud.end() == "Hello there."


@pytest.mark.parametrize("model", ["ponders", "ponders, marked"])
async def test_model_that_reasons_beyond_its_token_limit_is_asked_with_more_from_then_on(
    server: Completions, model: str
) -> None:
    async with client(server, model, max_tokens=7) as llm:
        for _ in range(2):
            assert "".join(await answered(llm)) == ANSWER
    more = 7 + llm_client.MAX_REASONING_TOKENS
    assert [one["max_tokens"] for one in server.asked] == [7, more, more]


async def test_model_that_only_reasons_is_an_error_that_says_so(server: Completions) -> None:
    with pytest.raises(LlmFailed, match="reason"):
        await by(server, "ponders", max_tokens=7, max_reasoning_tokens=1)


async def test_empty_reply_of_a_model_that_does_not_reason_does_not_raise_its_token_limit(
    server: Completions,
) -> None:
    async with client(server, "full", max_tokens=7) as llm:
        for _ in range(2):
            assert not "".join(await answered(llm))
    assert [one["max_tokens"] for one in server.asked] == [7, 7]


async def test_empty_reply_under_max_completion_tokens_is_retried_with_a_raised_limit(
    server: Completions,
) -> None:
    async with client(server, "reasoner, hidden", max_tokens=7) as llm:
        assert "".join(await answered(llm)) == ANSWER
    more = 7 + llm_client.MAX_REASONING_TOKENS
    assert [one.get("max_completion_tokens") for one in server.asked] == [None, 7, more]


def test_cut_off_reasoning_of_a_model_that_reasons_unmarked_is_not_said() -> None:
    parser = chat_completions.ChatStreamParser(reasons=True)
    assert not [*parser.feed(CUT_THOUGHT), *parser.end()]
    assert parser.cut_off


async def test_request_to_the_llm_has_model_messages_token_limit_and_bearer_key(
    server: Completions,
) -> None:
    async with client(server, key="secret", max_tokens=7) as llm:
        await answered(llm)
    assert server.asked == [
        {
            "model": "plain",
            "messages": [{"role": str(one.role), "content": one.text} for one in ASKED],
            "stream": True,
            "max_tokens": 7,
        }
    ]
    assert "authorization: bearer secret" in server.headers[-1].lower()
    assert llm.name == f"plain at 127.0.0.1:{server.port}"


def test_llm_key_is_not_in_the_repr_of_its_address() -> None:
    assert "secret" not in repr(LlmAddress("http://127.0.0.1:1", key="secret"))


async def test_refused_max_tokens_is_sent_as_max_completion_tokens_from_then_on(
    server: Completions,
) -> None:
    async with client(server, "reasoner", max_tokens=7) as llm:
        for _ in range(2):
            assert "".join(await answered(llm)) == ANSWER
    names = ("max_tokens", "max_completion_tokens")
    limits = [{name: one[name] for name in names if name in one} for one in server.asked]
    assert limits == [{names[0]: 7}, {names[1]: 7}, {names[1]: 7}]


async def test_two_parallel_requests_both_retry_with_max_completion_tokens(
    server: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, plain = asyncio.Barrier(2), Completions.chat

    async def chat_(one: Completions, model: str, *rest: Any) -> None:
        if len(server.asked) <= both.parties:  # neither is refused before both have asked
            await both.wait()
        await plain(one, model, *rest)

    monkeypatch.setattr(Completions, "chat", chat_)
    async with client(server, "reasoner") as llm:
        for pieces in await asyncio.gather(answered(llm), answered(llm)):
            assert "".join(pieces) == ANSWER


async def test_llm_server_started_after_the_first_search_is_found_and_then_kept(
    server: Completions, talks: ConversationRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(3):
        assert isinstance(await talks.find_llm(), RepeatLlm)
    assert caplog.text.count("none found") == 1
    talks.create_llm = here(Nobody=NOBODY, Somebody=server.url)
    assert (await talks.find_llm()).name == f"plain at 127.0.0.1:{server.port}"
    asked = len(server.headers)
    await talks.find_llm()
    assert len(server.headers) == asked, "what was found is not looked for again"


async def test_requested_model_of_a_newly_started_llm_server_is_chosen_over_the_repeat_model(
    server: Completions, talks: ConversationRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_model = talks.has_model

    async def started(name: str) -> bool:
        talks.create_llm = here(Somebody=server.url)
        return await has_model(name)

    monkeypatch.setattr(talks, "has_model", started)
    for _ in range(2):
        assert (await talks.find_llm("other")).name == f"other at 127.0.0.1:{server.port}"


@virtual_time
async def test_search_after_a_slow_search_for_an_llm_is_delayed_by_a_multiple_of_its_time(
    talks: ConversationRegistry,
) -> None:
    begun, looks = time.monotonic(), list[float]()

    async def search(*address: Any, **options: Any) -> Llm:
        looks.append(time.monotonic() - begun)
        await asyncio.sleep(2.0)
        return await here()(*address, **options)

    talks.create_llm, talks.fast_probe_s = search, conversation_registry.FAST_PROBE_S
    for _ in range(100):
        assert isinstance(await talks.find_llm(), RepeatLlm)
        await asyncio.sleep(1.0)
    interval_s = 2.0 * conversation_registry.PROBE_REST_FACTOR
    assert looks == pytest.approx([0.0, 3.0, 3.0 + interval_s], abs=1e-3)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ("fails", LlmFailed, "out of memory"),
        ("breaks", LlmFailed, "ended early"),
        ("html", LlmGarbled, ""),
        ("list", LlmGarbled, ""),
        ("loose", LlmFailed, "model is loading"),
        ("locked", LlmRefused, "no key"),
        ("absent", LlmRefused, "not found"),
        ("long", LlmRefused, "maximum context length"),
        ("broken", LlmFailed, "500"),
    ],
)
async def test_llm_failure_raises_its_error_class_with_the_servers_message(
    server: Completions, model: str, error: type[LlmError], said: str
) -> None:
    with pytest.raises(error) as found:
        await by(server, model)
    assert said in found.value.detail
    assert found.value.hint


@pytest.mark.parametrize(("model", "limits"), [("slow", "first_s"), ("stalls", "next_s")])
async def test_silent_llm_is_a_timeout_and_its_connection_is_closed(
    server: Completions, model: str, limits: str
) -> None:
    while not server.asked:  # a busy machine may use up the limit before anything is sent
        with pytest.raises(LlmTimeout):
            await by(server, model, **{limits: 0.2})
    await _until_left(server)


@virtual_time
async def test_headers_and_first_token_of_a_reply_share_one_time_limit() -> None:
    async def words() -> AsyncIterator[bytes]:
        await asyncio.sleep(20.0)
        for piece in SAID:
            yield piece

    async def head(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(20.0)
        return httpx.Response(200, content=words())

    async def asked(first_s: float) -> str:
        address = LlmAddress(NOBODY, "plain", first_s=first_s)
        llm = LlmClient(address, httpx.MockTransport(head))
        try:
            return "".join(await answered(llm))
        finally:
            await llm.close()

    assert await asked(first_s=40.1) == ANSWER
    with pytest.raises(LlmTimeout, match=r"for 39\.9 s"):
        await asked(first_s=39.9)


async def test_closing_a_reply_before_its_end_closes_the_connection(server: Completions) -> None:
    async with client(server, "stalls") as llm:
        async with aclosing(llm.reply(ASKED)) as pieces:
            assert await anext(pieces) == WORDS[0], "while the rest is not said"
        await _until_left(server)


async def test_ready_check_of_the_llm_requests_one_token_which_loads_the_model(
    server: Completions,
) -> None:
    async with client(server) as llm:
        await llm.ready()
    assert [one["max_tokens"] for one in server.asked] == [1]


@pytest.mark.integration
async def test_unreachable_llm_server_is_an_error() -> None:
    llm = LlmClient(LlmAddress(NOBODY, "plain"))
    for ask in (llm.ready, lambda: answered(llm)):
        with pytest.raises(LlmUnreachable):
            await ask()
    await llm.close()


@pytest.mark.parametrize("how", ["named", "looked for"])
async def test_another_model_of_a_restarted_llm_server_answers_the_next_turn(
    server: Completions, how: str
) -> None:
    """Nobody chose the first one, and this server does not know it any more."""
    server.models = ["absent"]
    address = LlmAddress(server.url if how == "named" else "")
    llm = await create_llm(address, local={"It": server.url}, probe_s=PATIENCE_S)
    with pytest.raises(LlmRefused):
        await answered(llm)
    server.models = ["plain"]
    assert "".join(await answered(llm)) == ANSWER
    await llm.close()


class Turning(list[str]):
    """Models that a server lists in another order each time."""

    def __iter__(self) -> Iterator[str]:
        self.reverse()
        return super().__iter__()


async def test_absent_models_listed_in_changing_order_are_refused_after_two_requests(
    server: Completions,
) -> None:
    server.models = Turning(["absent", "absent too"])
    with pytest.raises(LlmRefused):
        await by(server, "")
    assert [one["model"] for one in server.asked] == ["absent too", "absent"]


async def test_llm_server_that_lists_no_model_is_an_error_that_says_so() -> None:
    async with completions() as server:
        with pytest.raises(LlmRefused, match="no model"):
            await by(server, "")


async def test_repeating_llm_answers_with_the_last_words_of_the_user() -> None:
    assert "".join(await answered(RepeatLlm())).split() == ["You", "said:", "It", "is", "Ada."]


async def test_local_llm_server_is_used_only_if_set_to_auto(server: Completions) -> None:
    search = here(Nobody=NOBODY, Somebody=server.url)
    assert isinstance(await search(choose_llm(Settings())), RepeatLlm)
    assert server.headers == []
    found = await search(choose_llm(Settings(llm="auto")))
    assert found.name == f"plain at 127.0.0.1:{server.port}"
    wanted = await search(choose_llm(Settings(llm="auto", llm_model="other")))
    assert wanted.name.startswith("other at ")
    search = here(Nobody=NOBODY)
    assert isinstance(await search(choose_llm(Settings(llm="auto"))), RepeatLlm)
    for one in (found, wanted):
        await one.close()


async def test_silent_server_delays_no_llm_that_is_listed_before_it(server: Completions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}"
        search = here(Somebody=server.url, Mute=mute)
        async with asyncio.timeout(PATIENCE_S / 2):
            found = await search(choose_llm(Settings(llm="auto")))
        assert found.name.startswith("plain at ")
        await found.close()
        search = functools.partial(here(Mute=mute), probe_s=0.05)
        assert isinstance(await search(choose_llm(Settings(llm="auto"))), RepeatLlm)


async def test_llm_address_may_end_in_v1_and_a_key_from_a_file_is_sent_as_bearer(
    server: Completions, tmp_path: Path
) -> None:
    key = new_file(tmp_path / "key", "from-a-file\n", 0o600)
    llm = await create_llm(choose_llm(Settings(llm=f"{server.url}/v1/", llm_key=f"@{key}")))
    assert "".join(await answered(llm)) == ANSWER
    assert "authorization: bearer from-a-file" in server.headers[-1].lower()
    await llm.close()


@pytest.mark.parametrize(
    ("llm", "state", "said"),
    [
        ("repeat", CheckState.ABSENT, "repeat the user"),
        ("auto", CheckState.GOOD, "Ollama"),
        ("http://10.0.0.1:1234/v1", CheckState.GOOD, "10.0.0.1:1234"),
        ("ollama", CheckState.BAD, "not an address"),
    ],
)
def test_doctor_names_the_configured_llm_and_reports_an_invalid_address(
    llm: str, state: CheckState, said: str
) -> None:
    found = check_llm(Settings(llm=llm))
    assert found.state is state
    assert said in found.text


WEATHER = ToolDefinition("weather", "How it is outside.", {"type": "object"})
TOOLS = ToolSet((WEATHER, ToolDefinition("clock")), named="weather")


async def called(server: Completions, model: str, tools: ToolSet = TOOLS) -> list[LlmDelta]:
    async with client(server, model) as llm, asyncio.timeout(PATIENCE_S):
        return [piece async for piece in llm.reply(ASKED, tools)]


async def test_request_has_the_tools_and_streamed_tool_calls_are_told_apart_by_index(
    server: Completions,
) -> None:
    pieces = await called(server, "calls")
    assert [one for one in pieces if isinstance(one, str)] == ["One moment. "]
    fragments = [one for one in pieces if isinstance(one, ToolCallDelta)]
    assert [one.index for one in fragments] == [0, 0, 1, 0, 1]
    assert [(one.id, one.name) for one in fragments if one.id] == [
        ("call_a", "weather"),
        ("call_b", "clock"),
    ]
    first = "".join(one.arguments for one in fragments if one.index == 0)
    assert first == '{"city":"Oslo"}'
    function = {"name": "weather", "description": "How it is outside."}
    assert server.asked[-1]["tools"] == [
        {"type": "function", "function": {**function, "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "clock"}},
    ]
    assert server.asked[-1]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_tool_calls_without_index_or_arguments_are_parsed(server: Completions) -> None:
    assert await called(server, "whole", ToolSet((WEATHER,), ToolChoice.REQUIRED)) == [
        ToolCallDelta(0, "a", "weather", '{"city": "Oslo"}'),
        ToolCallDelta(1, "b", "clock"),
    ]
    assert server.asked[-1]["tool_choice"] == "required"


async def test_tool_call_that_is_no_object_is_an_error(server: Completions) -> None:
    with pytest.raises(LlmGarbled):
        await called(server, "odd")


async def test_calls_that_a_server_all_gives_the_first_index_are_told_apart_by_their_ids(
    server: Completions,
) -> None:
    pieces = [one for one in await called(server, "all first") if isinstance(one, ToolCallDelta)]
    calls = {
        index: "".join(one.arguments for one in pieces if one.index == index) for index in (0, 1)
    }
    assert calls == {0: '{"city":"Oslo"}', 1: "{}"}
    assert [one.name for one in pieces if one.name] == ["weather", "clock"]


async def test_request_has_earlier_tool_calls_and_their_outputs(server: Completions) -> None:
    call = ToolCall("call_a", "weather", "{}")
    messages = (
        ChatMessage(ChatRole.USER, "Does it rain?"),
        ChatMessage(ChatRole.ASSISTANT, "", (call,)),
        ChatMessage(ChatRole.TOOL, "rain", call="call_a"),
    )
    async with client(server, "plain") as llm:
        assert [piece async for piece in llm.reply(messages, TOOLS)]
    function = {"name": "weather", "arguments": "{}"}
    assert server.asked[-1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_a", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_a"},
    ]


async def test_repeat_model_declares_no_tool_calls_and_refuses_a_request_with_tools() -> None:
    assert not RepeatLlm().calls
    with pytest.raises(ToolsUnavailable):
        await anext(RepeatLlm().reply(ASKED, TOOLS))


def test_text_that_only_resembles_a_reasoning_tag_is_kept() -> None:
    aloud = chat_completions.ReasoningFilter()
    pieces = [aloud.feed(piece) for piece in ("a <", "b> and <thin", "g> <thi")]
    assert "".join(pieces) + aloud.end() == "a <b> and <thing> <thi"


async def _until_left(server: Completions) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await server.left.wait()
