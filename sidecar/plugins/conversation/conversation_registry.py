"""Registry of the conversations in progress, with their LLM and TTS clients.

The service has it before the first conversation, whose modules are imported with its protocols.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.concurrency import running
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import SynthesisOptions, abbreviate_names
from sidecar.limit_overrides import limit
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.observability.logs import ONCE_A_MINUTE
from sidecar.plugins.conversation import conversation_events
from sidecar.plugins.conversation.chat_completions import REPEAT_LLM_NAME, Llm, RepeatLlm
from sidecar.plugins.conversation.errors import LlmError, LlmGarbled, LlmRefused, TalkFull
from sidecar.plugins.conversation.llm_client import choose_llm, create_llm
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.workers.tts_client import TtsClient

if TYPE_CHECKING:
    from sidecar.plugins.conversation.conversation_loop import ConversationLoop
    from sidecar.service.facade import Service

log = logging.getLogger(__name__)

IDLE_S = limit("talk_idle", 600.0)
"""Seconds after which a conversation ends without audio, text or requests of the client."""
SLOT_WAIT_S = 1.0
"""Seconds that a new conversation waits for a slot: a reloaded page may still hold its own."""
FAST_PROBE_S = 0.1
"""Seconds within which a refused connection is known."""
PROBE_REST_FACTOR = 30
"""Interval between searches for an LLM that take longer, as a multiple of a search's duration."""


