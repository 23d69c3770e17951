"""A server with OpenAI's chat completions that behaves as the model it is asked for is called; the
model 'obeys' does what the last message says."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from service_process import PATIENCE_S, free_port

OBEYS = "obeys"
HEAD = b"HTTP/1.1 %d Made-up\r\ncontent-type: %s\r\nconnection: close\r\n\r\n"
WORDS = ("Good ", "morning, ", "Ada.")


def chunk_of(choice: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def chunk(**delta: Any) -> bytes:
    return chunk_of({"delta": delta})


LONG_THOUGHT = 1000
"""Tokens that the models of `CUT_OFF` need to reason."""


def stop(reason: str) -> bytes:
    """The end of an answer."""
    return chunk_of({"delta": {}, "finish_reason": reason})


USAGE = b'data: {"choices":[],"usage":{"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"
SAID = [chunk(role="assistant"), *(chunk(content=word) for word in WORDS), USAGE, DONE]
STREAMS: dict[str, list[bytes | float]] = {
    "plain": [*SAID],
    "comments": [b": processing\n\n", b"event: message\n", *SAID],
    "slow": [30.0, *SAID],
    "stalls": [SAID[0], SAID[1], 30.0],
    "fails": [
        SAID[0],
        SAID[1],
        b'data: {"error":{"message":"out of memory","code":500}}\n\n',
        DONE,
    ],
    "breaks": SAID[:3],
    "no end": [*SAID[:4], stop("stop"), USAGE],
    "reasons": [chunk(reasoning_content="They greet me."), *SAID],
    "thinks": [chunk(content=piece) for piece in ("<th", "ink>They ", "greet</thi", "nk>\n\n")]
    + SAID[1:],
    "thinks, unmarked": [chunk(content=piece) for piece in ("They ", "greet</thi", "nk>\n\n")]
    + SAID[1:],
    "html": [b"<html>Welcome</html>\n"],
    "list": [b"data: [1, 2]\n\n"],
    "loose": [b'{"error": "model is loading"}\n'],
    "torn": [bytes([byte]) for byte in b"".join(SAID)],
}
CUT_OFF: dict[str, list[bytes | float]] = {
    "ponders": [chunk(content="", reasoning="They "), stop("length"), DONE],
    "ponders, marked": [chunk(content="<think>They "), stop("length"), DONE],
    "reasoner, hidden": [chunk(role="assistant", content=""), stop("length"), DONE],
    "full": [chunk(role="assistant", content=""), stop("length"), DONE],
}
"""Models that reason for longer than a short answer takes, and one whose context is full."""


def call(index: int | None, arguments: Any, id: str = "", name: str = "") -> bytes:
    """Some of a call of a tool, with its id and name where it begins."""
    begins = {"id": id, "type": "function"} if id else {}
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    where = {} if index is None else {"index": index}
    return chunk(tool_calls=[{**where, **begins, "function": function}])


CALLS: dict[str, list[bytes | float]] = {
    "calls": [
        chunk(role="assistant", content="One moment. "),
        call(0, "", "call_a", "weather"),
        call(0, '{"ci'),
        call(1, "", "call_b", "clock"),
        call(0, 'ty":"Oslo"}'),
        call(1, "{}"),
        chunk(content=None),
        USAGE,
        DONE,
    ],
    "asks": [call(0, "", "call_a", "weather"), call(0, '{"city":"Oslo"}'), DONE],
    "whole": [call(None, {"city": "Oslo"}, "a", "weather"), call(None, None, "b", "clock"), DONE],
    "all first": [
        call(0, '{"city":"Oslo"}', "call_a", "weather"),
        call(0, "{", "call_b", "clock"),
        call(0, "}", "call_b"),
        DONE,
    ],
    "dangles": [call(0, "", "call_a", "weather"), call(0, '{"ci'), 30.0],
    "odd": [chunk(tool_calls=[7])],
}
"""What models say that have tools, and were not told what came of a call last."""
REASONER = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
STATUSES: dict[str, tuple[int, Any]] = {
    "locked": (401, {"error": {"message": "no key"}}),
    "absent": (404, {"error": {"message": "model 'absent' not found"}}),
    "absent too": (404, {"error": {"message": "model 'absent too' not found"}}),
    "long": (400, {"detail": "maximum context length"}),
    "broken": (500, "Internal Server Error"),
}


class Completions:
    """What was asked of it, and whether somebody left before the end."""

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.left = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def replies(self) -> list[dict[str, Any]]:
        """What was asked but for the word that has it loaded, which comes whenever it likes."""
        return [one for one in self.asked if one.get("max_tokens") != 1]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.headers.append(head)
        if head.startswith("GET /v1/models "):
            body = {"data": [{"id": name} for name in self.models]}
            writer.write(HEAD % (200, b"application/json") + json.dumps(body).encode())
        else:
            lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = json.loads(await reader.readexactly(int(lines["content-length"])))
            self.asked.append(body)
            last = body["messages"][-1]
            said = last["content"].split()[-1]
            how = said if body["model"] == OBEYS else body["model"]
            calls = bool(body.get("tools")) and last["role"] != "tool"
            await self.chat(how, reader, writer, CALLS if calls else {})
        writer.close()

    async def chat(
        self,
        model: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        calls: dict[str, list[bytes | float]],
    ) -> None:
        if model == "gone":
            return
        if model.startswith("reasoner") and "max_tokens" in self.asked[-1]:
            error = {"error": {"message": REASONER}}
            writer.write(HEAD % (400, b"application/json") + json.dumps(error).encode())
            return
        if model in STATUSES:
            status, said = STATUSES[model]
            writer.write(HEAD % (status, b"application/json") + json.dumps(said).encode())
            return
        writer.write(HEAD % (200, b"text/event-stream"))
        gone = asyncio.create_task(reader.read())
        limits = (self.asked[-1].get(name) for name in ("max_tokens", "max_completion_tokens"))
        short = max(filter(None, limits), default=LONG_THOUGHT) < LONG_THOUGHT
        for piece in (STREAMS | calls | (CUT_OFF if short else {})).get(model, SAID):
            if isinstance(piece, bytes):
                writer.write(piece)
                await asyncio.sleep(0)
            elif (await asyncio.wait({gone}, timeout=piece))[0]:
                self.left.set()
                break
        gone.cancel()


@asynccontextmanager
async def completions(*models: str) -> AsyncIterator[Completions]:
    one = Completions(list(models))
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


class Obedient:
    """The model 'obeys' in a thread of its own, so that a service can outlive a test; it can go and
    come back where it was."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._model = Completions([OBEYS])
        self._model.port = free_port()  # nobody takes it while it is gone
        self.come()

    @property
    def url(self) -> str:
        return self._model.url

    @property
    def replies(self) -> list[dict[str, Any]]:
        """As `Completions.replies`."""
        return self._model.replies

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def come(self) -> None:
        """Listen, at the same port as before."""
        self._open = set[asyncio.StreamWriter]()
        start = asyncio.start_server(self._answer, "127.0.0.1", self._model.port)
        self._server = self._run(start)

    def go(self) -> None:
        """Nobody listens there any more."""
        self._run(self._gone())

    def end(self) -> None:
        """For good."""
        self.go()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._model.answer(reader, writer)
        finally:
            self._open.discard(writer)

    async def _gone(self) -> None:
        self._server.close()
        await asyncio.sleep(0)  # the loop lets go of what it listens at

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)
