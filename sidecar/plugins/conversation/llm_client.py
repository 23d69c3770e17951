"""LLM client over HTTP, and its selection from settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sidecar import openai_http
from sidecar.config import secret_settings
from sidecar.config.settings import Settings
from sidecar.limit_overrides import limit
from sidecar.plugins.conversation import chat_completions
from sidecar.plugins.conversation.errors import (
    LlmFailed,
    LlmGarbled,
    LlmRefused,
    LlmTimeout,
    LlmUnreachable,
)
from sidecar.plugins.conversation.settings import ConversationSettings

if TYPE_CHECKING:
    import httpx


log = logging.getLogger(__name__)

FIRST_TOKEN_S = limit("llm_first_token", 20.0)
"""Seconds that an LLM may take to its first word: it may have to load."""
NEXT_TOKEN_S = limit("llm_next_token", 10.0)
"""Seconds that an LLM may take from one word to the next."""
MAX_TOKENS = limit("llm_max_tokens", 200)
"""Maximum number of tokens of an answer: a minute of speech."""
MAX_REASONING_TOKENS = 2000
"""Tokens beside these for a model that reasons: servers count both together."""
MODELS_TIMEOUT_S = 3.0
"""Seconds for a server to accept a connection, and to list its models."""
WARM_UP_MESSAGES = (chat_completions.ChatMessage(chat_completions.ChatRole.USER, "Hello"),)

AUTO = "auto"
LOCAL_LLM_SERVERS = {
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "llama.cpp": "http://127.0.0.1:8080",
    "vLLM": "http://127.0.0.1:8000",
}
"""Default addresses of local LLM servers, from their documentation."""
PROBE_TIMEOUT_S = 2.0
"""Seconds for a local server to answer on a busy machine; a closed port is known at once."""


@dataclass(frozen=True, slots=True)
class LlmAddress:
    """Address of an LLM, and its request options.

    ``url``: without the path of the API; '' searches this machine. ``model``: '' takes the first
    that the server lists. ``first_s``: seconds to the first word (a server may have to load the
    model); ``next_s``: seconds from one word to the next. ``max_tokens``: maximum of an answer;
    ``max_reasoning_tokens``: beside these, for a model that reasons. The key is never printed.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    max_tokens: int = MAX_TOKENS
    max_reasoning_tokens: int = MAX_REASONING_TOKENS
    first_s: float = FIRST_TOKEN_S
    next_s: float = NEXT_TOKEN_S

    @property
    def looked_for(self) -> bool:
        """Return whether any server that answers on this machine is used."""
        return not self.url


