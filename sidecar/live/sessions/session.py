"""Live session: input in, numbered events out; its observer protocol.

It outlives the connection it came by (`live.sessions.session_registry` ends it when nobody comes
back) and the process its engine lives in (`live.sessions.engine_relay` begins anew from what is not
settled).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sidecar import errors
from sidecar.concurrency import wait_for_event
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions.event_log import EventLog, EventMetrics, NumberedEvent
from sidecar.live.sessions.input_log import InputCommit, InputLog, InputLogTotals
from sidecar.live.sessions.session_checkpoint import SessionCheckpoint, SessionCheckpointer
from sidecar.live.sessions.session_limits import (
    MAX_COMMANDS,
    MAX_EVENTS,
    SAMPLE_RATES,
    SessionBounds,
    clamp_options,
)
from sidecar.live.sessions.session_recording import SessionRecording
from sidecar.observability.metrics import ServiceMetrics
from sidecar.transcripts.transcript import Notice, Transcript


class SessionObserver(Protocol):
    """Of one session. It is told in the event loop, so it never waits."""

    def sound(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """The client sent it, and it was taken."""

    def ordered(self, order: Mapping[str, Any]) -> None:
        """The client wants something, as plain values: `commit`, `forget`, `change`, `finish`."""

    def told(self, numbered: NumberedEvent) -> None:
        """An event was sent."""

    def over(self, wrong: errors.SidecarError | None) -> None:
        """End of the events; called once."""


class SessionObserverFactory(Protocol):
    """Factory of an observer of every session."""

    @property
    def greeting(self) -> Mapping[str, Any]:
        """Return the values that each client is told when its session begins; by each wire in its
        own way."""

    def begin(self, session: Session) -> SessionObserver:
        """A session begins."""


log = logging.getLogger(__name__)

MIN_BUFFER_S = 1.0
"""Seconds of sound that each session may keep, however much the others do."""
BUFFER_POLL_S = 0.25
"""Interval at which a waiting client checks for space in the buffer."""
AUDIO_LOST_NOTICE = Notice(
    "sound_lost", "The engine died twice on the latest audio, which is skipped."
)
NOT_SAVED_CODE = "not_kept"
"""The notice of a session that was to become a job and did not."""


SaveSession = Callable[["Session", Transcript], Awaitable[str]]
"""Makes a job of a session that is over; its id."""


class Session:
    """Held by one connection at a time; not for two tasks at once, but for `events`.

    ``now`` is a clock that only goes forward. ``accepted`` checks options that change, as those of
    the beginning were.
    """

    def __init__(
        self,
        number: str,
        owner: str,
        options: LiveOptions,
        bounds: SessionBounds,
        held: InputLogTotals,
        now: Callable[[], float] = time.monotonic,
        counted: EventMetrics | None = None,
        greeting: Mapping[str, Any] | None = None,
        accepted: Callable[[LiveOptions, SessionBounds], LiveOptions] = clamp_options,
    ) -> None:
        self._accepted = accepted
        self.id = number
        self.owner = owner
        self.options = options
        self.bounds = bounds
        self.greeting: Mapping[str, Any] = greeting or {}
        """Fields for the client at the start, beside those of its wire."""
        self.observers: Sequence[SessionObserver] = ()
        """Observers of all events."""
        self.told = EventLog()
        self.sound = InputLog(held)
        self.began = self.touched = self.held_since = now()
        self.disconnected_at: float | None = None
        """Time when the last connection ended, None while there is one."""
        self.taken = asyncio.Event()
        """Event that is set when another connection takes the session over; then it is another
        one."""
        self.placed = asyncio.Event()
        """Set once an engine had it, or it is over."""
        self.received_orders = 0
        """Commits, cancels, changes and the finish that came: what need not be said again."""
        self.finishing = False
        self.forgiving = False
        """Sound that ends engines is left out, and does not end the session."""
        self.stranger = False
        """Nobody has looked yet whom its owner knows."""
        self.recording: SessionRecording | None = None
        """Takes its sound, where that is kept."""
        self.save: SaveSession | None = None
        """Makes a job of it."""
        self.news = asyncio.Event()
        """Set when there is something for an engine."""
        self.moves = False
        """True if its client reconnects after a hand-over to another service."""
        self.checkpointer: SessionCheckpointer | None = None
        """Saver of its checkpoints for other services; None without a database."""
        self.counted = counted or EventMetrics(ServiceMetrics().live, "", options.patience_s)
        """Metrics of its events."""
        self._now, self._held = now, held
        self._room = asyncio.Event()
        self._stays = asyncio.Event()
        self._stays.set()
        self._steady = asyncio.Event()
        self._steady.set()
        self._waiting = False
        self._answered = 0
        self._orders: deque[dict[str, Any]] = deque(maxlen=1)
        """The options that no engine has been told: all of them, so that the last ones count."""

    @property
    def received_s(self) -> float:
        """Seconds of sound that came."""
        return self.sound.at

    @property
    def acknowledged(self) -> tuple[float, int]:
        """Seconds of sound and orders that a client need not send again."""
        if self.checkpointer is None:
            return self.sound.at, self.received_orders
        return self.checkpointer.acknowledged(self.received_orders)

    @property
    def received_samples(self) -> int:
        """The same in samples, as they came."""
        return self.sound.samples

    @property
    def over(self) -> bool:
        """Return whether no more events come."""
        return self.told.over

    def goes_on(self, after: int) -> None:
        """Resume for a client that reconnects and has no more than event ``after``."""
        self.told.goes_on(after)
        if self.checkpointer is not None:
            self.checkpointer.goes_on(after)

    def restore(self, one: SessionCheckpoint) -> None:
        """Be what another was; no engine has heard anything yet."""
        self.told.restore(one.told)
        self.sound.restore(one.sound)
        self.received_orders, self.finishing = one.received_orders, one.finishing
        self.began -= one.age_s

    def hold(self) -> None:
        """Begin a hand-over: new input waits (`stays`)."""
        self._stays.clear()

    def release(self) -> None:
        """It stays after all."""
        self._stays.set()

    @property
    def place(self) -> float:
        """Return the position from which a new engine goes on, in seconds of its audio."""
        return self.told.behind_finals(self.sound.settled)

    async def stays(self) -> None:
        """Wait while it is being handed over. Where it was, what it is sent next is refused."""
        await self._stays.wait()

    async def steady(self, within_s: float) -> bool:
        """Wait until it is known of all that is told up to where that was said; whether it is."""
        return await wait_for_event(self._steady, within_s)

    @property
    def is_steady(self) -> bool:
        """Return whether it can be saved now: the position of the engine is known."""
        return self._steady.is_set()

    async def send(
        self, raw: bytes, encoding: SampleEncoding = SampleEncoding.PCM16, rate: int = 16_000
    ) -> None:
        """More sound: mono samples, little-endian. Waits where the engine is far behind.

        Raises:
            errors.SoundInvalid: these are no whole samples, or at no rate.
            errors.ChunkTooLong: it is more than may come at once.
            errors.SessionOver: it takes no more.
        """
        if rate not in SAMPLE_RATES:
            raise errors.SoundInvalid(
                f"A sample rate of {rate} Hz is not supported: 8,000 to 192,000."
            )
        if len(raw) % encoding.width:
            raise errors.SoundInvalid(
                f"{len(raw)} bytes are not a whole number of samples of {encoding.width} bytes."
            )
        if len(raw) > self.bounds.chunk_s * rate * encoding.width:
            raise errors.ChunkTooLong(
                f"A chunk may have at most {self.bounds.chunk_s:g} s of audio; this one has "
                f"{len(raw) / encoding.width / rate:.1f} s."
            )
        self._check()
        came = self._now()
        while self._is_full():
            self._room.clear()
            self._waiting = True
            try:
                with contextlib.suppress(TimeoutError):  # room that another makes is not told
                    async with asyncio.timeout(BUFFER_POLL_S):
                        await self._room.wait()
            finally:  # also for a connection that goes away in it
                self._waiting = False
            self._check()
        self.touched = self._now()
        if raw:
            self.counted.waited(self.touched - came)
            self.counted.sound(len(raw) / encoding.width / rate)
            self.sound.add(raw, encoding, rate)
            self.news.set()
            for witness in self.observers:
                witness.sound(raw, encoding, rate)
            if self.recording is not None:
                with contextlib.suppress(errors.SidecarError):  # there is no recording then
                    await self.recording.add(raw, encoding, rate)

    def commit(self) -> None:
        """End the turn behind the sound that came.

        Raises:
            errors.SessionOver: it takes nothing any more.
        """
        self._order({"commit": True})
        self.sound.commit(self.received_orders)
        self.news.set()

    def forget(self) -> None:
        """Drop the turn that goes on, and what was sent of it and not heard. Turns that were ended
        are told first; one `TurnDropped` then says that it is done, whatever becomes of the
        engine."""
        self._order({"forget": True})
        self.sound.forget(self.received_orders)
        self.news.set()

    def meet(self, options: LiveOptions) -> None:
        """Recognise whom these options know. Before an engine is asked."""
        self.options = replace(
            self.options, known_voices=options.known_voices, voiceprints=options.voiceprints
        )
        self.stranger = False

    def change(self, options: LiveOptions) -> None:
        """Change the options from now on. Who may be recognised stays as it was in the beginning,
        and so does what the service decides: whose part of the engine it has, its patience, and how
        long finals wait.

        Raises:
            errors.BadRequest: they are not possible here; nothing has changed.
            errors.SessionOver: it takes nothing any more.
        """
        before = self.options
        changed = replace(
            self._accepted(options, self.bounds),
            known_voices=before.known_voices,
            voiceprints=before.voiceprints,
            client=before.client,
            patience_s=before.patience_s,
            wait_s=before.wait_s,
        )
        order = {"change": changed.spoken.to_wire()}
        self._order(order)
        self.options = changed
        self._orders.append(order)
        self.news.set()

    def finish(self, *, asked: bool = True) -> None:
        """No more sound comes: the rest is told, and then the summary. ``asked``: by its client,
        who counts its orders."""
        if not (self.finishing or self.over):
            self._order({"finish": True}, asked=asked, finish=True)
            self.finishing = True
            self.news.set()

    async def kept(self, summary: live_events.Summary) -> live_events.Summary:
        """The last event, once the session is a job where its client asked for that. What cannot
        be kept is said, and costs nobody the summary."""
        if not self.options.keep or self.save is None:
            return summary
        try:
            job = await self.save(self, summary.transcript)
        except errors.SidecarError as error:
            log.warning("a finished live session could not be saved: %s", error.code)
            notice = Notice(NOT_SAVED_CODE, f"The session could not be saved: {error.detail}")
            self.heard(live_events.NoticeRaised(notice))
            return summary
        return replace(summary, job=job)

    def events(self, after: int = 0) -> AsyncIterator[NumberedEvent]:
        """Everything that is said behind number ``after``, until the end.

        Raises:
            errors.SidecarError: what ended the session, where the client did not.
        """
        return self.told.after(after)

    def end(self, wrong: errors.SidecarError | None = None) -> None:
        """End the session."""
        if not self.over:
            self.counted.ended(wrong, finished=self.finishing)
            for witness in self.observers:
                witness.over(wrong)
        self.told.end(wrong)
        self.sound.clear()
        if self.recording is not None:
            self.recording.close()
        self.news.set()
        self._room.set()
        self._stays.set()
        self._steady.set()
        self.placed.set()

    def heard(self, event: live_events.LiveEvent) -> None:
        """From the engine."""
        if isinstance(event, live_events.InputProcessed):
            self._steady.set()
            self._answered = max(self._answered, event.commits)
            self.sound.settle(event.settled, self._answered, event.wanted)
            self._room.set()
        elif isinstance(event, live_events.TurnEnded) and event.committed:
            self._answered += 1  # an engine that dies now is not asked for it again
            self.sound.answered(self._answered)
        elif isinstance(event, live_events.TurnDropped):
            self.sound.dropped()
            self._room.set()
        self._say(event)

    def lose(self) -> None:
        """No engine survives the sound that the last one had: that is left out. The turn it
        belongs to ends with what was said of it, and the client's wishes in it are done."""
        wishes = self.sound.lose()
        self._say(live_events.NoticeRaised(AUDIO_LOST_NOTICE))
        self._say(self.told.broken_off(self.sound.settled))
        for wish in wishes:
            ended = self.told.broken_off(self.sound.settled)
            if isinstance(wish, InputCommit):
                self._say(replace(ended, committed=True))
            else:
                self._say(live_events.TurnDropped(ended.turn, ended.end))
        self._room.set()

    def _say(self, event: live_events.LiveEvent) -> None:
        """To all who listen."""
        self.counted.said(event)
        if isinstance(event, live_events.Final | live_events.TurnEnded):
            self._steady.clear()  # an engine says next how much of the sound that was
        numbered = self.told.add(event)
        if numbered is not None:
            for witness in self.observers:
                witness.told(numbered)
        if self.checkpointer is not None:
            self.checkpointer.said(event)
        if self.told.kept > MAX_EVENTS:
            self.end(
                errors.SessionTooLong(f"The session has reached its limit of {MAX_EVENTS} events.")
            )

    def touch(self) -> None:
        """Note that the client is connected."""
        self.touched = self._now()

    def orders(self) -> list[dict[str, Any]]:
        """Return the new commands for an engine; each once."""
        orders = list(self._orders)
        self._orders.clear()
        return orders

    def begins_anew(self) -> None:
        """For an engine that knows nothing of it, and gets the options as they are now."""
        self.sound.settled = self.place
        self.sound.rewind()
        self._answered = 0
        self._orders.clear()

    def overdue(self, now: float) -> errors.SidecarError | None:
        """Return the error that ends it by the clock, None if none does."""
        if now - self.began >= self.bounds.longest_s:
            return errors.SessionTooLong()
        is_ours = self.finishing or self._waiting
        if now - self.touched >= self.bounds.idle_s and not is_ours:
            return errors.SessionIdle()
        return None

    def _is_full(self) -> bool:
        kept_s, held = self.sound.seconds, self._held
        if kept_s >= self.bounds.buffer_s:
            return True
        return held.full and kept_s >= MIN_BUFFER_S and not held.may_add(self.sound, self._now())

    def _order(self, order: Mapping[str, Any], *, asked: bool = True, finish: bool = False) -> None:
        self._check()
        self.touched = self._now()
        if asked:
            if self.received_orders >= MAX_COMMANDS and not finish:
                raise errors.SessionTooLong(
                    f"The session has reached its limit of {MAX_COMMANDS} commands."
                )
            self.received_orders += 1
            if self.checkpointer is not None:
                self.checkpointer.ordered(self.received_orders, finish=finish)
        for witness in self.observers:
            witness.ordered(order)

    def _check(self) -> None:
        if self.over or self.finishing:
            raise self.told.wrong or errors.SessionOver()
