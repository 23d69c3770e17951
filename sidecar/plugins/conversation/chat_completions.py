"""Interface of an LLM, chat messages, tool calls, OpenAI's chat completions. Pure.

Servers deviate from the protocol in different ways. Errors come in the middle of a stream that
began with status 200. The last chunk has no choices. A model's reasoning is sent along, in a field
of its own or between marks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from sidecar import openai_http
from sidecar.plugins.conversation.errors import (
    LlmError,
    LlmFailed,
    LlmGarbled,
    LlmRefused,
    ToolsUnavailable,
)

MAX_TOOL_CALLS = 16
"""Maximum number of tool calls in one answer."""
MAX_ARGUMENT_CHARACTERS = 32_768
"""Maximum length of the arguments of all calls of one answer, in characters."""

CHAT_COMPLETIONS_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
MAX_EVENT_BYTES = 1 << 20
LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"
"""Names of the field that limits the answer. All servers know the first, except OpenAI's reasoning
models, which reject it. Other servers ignore the second, and answer without a limit."""
REASONING_START, REASONING_END = "<think>", "</think>"
"""Marks around a model's reasoning if it has no field of its own (DeepSeek-R1, Qwen3)."""
REPEAT_LLM_NAME = "repeat"
"""Name of the built-in echo model, in settings and requests."""
REPEAT_PREFIX = "You said:"


class ChatRole(StrEnum):
    """Role of a message, with the names of the API."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """Result of a tool call."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Tool call. ``arguments`` is JSON as the model wrote it, and may be invalid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """Message of a chat. ``calls``: the tool calls that the LLM made in it; ``call``: the id of the
    call whose result this is."""

    role: ChatRole
    text: str
    calls: tuple[ToolCall, ...] = ()
    call: str = ""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """Function that a client offers. ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


class ToolChoice(StrEnum):
    """Choice whether a model may, must or must not call tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolSet:
    """Tools that a model may call. ``named`` is the one that it must call, or ''."""

    all: tuple[ToolDefinition, ...] = ()
    choice: ToolChoice = ToolChoice.AUTO
    named: str = ""


NO_TOOLS = ToolSet()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Fragment of a tool call. ``index`` identifies the call within the answer. ``id`` and ``name``
    come with the call's first fragment. ``arguments`` are appended to those before."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


LlmDelta: TypeAlias = str | ToolCallDelta
"""Part of an answer: some characters, or a fragment of a tool call."""


class Llm(Protocol):
    """Language model. Leaving `reply` early stops its work."""

    @property
    def name(self) -> str:
        """Return the model's display name."""

    @property
    def calls(self) -> bool:
        """Return whether it can call tools, as far as is known."""

    async def ready(self) -> None:
        """Prepare for requests, as far as possible, when a conversation begins.

        Raises:
            LlmError: it will not answer.
        """

    async def models(self) -> tuple[str, ...]:
        """Return the names of the available models, the default first.

        Raises:
            LlmError: the list is not available.
        """

    def other(self, model: str) -> Llm:
        """Return a client of another of its `models`."""

    def reply(
        self, messages: Sequence[ChatMessage], tools: ToolSet = NO_TOOLS
    ) -> AsyncGenerator[LlmDelta, None]:
        """Yield the answer to the last of ``messages``: characters, or fragments of calls of
        ``tools``.

        Raises:
            LlmError: it did not answer, or not to the end.
            ToolsUnavailable: it does not call tools.
        """

    async def close(self) -> None:
        """Close its connections."""


class RepeatLlm:
    """Built-in echo model: repeats what the user says, with `REPEAT_PREFIX`."""

    name = REPEAT_LLM_NAME
    calls = False

    async def ready(self) -> None:
        """Do nothing: the echo model is always ready."""

    async def models(self) -> tuple[str, ...]:
        """Return its own name."""
        return (REPEAT_LLM_NAME,)

    def other(self, model: str) -> RepeatLlm:
        """Return itself: there is no other model."""
        return self

    async def reply(
        self, messages: Sequence[ChatMessage], tools: ToolSet = NO_TOOLS
    ) -> AsyncGenerator[LlmDelta, None]:
        """Yield the user's last message, a word at a time.

        Raises:
            ToolsUnavailable: this model calls no tools.
        """
        if tools.all:
            raise ToolsUnavailable()
        last = next((one.text for one in reversed(messages) if one.role is ChatRole.USER), "")
        for word in f"{REPEAT_PREFIX} {last}".split():
            yield f"{word} "

    async def close(self) -> None:
        """Do nothing: there are no connections."""


