"""A language model behind an address: httpx, everything with an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.conversation.llm import chat
from sidecar.conversation.llm.dialogue import NO_TOOLS, Message, Piece, Role, Tools

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

LOOK_S = 3.0
"""So long a server may take to be connected to, and to say what it has."""
MOST_BYTES = 1 << 20
"""Of an answer that is no stream."""
WARMS_UP = (Message(Role.USER, "Hello"),)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a language model is, and how it is to be asked.

    ``url`` without the path of the API. ``model``: '' takes the first that the server lists.
    ``first_s``: how long it may take to its first word (one that has to load its model takes its
    time), ``next_s``: from one to the next. ``max_tokens``: of an answer. Nothing prints the key.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    max_tokens: int = 200
    first_s: float = 20.0
    next_s: float = 10.0


class Endpoint:
    """Owns the connections to one model. No proxy and no netrc of the environment's is used, and no
    redirect followed: what people say goes where the settings say."""

    def __init__(self, address: Address) -> None:
        import httpx

        self._address = address
        self._model, self._limit = address.model, chat.LIMIT
        self._client = httpx.AsyncClient(
            base_url=address.url,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=LOOK_S),
            headers={"User-Agent": "vibevoice-asr"}
            | ({"Authorization": f"Bearer {address.key}"} if address.key else {}),
        )

    @property
    def name(self) -> str:
        """The model, and where it is."""
        return f"{self._model or 'a language model'} at {self._client.base_url.netloc.decode()}"

    @property
    def calls(self) -> bool:
        """It may: whether it does is the model's to say."""
        return True

    async def ready(self) -> None:
        """Know which model it is, and have the server load it: a word is asked for, and dropped.

        Raises:
            errors.LlmError: it does not answer, or will not.
        """
        await self._known()
        async with self._within(self._address.first_s), self._asked(WARMS_UP, 1):
            pass

    async def models(self) -> tuple[str, ...]:
        """What the server lists, behind the one that is asked for.

        Raises:
            errors.LlmError: it lists nothing.
        """
        body = await self._listed()
        names = dict.fromkeys((self._model or chat.model_of(body), *chat.models_of(body)))
        return tuple(filter(None, names))

    def other(self, model: str) -> Endpoint:
        """As `Thinker.other`, by connections of its own."""
        return Endpoint(replace(self._address, model=model))

    async def reply(
        self, messages: Sequence[Message], tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Piece, None]:
        """As `Thinker.reply`; the connection ends with it, and so does the work on the other side.

        Raises:
            errors.LlmUnreachable, errors.LlmTimeout, errors.LlmRefused, errors.LlmFailed,
            errors.LlmGarbled: it did not answer, or not to the end.
        """
        await self._known()
        async with self._asked(messages, self._address.max_tokens, tools) as pieces:
            words, within_s = chat.Words(), self._address.first_s
            while not words.done:
                async with self._within(within_s):
                    found = await self._next(pieces, words)
                for piece in found:
                    yield piece
                    within_s = self._address.next_s

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()

    async def _next(self, pieces: AsyncIterator[bytes], words: chat.Words) -> list[Piece]:
        """What is said next; nothing at the end of it. What is no word does not count as one."""
        async for piece in pieces:
            if (said := words.feed(piece)) or words.done:
                return said
        return words.end()

    async def _known(self) -> None:
        """Which model to ask for."""
        if self._model:
            return
        self._model = chat.model_of(await self._listed())
        if not self._model:
            raise errors.LlmRefused("It has no model.", hint="Load one there (ollama pull …).")

    async def _listed(self) -> object:
        """What the server says of its models."""
        async with self._within(LOOK_S), _named(self._address.url):
            response = await self._client.get(chat.MODELS)
        if response.status_code != 200:
            raise chat.refused(response.status_code, response.content[:MOST_BYTES])
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise errors.LlmGarbled() from None

    @asynccontextmanager
    async def _asked(
        self, messages: Sequence[Message], most: int, tools: Tools = NO_TOOLS
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A request that was taken, and the pieces of its answer."""
        async with _named(self._address.url):
            limit = self._limit  # another's answer may change it meanwhile
            response = await self._sent(messages, most, tools)
            try:
                if response.status_code != 200:
                    said = await self._said(response)
                    if limit != chat.LIMIT or not chat.wants_newer_limit(said):
                        raise chat.refused(response.status_code, said)
                    self._limit = chat.NEWER_LIMIT
                    await response.aclose()
                    response = await self._sent(messages, most, tools)
                    if response.status_code != 200:
                        raise chat.refused(response.status_code, await self._said(response))
                yield response.aiter_bytes()
            finally:
                await response.aclose()

    async def _sent(self, messages: Sequence[Message], most: int, tools: Tools) -> httpx.Response:
        body = chat.request(messages, self._model, most, tools, self._limit)
        sent = self._client.build_request("POST", chat.PATH, json=body)
        async with self._within(self._address.first_s):
            return await self._client.send(sent, stream=True)

    async def _said(self, response: httpx.Response) -> bytes:
        """Why it is refused."""
        async with self._within(self._address.next_s):
            return await _some(response)

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise errors.LlmTimeout(f"Nothing came from it for {seconds:g} s.") from None


async def _some(response: httpx.Response) -> bytes:
    """The beginning of an answer's body."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MOST_BYTES:
            break
    return body[:MOST_BYTES]


@asynccontextmanager
async def _named(url: str) -> AsyncIterator[None]:
    """Trouble on the way as an error of ours."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise errors.LlmUnreachable(f"Nobody answers at {url}.") from None
    except httpx.HTTPError as error:
        raise errors.LlmFailed(f"The connection broke: {type(error).__name__}.") from None
