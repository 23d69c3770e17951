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
from sidecar.plugins.conversation.errors import LlmError, TalkFull
from sidecar.plugins.conversation.llm_client import choose_llm, create_llm
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.workers.engine_fleet import TtsClient

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
    """Conversations in progress, and the LLM clients that they share. ``voice``: TTS client; `None`
    if there is none."""

    def __init__(self, settings: Settings, live: SessionRegistry, voice: TtsClient | None) -> None:
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
        self._sessions, self._voice = live, voice
        self._thinker: Llm | None = None
        self._others: dict[str, Llm] = {REPEAT_LLM_NAME: RepeatLlm()}
        self._finding = asyncio.Lock()
        self._look_at = 0.0
        self._going: set[ConversationLoop] = set()
        self._opening = 0
        self._left = asyncio.Event()
        self.replies = 0
        """Number of replies since the service started."""
        self.last: conversation_events.ReplyLatency | None = None
        """Latencies of the last reply that was played."""

    @classmethod
    def of(cls, service: Service) -> Self:
        """Return the registry of a service."""
        return service.part(cls)

    def health(self) -> dict[str, Any]:
        """Return the field of `/health`."""
        return {"pipeline_state": self.phase.value}

    def __len__(self) -> int:
        """Return the number of conversations in progress."""
        return len(self._going) + self._opening

    @property
    def phase(self) -> conversation_events.ConversationPhase:
        """Return the phase of one of the conversations."""
        return next(
            (talk.machine.phase for talk in self._going), conversation_events.ConversationPhase.IDLE
        )

    @property
    def llm(self) -> str:
        """Return the name of the LLM, as far as it is known before the first request."""
        return self._thinker.name if self._thinker is not None else self._settings.llm

    async def models(self) -> tuple[str, ...]:
        """Return the LLMs to choose from, the default first; `REPEAT_LLM_NAME` is always there. The
        default of a server that does not list its models is missing."""
        thinker = await self._found()
        named: tuple[str, ...] = ()
        with suppress(LlmError):
            named = await thinker.models()
        return tuple(dict.fromkeys((*named, REPEAT_LLM_NAME)))

    async def voices(self) -> tuple[str, ...]:
        """Return the voices; load the TTS engine if necessary.

        Raises:
            errors.SidecarError: it does not load.
        """
        return await self._voice.ready() if self._voice is not None else ()

    def check_voice(self, name: str) -> None:
        """Refuse a voice that does not exist, if the voices are known: `voices` loads them, and
        waits for the replies of all conversations. Of some engines only the speech server knows
        the names.

        Raises:
            errors.VoiceUnknown: the TTS engine has no such voice.
        """
        known = self._voice.known_voices if self._voice is not None else ()
        if known and name not in known:
            raise errors.VoiceUnknown(
                f"There is no voice '{name[:80]}' here.",
                hint=f"There are: {abbreviate_names(known)}.",
            )

    async def thinker(self, model: str = "") -> Llm:
        """Return the LLM of that name, '' for the default.

        Raises:
            errors.ModelNotFound: no model has that name.
        """
        usual = await self._found()
        if not model:
            return usual
        if model not in self._others:
            if model not in await self.models():
                raise errors.ModelNotFound(hint="GET /v1/talk lists the models.")
            usual = await self._found()  # the search in `models` may have found another
            self._others.setdefault(model, usual.other(model))
        return self._others[model]

    def options(self) -> conversation_events.ConversationOptions:
        """Return the options of a conversation by the settings."""
        instructions = self._settings.talk_instructions
        return conversation_events.ConversationOptions(instructions, voiced=self._voice is not None)

    @asynccontextmanager
    async def open(
        self,
        caller: Identity,
        options: conversation_events.ConversationOptions,
        manner: SynthesisOptions,
        *,
        clears: bool = False,
    ) -> AsyncIterator[ConversationLoop]:
        """Open a conversation until the context ends; prepare the LLM and TTS meanwhile. ``manner``
        and ``clears`` as in `ConversationLoop`.

        Raises:
            TalkFull: no slot is free.
            errors.LiveUnavailable, errors.LiveFull, errors.LiveLimited: there is no live session.
        """
        from sidecar.plugins.conversation.conversation_loop import ConversationLoop
        from sidecar.plugins.conversation.speech_input import speech_input_options

        await self._place()
        self._opening += 1
        try:
            thinker = await self._found()
            hears = speech_input_options(self._language)
            live = self._sessions.open(caller, hears, wire="talk", forgiving=True, idle_s=IDLE_S)
        finally:
            self._opening -= 1
            self._left.set()  # if this one failed, its slot is free
        talk = ConversationLoop(
            live, thinker, self._voice, options, manner, clears=clears, seen=self._seen
        )
        self._going.add(talk)
        warming = [_warmed(talk, thinker.ready)]
        if self._voice is not None and options.voiced:
            warming.append(_warmed(talk, self._voice.ready))
        async with running(*warming):
            try:
                yield talk
            finally:
                self._going.discard(talk)
                self._left.set()
                self._sessions.end(live)

    async def close(self) -> None:
        """Close the LLM clients. Conversations end with their connections."""
        for thinker in filter(None, (self._thinker, *self._others.values())):
            await thinker.close()

    async def _place(self) -> None:
        """Wait a little for a free slot.

        Raises:
            TalkFull: no slot is free.
        """
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                while len(self) >= self._settings.conversations:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            raise TalkFull() from None

    async def _found(self) -> Llm:
        """Return the LLM. A server on this machine may start later than this service. So the
        search is repeated until one is found, less often if a search takes long."""
        async with self._finding:
            if self._thinker is None:
                self._thinker = await self.create_llm(self._llm_address)
            elif (
                isinstance(self._thinker, RepeatLlm)
                and self._llm_address is not None
                and time.monotonic() >= self._look_at
            ):
                began = time.monotonic()
                self._thinker = await self.create_llm(self._llm_address, again=True)
                took_s = time.monotonic() - began
                rest_s = PROBE_REST_FACTOR * took_s if took_s > self.fast_probe_s else 0.0
                self._look_at = began + rest_s
            return self._thinker

    def _seen(self, told: conversation_events.ConversationClientEvent) -> None:
        if isinstance(told, conversation_events.ReplyLatency):
            self.last = told
        elif isinstance(told, conversation_events.ReplyStarted):
            self.replies += 1
        elif isinstance(told, conversation_events.ConversationError):
            log.warning(
                "a turn of a conversation failed: %s (docs/errors.md)",
                told.error.code,
                extra=ONCE_A_MINUTE,
            )


async def _warmed(talk: ConversationLoop, ready: Callable[[], Awaitable[object]]) -> None:
    """Prepare a stage before it is needed; report an error to the client at once."""
    try:
        await ready()
    except errors.SidecarError as error:
        log.warning("a part of a new conversation is not ready: %s", error.detail)
        if not talk.machine.replying:  # else that reply tells it
            talk.warn(error)