def chat_request(
    messages: Sequence[ChatMessage],
    model: str,
    max_tokens: int,
    tools: ToolSet = NO_TOOLS,
    limit: str = LIMIT,
) -> dict[str, Any]:
    """Return the body of a request for a streamed answer; ``limit`` is the name of the field that
    limits its length."""
    body: dict[str, Any] = {"model": model, "stream": True, limit: max_tokens}
    body["messages"] = [_message(one) for one in messages]
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
    """Incremental parser of a stream of chat completion chunks; ``reasons``: as in
    `ReasoningFilter`."""

    def __init__(self, *, reasons: bool = False) -> None:
        self.done = False
        """Whether the server has sent the end of the stream."""
        self.finished = False
        """Whether the model has finished: some servers send no end of the stream after that."""
        self.cut_off = False
        """Whether the limit of tokens ended the answer."""
        self.reasoning_filter = ReasoningFilter(reasons=reasons)
        self._call_ids: list[str] = []
        """Ids of the calls so far, '' where the server sent none."""
        self._calls: dict[int | None, int] = {}
        """Index of the last call by the index that the server sent."""

    def feed(self, data: bytes) -> list[LlmDelta]:
        """Return the deltas in an event.

        Raises:
            LlmFailed: the server reports an error.
            LlmGarbled: it is not a chunk.
        """
        if self.done or data.strip() == openai_http.DONE:
            return self.end()
        return [delta for delta in self._deltas(openai_http.loads(data)) if delta]

    def end(self) -> list[LlmDelta]:
        """End the stream; return the rest."""
        self.done = True
        rest = self.reasoning_filter.end(cut_off=self.cut_off)
        return [rest] if rest else []

    def _deltas(self, chunk: object) -> list[LlmDelta]:
        if error := stream_error(chunk):
            raise error
        match chunk:
            case {"choices": [{"finish_reason": str(reason)}, *_]} if reason:
                self.finished, self.cut_off = True, reason == "length"
        match chunk:
            case {"choices": [{"delta": dict(delta)}, *_]}:
                text, calls = delta.get("content"), delta.get("tool_calls")
                if any(value and name.startswith("reasoning") for name, value in delta.items()):
                    self.reasoning_filter.reasoned = True
                deltas: list[LlmDelta] = (
                    [self.reasoning_filter.feed(text)] if isinstance(text, str) else []
                )
                return deltas + [self._tool_call_delta(one) for one in _tool_call_values(calls)]
            case {"choices": [*_]} | {"usage": dict()}:  # the end, or the token usage
                return []
        raise LlmGarbled()

    def _tool_call_delta(self, call: dict[str, Any]) -> ToolCallDelta:
        """Return a fragment of a call. A server that sends no index sends each call whole. Some
        send the first index with all calls, which their ids tell apart."""
        index, function = call.get("index"), call.get("function")
        if not isinstance(function, dict) or not isinstance(index, int | None):
            raise LlmGarbled()
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        name, call_id = str(function.get("name") or ""), str(call.get("id") or "")
        at = None if index is None else self._calls.get(index)
        if at is None or (name and call_id and call_id != self._call_ids[at]):
            at = self._calls[index] = len(self._call_ids)
            self._call_ids.append(call_id)
        return ToolCallDelta(at, call_id, name, arguments)


