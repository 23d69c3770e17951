"""Interface of an LLM, chat messages, tool calls, OpenAI's chat completions. Pure.

Servers differ in what they do wrong: errors come in the middle of a stream that began with 200, the
last chunk has no choices, and what a model says to itself is sent along, in a field of its own or
between marks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from sidecar import errors
from sidecar.upstream import openai_http
from sidecar.upstream.openai_http import EventStream

MAX_TOOL_CALLS = 16
"""Calls of one answer."""
MAX_ARGUMENT_CHARACTERS = 32_768
"""Of the arguments of all of them."""


class ChatRole(StrEnum):
    """Role of a message, by the names that language models know."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """Result of a tool call."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: ``arguments`` are JSON as the model wrote it, which may be none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """Message of a chat. ``calls``: what the machine asked for then; ``call``: the id of the one
    whose result this is."""

    role: ChatRole
    text: str
    calls: tuple[ToolCall, ...] = ()
    call: str = ""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A function that a client has: ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


class ToolChoice(StrEnum):
    """Choice whether a model calls tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolSet:
    """Tools that a model may call; ``named`` is the one that it has to call, or ''."""

    all: tuple[ToolDefinition, ...] = ()
    choice: ToolChoice = ToolChoice.AUTO
    named: str = ""


NO_TOOLS = ToolSet()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Some of a call, as a model writes it: ``index`` tells several of one answer apart, ``id`` and
    ``name`` come with the first of each, and ``arguments`` go on from those before."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


LlmDelta: TypeAlias = str | ToolCallDelta
"""Of an answer: some characters, or some of a call."""


REPEAT_LLM_NAME = "repeat"
"""The name of who has no model, in settings and wherever one is chosen."""
REPEAT_PREFIX = "You said:"


class Llm(Protocol):
    """Answers a conversation. Leaving `reply` early stops the work."""

    @property
    def name(self) -> str:
        """Return the model's name, for people."""

    @property
    def calls(self) -> bool:
        """Return whether it can call tools, as far as is known."""

    async def ready(self) -> None:
        """Have it ready for what comes, as far as that can be had; a conversation begins.

        Raises:
            errors.LlmError: it will not answer.
        """

    async def models(self) -> tuple[str, ...]:
        """The names of what may answer there, its own choice first.

        Raises:
            errors.LlmError: it does not say.
        """

    def other(self, model: str) -> Llm:
        """Another of its `models`."""

    def reply(
        self, messages: Sequence[ChatMessage], tools: ToolSet = NO_TOOLS
    ) -> AsyncGenerator[LlmDelta, None]:
        """The answer to the last of ``messages``, some characters at a time, or some of a call of
        one of the ``tools``.

        Raises:
            errors.LlmError: it did not answer, or not to the end.
            errors.ToolsUnavailable: it calls none.
        """

    async def close(self) -> None:
        """Let go of what it has open."""


class RepeatLlm:
    """Built-in echo model: repeats what the user says, and says so."""

    name = REPEAT_LLM_NAME
    calls = False

    async def ready(self) -> None:
        """It is."""

    async def models(self) -> tuple[str, ...]:
        """Itself."""
        return (REPEAT_LLM_NAME,)

    def other(self, model: str) -> RepeatLlm:
        """There is one."""
        return self

    async def reply(
        self, messages: Sequence[ChatMessage], tools: ToolSet = NO_TOOLS
    ) -> AsyncGenerator[LlmDelta, None]:
        """Yield the user's last message, a word at a time.

        Raises:
            errors.ToolsUnavailable: this model calls no tools.
        """
        if tools.all:
            raise errors.ToolsUnavailable()
        last = next((one.text for one in reversed(messages) if one.role is ChatRole.USER), "")
        for word in f"{REPEAT_PREFIX} {last}".split():
            yield f"{word} "

    async def close(self) -> None:
        """Nothing is open."""


CHAT_COMPLETIONS_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
MAX_LINE_BYTES = 1 << 20
"""Bytes of one line of a stream."""
LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"
"""Names of the limit of an answer. Everybody knows the first but OpenAI's reasoning models, and
they say so; who does not know the second passes over it, and answers without an end."""
THINKS, SPEAKS = "<think>", "</think>"
"""Around what a model says to itself, where it has no field of its own (DeepSeek-R1, Qwen3)."""


def chat_request(
    messages: Sequence[ChatMessage],
    model: str,
    max_tokens: int,
    tools: ToolSet = NO_TOOLS,
    limit: str = LIMIT,
) -> dict[str, Any]:
    """The body of a request for an answer as a stream; ``limit``: the name of its length."""
    told = [_message(one) for one in messages]
    body = {"model": model, "messages": told, "stream": True, limit: max_tokens}
    if tools.all:
        named = {"type": "function", "function": {"name": tools.named}}
        body["tools"] = [_tool(one) for one in tools.all]
        body["tool_choice"] = named if tools.named else tools.choice.value
    return body