class ConversationRegistry:
    """Conversations in progress, and the LLM clients that they share. ``tts``: TTS client; `None`
    if there is none."""

    def __init__(
        self, settings: Settings, sessions: SessionRegistry, tts: TtsClient | None
    ) -> None:
        """Configure the registry; the LLM is searched for later.

        Raises:
            errors.SettingsInvalid: the settings of the LLM are not valid.
        """
        self._llm_address = choose_llm(settings)
        self.create_llm, self.fast_probe_s = create_llm, FAST_PROBE_S
        """Search for an LLM, and the seconds from which on it counts as slow."""
        if self._llm_address is not None and not self._llm_address.looked_for:
            log.info(
                "LLM: %s at %s answers conversations",
                self._llm_address.model or "the first model",
                self._llm_address.url,
            )
        self._settings = ConversationSettings.of(settings)
        self._language = settings.language
        self._sessions, self._tts = sessions, tts
        self._llm: Llm | None = None
        self._other_llms: dict[str, Llm] = {REPEAT_LLM_NAME: RepeatLlm()}
        self._search_lock = asyncio.Lock()
        self._next_search_at = 0.0
        self._conversations: set[ConversationLoop] = set()
        self._opening = 0
        self._slot_freed = asyncio.Event()
        self.replies = 0
        """Number of replies since the service started."""
        self.last: conversation_events.ReplyLatency | None = None
        """Latencies of the last reply that was played."""

    @classmethod
    def of(cls, service: Service) -> Self:
        """Return the registry of a service."""
        return next(part for part in service.parts if isinstance(part, cls))

    def health(self) -> dict[str, Any]:
        """Return the field of `/health`."""
        return {"pipeline_state": self.phase.value}

    def __len__(self) -> int:
        """Return the number of conversations in progress."""
        return len(self._conversations) + self._opening

    @property
    def phase(self) -> conversation_events.ConversationPhase:
        """Return the phase of one of the conversations."""
        return next(
            (conversation.machine.phase for conversation in self._conversations),
            conversation_events.ConversationPhase.IDLE,
        )

    @property
    def llm_name(self) -> str:
        """Return the name of the LLM, as far as it is known before the first request."""
        return self._llm.name if self._llm is not None else self._settings.llm

    async def models(self) -> tuple[str, ...]:
        """Return the LLMs to choose from, the default first; `REPEAT_LLM_NAME` is always there. The
        default of a server that does not list its models is missing."""
        llm = await self._default_llm()
        models: tuple[str, ...] = ()
        with suppress(LlmError):
            models = await llm.models()
        return tuple(dict.fromkeys((*models, REPEAT_LLM_NAME)))

    async def voices(self) -> tuple[str, ...]:
        """Return the voices; load the TTS engine if necessary.

        Raises:
            errors.SidecarError: it does not load.
        """
        return await self._tts.ready() if self._tts is not None else ()

    def check_voice(self, name: str) -> None:
        """Refuse a voice that does not exist, if the voices are known: `voices` loads them, and
        waits for the replies of all conversations. Of some engines only the speech server knows
        the names.

        Raises:
            errors.VoiceUnknown: the TTS engine has no such voice.
        """
        voices = self._tts.known_voices if self._tts is not None else ()
        if voices and name not in voices:
            raise errors.VoiceUnknown(
                f"There is no voice '{name[:80]}' here.",
                hint=f"There are: {abbreviate_names(voices)}.",
            )

    async def has_model(self, name: str) -> bool:
        """Return whether there is an LLM of that name.

        Raises:
            LlmError: its server does not answer now, and may know it.
        """
        if name in self._other_llms:
            return True
        llm = await self._default_llm()
        try:
            return name in await llm.models()
        except (LlmGarbled, LlmRefused):  # a server that does not list its models
            return False

    async def find_llm(self, model: str = "") -> Llm:
        """Return the LLM of that name, '' for the default.

        Raises:
            errors.ModelNotFound: no model has that name.
            LlmError: as `has_model`.
        """
        default = await self._default_llm()
        if not model:
            return default
        if model not in self._other_llms:
            if not await self.has_model(model):
                raise errors.ModelNotFound(hint="GET /v1/talk lists the models.")
            default = await self._default_llm()  # the search in `has_model` may have found another
            self._other_llms.setdefault(model, default.other(model))
        return self._other_llms[model]

    def options(self) -> conversation_events.ConversationOptions:
        """Return the options of a conversation by the settings."""
        instructions = self._settings.talk_instructions
        return conversation_events.ConversationOptions(instructions, voiced=self._tts is not None)

    @asynccontextmanager
    async def open(
        self,
        identity: Identity,
        options: conversation_events.ConversationOptions,
        synthesis: SynthesisOptions,
        *,
        clears: bool = False,
    ) -> AsyncIterator[ConversationLoop]:
        """Open a conversation until the context ends; prepare the LLM and TTS meanwhile.
        ``synthesis`` and ``clears`` as in `ConversationLoop`.

        Raises:
            TalkFull: no slot is free.
            errors.LiveUnavailable, errors.LiveFull, errors.LiveLimited: there is no live session.
        """
        from sidecar.plugins.conversation.conversation_loop import ConversationLoop
        from sidecar.plugins.conversation.speech_input import speech_input_options

        await self._wait_for_slot()
        self._opening += 1
        try:
            llm = await self._default_llm()
            live_options = speech_input_options(self._language)
            session = self._sessions.open(
                identity, live_options, wire="talk", forgiving=True, idle_s=IDLE_S
            )
        finally:
            self._opening -= 1
            self._slot_freed.set()  # if this one failed, its slot is free
        conversation = ConversationLoop(
            session,
            llm,
            self._tts,
            options,
            synthesis,
            clears=clears,
            on_client_event=self._observe,
        )
        self._conversations.add(conversation)
        preparations = [_prepare(conversation, llm.ready)]
        if self._tts is not None and options.voiced:
            preparations.append(_prepare(conversation, self._tts.ready))
        async with running(*preparations):
            try:
                yield conversation
            finally:
                self._conversations.discard(conversation)
                self._slot_freed.set()
                self._sessions.end(session)

    async def close(self) -> None:
        """Close the LLM clients. Conversations end with their connections."""
        for llm in filter(None, (self._llm, *self._other_llms.values())):
            await llm.close()

    async def _wait_for_slot(self) -> None:
        """Wait a little for a free slot.

        Raises:
            TalkFull: no slot is free.
        """
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                while len(self) >= self._settings.conversations:
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
        except TimeoutError:
            raise TalkFull() from None

    async def _default_llm(self) -> Llm:
        """Return the LLM. A server on this machine may start later than this service. So the
        search is repeated until one is found, less often if a search takes long."""
        async with self._search_lock:
            if self._llm is None:
                self._llm = await self.create_llm(self._llm_address)
            elif (
                isinstance(self._llm, RepeatLlm)
                and self._llm_address is not None
                and time.monotonic() >= self._next_search_at
            ):
                began = time.monotonic()
                self._llm = await self.create_llm(self._llm_address, again=True)
                took_s = time.monotonic() - began
                rest_s = PROBE_REST_FACTOR * took_s if took_s > self.fast_probe_s else 0.0
                self._next_search_at = began + rest_s
            return self._llm

    def _observe(self, event: conversation_events.ConversationClientEvent) -> None:
        if isinstance(event, conversation_events.ReplyLatency):
            self.last = event
        elif isinstance(event, conversation_events.ReplyStarted):
            self.replies += 1
        elif isinstance(event, conversation_events.ConversationError):
            log.warning(
                "a turn of a conversation failed: %s (docs/errors.md)",
                event.error.code,
                extra=ONCE_A_MINUTE,
            )


async def _prepare(conversation: ConversationLoop, ready: Callable[[], Awaitable[object]]) -> None:
    """Prepare a stage before it is needed; report an error to the client at once."""
    try:
        await ready()
    except errors.SidecarError as error:
        log.warning("a part of a new conversation is not ready: %s", error.detail)
        if not conversation.machine.replying:  # else that reply tells it
            conversation.warn(error)