class ReasoningFilter:
    """Incremental filter that removes a model's reasoning: between `REASONING_START` and
    `REASONING_END`, or all before a lone `REASONING_END`.

    Some templates have the first mark in the prompt, so that the server sends only the second.
    ``reasons``: text is held back until that, as the model did so before.
    """

    def __init__(self, *, reasons: bool = False) -> None:
        self.lone_end = False
        """Whether a lone `REASONING_END` has ended the reasoning."""
        self.reasoned = reasons
        """Whether there is reasoning, as far as is known."""
        self._unread = ""
        self._text = ""
        self._reasoning = False
        self._may_reason = reasons
        self._answered = False

    def feed(self, text: str) -> str:
        """Return ``text`` without reasoning. Text that may begin a mark is held back."""
        self._unread += text
        while True:
            marks = (REASONING_END,) if self._reasoning else (REASONING_START, REASONING_END)
            before, mark, after = _first_mark(self._unread, marks)
            if not self._reasoning:
                self._text += before
            self._unread = after
            if not mark:
                break
            self.reasoned = True
            if mark == REASONING_END and not self._reasoning:
                self.lone_end = True
                self._text = "\n" if self._answered else ""  # the answer begins a phrase of its own
            self._reasoning, self._may_reason = mark == REASONING_START, False
        return "" if self._may_reason else self._take_text()

    def end(self, *, cut_off: bool = False) -> str:
        """Return the held-back text, which was neither reasoning nor a mark. If the answer was
        ``cut_off``, text that may be reasoning is."""
        if not self._reasoning:
            self._text += self._unread
        self._unread = ""
        return "" if cut_off and self._may_reason else self._take_text()

    def _take_text(self) -> str:
        text, self._text = self._text, ""
        if not self._answered:  # whitespace after the reasoning does not begin the answer
            text = text.lstrip()
            self._answered = bool(text)
        return text


def _first_mark(text: str, marks: Sequence[str]) -> tuple[str, str, str]:
    """Return the text before the first of the marks, the mark, and the text after it. If there is
    none, it is '', and the rest is text that may begin one."""
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    if found:
        at, mark = min(found)
        return text[:at], mark, text[at + len(mark) :]
    kept = max(_partial_mark_length(text, mark) for mark in marks)
    return text[: len(text) - kept], "", text[len(text) - kept :]


def _tool_call_values(calls: object) -> list[dict[str, Any]]:
    if calls is None:
        return []
    if isinstance(calls, list) and all(isinstance(one, dict) for one in calls):
        return calls
    raise LlmGarbled()


def _partial_mark_length(text: str, mark: str) -> int:
    """Return the number of characters at the end of ``text`` that may begin ``mark``."""
    return next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)


def stream_fault(first: bytes | None) -> LlmError:
    """Return the error of a response that is no stream, by its beginning; of an event that is too
    long, if that is None."""
    if first is None:
        return LlmGarbled("An event of the language model's response is too long.")
    return stream_error(openai_http.loads(first)) or LlmGarbled()


def stream_error(body: object) -> LlmFailed | None:
    """Return the error that a server sent; `None` if it sent none."""
    match body:
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"detail": str(text)}:
            return LlmFailed(
                "The language model's server reports: "
                f"{text[: openai_http.MAX_SERVER_MESSAGE_CHARS]}"
            )
        case {"error": something} if something:
            return LlmFailed("The language model's server reports an error without a reason.")
    return None


def wants_newer_limit(body: bytes) -> bool:
    """Return whether a server rejects `LIMIT` and asks for `NEWER_LIMIT` instead."""
    error = stream_error(openai_http.loads(body))
    return error is not None and NEWER_LIMIT in error.detail


def response_error(status: int, body: bytes) -> LlmError:
    """Return the error for a rejected request."""
    reported = stream_error(openai_http.loads(body))
    detail = f"It answers with {status}. {reported.detail if reported else ''}".strip()
    if status in (401, 403):
        return LlmRefused(detail, hint="Check VIBEVOICE_LLM_KEY.")
    if status in (404, 405):
        return LlmRefused(detail, hint="Check VIBEVOICE_LLM and VIBEVOICE_LLM_MODEL.")
    if status in (400, 413, 422):
        return LlmRefused(detail)
    return LlmFailed(detail)