class LlmClient:
    """HTTP client of one model."""

    calls = True
    """The model may call tools, and decides by itself whether it does."""

    def __init__(
        self,
        address: LlmAddress,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        listed: str = "",
    ) -> None:
        """``transport``: None for the network. ``listed``: the first model that the server lists,
        if that is known."""
        import httpx

        self._address = address
        self._model, self._limit = address.model or listed, chat_completions.LIMIT
        self._reasons = False
        """Whether the model's replies begin with reasoning that no mark begins."""
        self._reasoning_tokens = 0
        """Tokens that it may need to reason, beside those of a reply."""
        options = openai_http.client_options(MODELS_TIMEOUT_S, url=address.url, key=address.key)
        self._client = httpx.AsyncClient(**options, transport=transport)

    @property
    def name(self) -> str:
        """Return the model's name and its host."""
        return f"{self._model or 'a language model'} at {self._client.base_url.netloc.decode()}"

    async def ready(self) -> None:
        """Determine the model and have the server load it: request one token and drop it.

        Raises:
            LlmError: the server does not answer, or rejects the request.
        """
        await self._determine_model()
        async with self._within(self._address.first_s), self._request(WARM_UP_MESSAGES, 1):
            pass

    async def models(self) -> tuple[str, ...]:
        """Return the models that the server lists, after the configured one.

        Raises:
            LlmError: the server lists nothing.
        """
        listed = openai_http.model_names(await self._list_models())
        if listed and not self._address.model and self._model not in listed:
            self._model = listed[0]
        return tuple(dict.fromkeys(filter(None, (self._model, *listed))))

    def other(self, model: str) -> LlmClient:
        """Return a client of another model, with its own connections."""
        return LlmClient(replace(self._address, model=model))

    async def reply(
        self,
        messages: Sequence[chat_completions.ChatMessage],
        tools: chat_completions.ToolSet = chat_completions.NO_TOOLS,
    ) -> AsyncGenerator[chat_completions.LlmDelta, None]:
        """Yield the reply as `Llm.reply`. Leaving early closes the connection, which ends the
        server's work.

        Raises:
            LlmUnreachable, LlmTimeout, LlmRefused, LlmFailed,
            LlmGarbled: it did not answer, or not to the end.
        """
        await self._determine_model()
        within_s = self._address.first_s
        since: float | None = asyncio.get_running_loop().time()
        while since is not None:  # no part of the reply has come
            reasoning = self._reasoning_tokens
            parser = chat_completions.ChatStreamParser(reasons=self._reasons)
            async with self._request(
                messages, self._address.max_tokens + reasoning, tools
            ) as events:
                while not parser.done:
                    async with self._within(within_s, since):
                        deltas = await self._next(events, parser)
                    for delta in deltas:
                        yield delta
                        within_s, since = self._address.next_s, None
            self._reasons = self._reasons or parser.reasoning_filter.lone_end
            # OpenAI's models reason without showing it, and take the newer limit.
            newer = self._limit == chat_completions.NEWER_LIMIT
            reasoned = newer or parser.reasoning_filter.reasoned
            if since is None or not (parser.cut_off and reasoned):
                return
            self._reasoning_tokens = self._address.max_reasoning_tokens
            if reasoning:
                raise LlmFailed(
                    "The language model reasoned until its limit of tokens, without an answer.",
                    hint="Turn its reasoning off, or choose another model.",
                )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _next(
        self, events: AsyncIterator[bytes], parser: chat_completions.ChatStreamParser
    ) -> list[chat_completions.LlmDelta]:
        """Return the next deltas; none at the end. Events without deltas are skipped."""
        async for event in events:
            if (deltas := parser.feed(event)) or parser.done:
                return deltas
        if parser.finished:
            return parser.end()
        raise LlmFailed("The response of the language model ended early.")

    async def _determine_model(self) -> None:
        """Determine the model to use, if it is not configured."""
        if not self._model:
            self._model = await self._first_model()

    async def _first_model(self) -> str:
        """Return the first model that the server lists."""
        if names := openai_http.model_names(await self._list_models()):
            return names[0]
        raise LlmRefused(
            "The language model's server has no model.", hint="Install one there (ollama pull …)."
        )

    async def _has_other_model(self, model: str) -> bool:
        """Determine the model anew, if it is not configured; return whether it is another one than
        ``model``, which the server does not know."""
        if self._address.model:
            return False
        if self._model == model:
            self._model = await self._first_model()
        return self._model != model

    async def _list_models(self) -> object:
        """Return the server's list of models."""
        try:
            async with self._within(MODELS_TIMEOUT_S):
                with self._http_errors_as_ours():
                    raw = await openai_http.get(self._client, chat_completions.MODELS_PATH)
        except openai_http.RequestRefused as refused:
            raise chat_completions.response_error(refused.status, refused.body) from None
        if (body := openai_http.loads(raw)) is None:
            raise LlmGarbled()
        return body

    @asynccontextmanager
    async def _request(
        self,
        messages: Sequence[chat_completions.ChatMessage],
        max_tokens: int,
        tools: chat_completions.ToolSet = chat_completions.NO_TOOLS,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request; yield the events of the accepted response."""
        with self._http_errors_as_ours():
            async with AsyncExitStack() as stack:
                response = await self._send(stack, messages, max_tokens, tools)
                events = openai_http.event_data(
                    response.aiter_bytes(),
                    chat_completions.MAX_EVENT_BYTES,
                    chat_completions.stream_fault,
                )
                yield await stack.enter_async_context(aclosing(events))

    async def _send(
        self,
        stack: AsyncExitStack,
        messages: Sequence[chat_completions.ChatMessage],
        max_tokens: int,
        tools: chat_completions.ToolSet,
    ) -> httpx.Response:
        """Send a request, once more if the server wants the newer name of the limit, or if it has
        another model now and the settings name none."""
        switched = False  # else a server that lists its models in changing order is asked for ever
        while True:
            limit, model = self._limit, self._model  # a parallel request may change them
            body = chat_completions.chat_request(messages, model, max_tokens, tools, limit)
            accepted = openai_http.accepted(
                self._client, "POST", chat_completions.CHAT_COMPLETIONS_PATH, json=body
            )
            try:
                async with self._within(self._address.first_s):
                    return await stack.enter_async_context(accepted)
            except openai_http.RequestRefused as refused:
                if refused.status == 404 and not switched and await self._has_other_model(model):
                    switched = True
                    continue
                newer = chat_completions.wants_newer_limit(refused.body)
                if limit != chat_completions.LIMIT or not newer:
                    raise chat_completions.response_error(refused.status, refused.body) from None
                self._limit = chat_completions.NEWER_LIMIT

    def _http_errors_as_ours(self) -> AbstractContextManager[None]:
        return openai_http.http_errors_as(
            lambda _: LlmUnreachable(f"No server answers at {self._address.url}."),
            lambda error: LlmFailed(
                f"The connection to the language model broke: {type(error).__name__}."
            ),
        )

    @asynccontextmanager
    async def _within(self, seconds: float, since: float | None = None) -> AsyncIterator[None]:
        """Limit the time since ``since`` on the loop's clock; `None`: since now."""
        began = asyncio.get_running_loop().time() if since is None else since
        try:
            async with asyncio.timeout_at(began + seconds):
                yield
        except TimeoutError:
            raise LlmTimeout(f"The language model sent nothing for {seconds:g} s.") from None


def choose_llm(settings: Settings) -> LlmAddress | None:
    """Return the address of the LLM by the settings; `None` for the echo model. No request is sent.

    Raises:
        errors.SettingsInvalid: the address or the key is not valid.
    """
    group = ConversationSettings.of(settings)
    name = group.llm.strip()
    if name == chat_completions.REPEAT_LLM_NAME:
        return None
    return LlmAddress(
        "" if name == AUTO else secret_settings.parse_server_url(name, "llm"),
        group.llm_model,
        secret_settings.parse_key(group.llm_key, "llm"),
    )


async def create_llm(
    address: LlmAddress | None,
    *,
    again: bool = False,
    local: Mapping[str, str] = LOCAL_LLM_SERVERS,
    probe_s: float = PROBE_TIMEOUT_S,
) -> chat_completions.Llm:
    """Create the client of an LLM. With 'auto' it is a server that answers on this machine, and no
    other: one of ``local``, within ``probe_s``. ``again``: an earlier search found none, which is
    logged already."""
    if address is None:
        return chat_completions.RepeatLlm()
    if not address.looked_for:
        return LlmClient(address)
    probes = {
        url: asyncio.ensure_future(_probe_model(url, address.model, probe_s))
        for url in local.values()
    }
    try:
        for name, url in local.items():
            if model := await probes[url]:
                log.info("LLM: %s of %s at %s", model, name, url)
                return LlmClient(replace(address, url=url), listed=model)
    finally:
        for probe in probes.values():
            probe.cancel()
    if not again:
        log.info(
            "LLM: none found (tried: %s); conversations repeat what the user says; set "
            "VIBEVOICE_LLM to a server",
            ", ".join(local),
        )
    return chat_completions.RepeatLlm()


async def _probe_model(url: str, model: str, probe_s: float) -> str:
    """Return the model of a server on this machine: the wanted one, else its first; '' if there is
    no server or model."""
    import httpx

    options = openai_http.client_options(probe_s, url=url)
    try:
        async with httpx.AsyncClient(**options) as client, asyncio.timeout(probe_s):
            body = await openai_http.get(client, chat_completions.MODELS_PATH)
    except (TimeoutError, httpx.HTTPError, openai_http.RequestRefused):
        return ""
    names = openai_http.model_names(openai_http.loads(body))
    return model or names[0] if names else ""