def _message(message: ChatMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.calls:
        body["content"] = message.text or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.call:
        body["tool_call_id"] = message.call
    return body


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = dict(tool.parameters)
    return {"type": "function", "function": function}


class ChatStreamParser:
    """A stream of chunks, in bytes as they come."""

    def __init__(self) -> None:
        self._events = EventStream(MAX_LINE_BYTES, _wrong)
        self._aloud = ReasoningFilter()
        self._calls = -1

    @property
    def done(self) -> bool:
        """Return whether the server said that it was all."""
        return self._events.done

    def feed(self, data: bytes) -> list[LlmDelta]:
        """Return the deltas in ``data``: words that came together are one piece.

        Raises:
            errors.LlmFailed: the server says that it failed.
            errors.LlmGarbled: it is no such stream.
        """
        chunks = map(openai_http.loads, self._events.feed(data))
        said = [piece for chunk in chunks for piece in self._said(chunk)]
        return _merge_text([*said, self._aloud.end()] if self.done else said)

    def end(self) -> list[LlmDelta]:
        """Return the deltas that are left at the end of the stream.

        Raises:
            errors.LlmFailed, errors.LlmGarbled: as `feed`; it broke off in the middle.
        """
        said = self.feed(b"\n")
        if not self.done:
            raise errors.LlmFailed("The response of the language model ended early.")
        return said

    def _said(self, chunk: object) -> list[LlmDelta]:
        if wrong := stream_error(chunk):
            raise wrong
        match chunk:
            case {"choices": [{"delta": dict(delta)}, *_]}:
                text, calls = delta.get("content"), delta.get("tool_calls")
                said: list[LlmDelta] = [self._aloud.feed(text)] if isinstance(text, str) else []
                return said + [self._called(one) for one in _tool_call_values(calls)]
            case {"choices": [*_]} | {"usage": dict()}:  # an end, or what it took
                return []
        raise errors.LlmGarbled()

    def _called(self, call: dict[str, Any]) -> ToolCallDelta:
        """Some of a call. Servers that do not count them send each whole."""
        index, function = call.get("index"), call.get("function")
        if not isinstance(function, dict) or not isinstance(index, int | None):
            raise errors.LlmGarbled()
        self._calls = self._calls + 1 if index is None else index
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        name, number = function.get("name") or "", call.get("id") or ""
        return ToolCallDelta(self._calls, str(number), str(name), arguments)


class ReasoningFilter:
    """Text without what a model says to itself between `THINKS` and `SPEAKS`, in any pieces."""

    def __init__(self) -> None:
        self._rest = ""
        self._thinks = False
        self._spoke = False

    def feed(self, text: str) -> str:
        """Return the text without reasoning. Text that may begin a mark is held back."""
        self._rest += text
        said = ""
        while True:
            mark = SPEAKS if self._thinks else THINKS
            before, found, after = self._rest.partition(mark)
            kept = 0 if found else _partial_mark_length(before, mark)
            if not self._thinks:
                said += before[: len(before) - kept]
            if not found:
                self._rest = before[len(before) - kept :]
                break
            self._rest, self._thinks = after, not self._thinks
        if not self._spoke:  # a pause behind thoughts is no beginning
            said = said.lstrip()
            self._spoke = bool(said)
        return said

    def end(self) -> str:
        """Return the held-back text that was no mark."""
        rest, self._rest = self._rest, ""
        return "" if self._thinks else rest


def _tool_call_values(calls: object) -> list[dict[str, Any]]:
    if calls is None:
        return []
    if isinstance(calls, list) and all(isinstance(one, dict) for one in calls):
        return calls
    raise errors.LlmGarbled()


def _merge_text(pieces: Sequence[LlmDelta]) -> list[LlmDelta]:
    """Words in one piece where they came together; none where there are none."""
    found: list[LlmDelta] = []
    for piece in pieces:
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        elif piece:
            found.append(piece)
    return found


def _partial_mark_length(text: str, mark: str) -> int:
    """Return the number of characters at the end of ``text`` that may be the beginning of
    ``mark``."""
    return next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)


def _wrong(line: bytes | None) -> errors.LlmError:
    if line is None:
        return errors.LlmGarbled("A line of the response of the language model is too long.")
    return stream_error(openai_http.loads(line)) or errors.LlmGarbled()


def stream_error(body: object) -> errors.LlmFailed | None:
    """Return the error that a server sent; None if it sent none."""
    match body:
        case {"error": {"message": str(said)}} | {"error": str(said)} | {"detail": str(said)}:
            return errors.LlmFailed(
                "The language model's server reports: "
                f"{said[: openai_http.MAX_SERVER_MESSAGE_CHARS]}"
            )
        case {"error": something} if something:
            return errors.LlmFailed(
                "The language model's server reports an error without a reason."
            )
    return None


def wants_newer_limit(body: bytes) -> bool:
    """Return whether a server refuses `LIMIT`, and names `NEWER_LIMIT` for it."""
    wrong = stream_error(openai_http.loads(body))
    return wrong is not None and NEWER_LIMIT in wrong.detail


def response_error(status: int, body: bytes) -> errors.LlmError:
    """Return the error that a refused request means."""
    said = stream_error(openai_http.loads(body))
    detail = f"It answers with {status}. {said.detail if said else ''}".strip()
    if status in (401, 403):
        return errors.LlmRefused(detail, hint="Check VIBEVOICE_LLM_KEY.")
    if status in (404, 405):
        return errors.LlmRefused(detail, hint="Check VIBEVOICE_LLM and VIBEVOICE_LLM_MODEL.")
    if status in (400, 413, 422):
        return errors.LlmRefused(detail)
    return errors.LlmFailed(detail)
