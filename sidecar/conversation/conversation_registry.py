"""Registry of conversations."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.config.settings import Settings
from sidecar.conversation import speech_input
from sidecar.conversation.conversation_events import TalkOptions
from sidecar.conversation.conversation_loop import Talk
from sidecar.conversation.llm.chat_completions import REPEAT, Repeat, Thinker
from sidecar.conversation.llm.llm_client import meant_by, thinker_of
from sidecar.conversation.output_queue import Client, Latency, Phase, ReplyStarted, Told
from sidecar.interfaces.engine_interface import SayOptions
from sidecar.live.sessions.session_registry import Sessions
from sidecar.workers.engine_slot import Spoken

log = logging.getLogger(__name__)

LEAVING_S = 1.0
"""So long one waits for a place: a page that is loaded anew comes back before it is known that it
has left."""
AT_ONCE_S = 0.1
"""Where nobody listens at an address that is known within this."""
LOOK_RESTS = 30
"""Times the length of a look that took longer there is none."""


class Conversations:
    """Owns who thinks for all of them. ``voice``: what speaks, None where nothing does."""

    def __init__(self, settings: Settings, sessions: Sessions, voice: Spoken | None) -> None:
        """All that there may be, by the settings.

        Raises:
            errors.SettingsInvalid: what they say of who thinks cannot be.
        """
        self._meant = meant_by(settings)
        self._settings, self._sessions, self._voice = settings, sessions, voice
        self._thinker: Thinker | None = None
        self._others: dict[str, Thinker] = {REPEAT: Repeat()}
        self._finding = asyncio.Lock()
        self._look_at = 0.0
        self._going: set[Talk] = set()
        self._opening = 0
        self._left = asyncio.Event()
        self.replies = 0
        """How many were begun since the service started."""
        self.last = Latency(0)
        """Where the time went in the last one that was heard."""

    def __len__(self) -> int:
        """How many go on."""
        return len(self._going) + self._opening

    @property
    def phase(self) -> Phase:
        """What one of them is doing."""
        return next((talk.phase for talk in self._going), Phase.IDLE)

    @property
    def llm(self) -> str:
        """Who thinks, as far as that is known before anybody asked."""
        return self._thinker.name if self._thinker is not None else self._settings.llm

    async def models(self) -> tuple[str, ...]:
        """Who may think, who does unasked first; `REPEAT` always may. A server that does not say
        what it has is met when somebody talks."""
        thinker = await self._found()
        named: tuple[str, ...] = ()
        with suppress(errors.LlmError):
            named = await thinker.models()
        return tuple(dict.fromkeys((*named, REPEAT)))

    async def voices(self) -> tuple[str, ...]:
        """Whose voices there are, loading the engine that speaks if need be.

        Raises:
            errors.SidecarError: it does not come.
        """
        return await self._voice.ready() if self._voice is not None else ()

    async def thinker(self, model: str = "") -> Thinker:
        """Who thinks by that name, '' for who does unasked.

        Raises:
            errors.ModelNotFound: nobody has it.
        """
        usual = await self._found()
        if not model:
            return usual
        if model not in self._others:
            if model not in await self.models():
                raise errors.ModelNotFound(hint="GET /v1/talk lists the models that answer.")
            usual = await self._found()  # it may have been found just now
            self._others.setdefault(model, usual.other(model))
        return self._others[model]

    def options(self) -> TalkOptions:
        """A conversation's manners, as the settings have them."""
        return TalkOptions(
            instructions=self._settings.talk_instructions, voiced=self._voice is not None
        )

    @asynccontextmanager
    async def open(
        self,
        caller: Identity,
        options: TalkOptions,
        manner: SayOptions,
        *,
        client: Client | None = None,
        session: str | None = None,
    ) -> AsyncIterator[Talk]:
        """A conversation, for as long as it is held. Model and voice are made ready meanwhile.
        ``client`` and ``manner`` as `Talk`; ``session``: its number.

        Raises:
            errors.TalkFull: there are enough of them.
            errors.LiveUnavailable, errors.LiveFull, errors.LiveLimited: nobody can hear it.
        """
        await self._place()
        self._opening += 1
        try:
            thinker = await self._found()
            hears = speech_input.options(self._settings.language)
            idle_s = self._settings.talk_idle
            live = self._sessions.open(
                caller, hears, session, wire="talk", forgiving=True, idle_s=idle_s
            )
        finally:
            self._opening -= 1
        talk = Talk(live, thinker, self._voice, options, manner, client=client, seen=self._seen)
        self._going.add(talk)
        warming = [self._warm(talk, thinker.ready)]
        if self._voice is not None and options.voiced:
            warming.append(self._warm(talk, self._voice.ready))
        try:
            yield talk
        finally:
            self._going.discard(talk)
            self._left.set()
            self._sessions.end(live)
            for task in warming:
                task.cancel()
            await asyncio.wait(warming)

    async def close(self) -> None:
        """Let go of who thinks; the conversations end with their connections."""
        for thinker in filter(None, (self._thinker, *self._others.values())):
            await thinker.close()

    async def _place(self) -> None:
        """Wait a little for a place.

        Raises:
            errors.TalkFull: there is none.
        """
        try:
            async with asyncio.timeout(LEAVING_S):
                while len(self) >= self._settings.conversations:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            raise errors.TalkFull() from None

    async def _found(self) -> Thinker:
        """Who thinks. A server on this machine may start later than this service: while there is
        none it is looked for again, seldom if a look takes long."""
        async with self._finding:
            if self._thinker is None:
                self._thinker = await thinker_of(self._meant)
            elif (
                isinstance(self._thinker, Repeat)
                and self._meant.looked_for
                and time.monotonic() >= self._look_at
            ):
                began = time.monotonic()
                self._thinker = await thinker_of(self._meant, again=True)
                took_s = time.monotonic() - began
                self._look_at = began + (LOOK_RESTS * took_s if took_s > AT_ONCE_S else 0.0)
            return self._thinker

    def _warm(self, talk: Talk, ready: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
        """Have a stage ready before it is needed; what keeps it from that is said at once."""

        async def warmed() -> None:
            try:
                await ready()
            except errors.SidecarError as error:
                log.warning("a conversation begins without all it needs: %s", error.detail)
                talk.warn(error)

        return asyncio.get_running_loop().create_task(warmed(), name="warm up")

    def _seen(self, told: Told) -> None:
        if isinstance(told, Latency):
            self.last = told
        elif isinstance(told, ReplyStarted):
            self.replies += 1
