"""Live session: input in, numbered events out.

A session outlives the connection of its client: `live.sessions.session_registry` ends it if the
client does not reconnect. It also outlives the worker process of its engine:
`live.sessions.engine_relay` resumes it in another, from the first audio that is not settled.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_options import LiveOptions, LiveOrder, SampleEncoding, TurnControl
from sidecar.live.sessions.event_log import EventLog, EventMetrics, NumberedEvent
from sidecar.live.sessions.input_log import InputLog, InputLogTotals
from sidecar.live.sessions.session_limits import SAMPLE_RATES, SessionBounds, accepted_options
from sidecar.live.sessions.session_recording import SessionRecording
from sidecar.observability.metrics import ServiceMetrics
from sidecar.transcripts.transcript import Notice, Transcript

log = logging.getLogger(__name__)

MAX_MICROPHONE_PACE, MAX_MICROPHONE_LEAD_S = 1.25, 3.0
"""Seconds of audio that a microphone sends per second at most, and by how many it exceeds that: a
client may have recorded before it was connected."""
MAX_COUNTED_LEAD_S = 2 * MAX_MICROPHONE_LEAD_S
"""Seconds of a client's lead that count at most: one that recorded for minutes before it connected
is a microphone 12 s after it has caught up."""
MIN_BUFFER_S = 1.0
"""Seconds of audio that each session may keep, however much the others keep."""
MAX_AHEAD_S = 3.0
"""Seconds by which a client counts as ahead at most, unless it sends more in one message: the next
comes that much later."""
BUFFER_POLL_S = 0.25
"""Interval at which a waiting client checks for space in the buffer."""
ENGINE_LOADING_NOTICE = Notice(
    "engine_loading", "The engine was not loaded: the first words come some seconds late."
)
ENGINE_RESTARTED_NOTICE = Notice("engine_restarted", "The engine was restarted; no audio is lost.")
AUDIO_LOST_NOTICE = Notice(
    "sound_lost", "The engine died twice on the latest audio, which is skipped."
)
FINISH_TIMEOUT_S = 120.0
"""Seconds to send the remaining events of a session whose time is up."""
SAVE_TIMEOUT_S = 600.0
"""Time in which a session that becomes a job keeps its place: its recording may be of hours. A disk
that does not answer by then costs no transcript: that is written once it does."""
NOT_SAVED_CODE = "not_kept"
"""Code of the notice that a session could not be saved as a job."""


SaveSession = Callable[["Session", Transcript], Awaitable[str]]
"""Function that makes a job of a finished session and returns its id."""


class Session:
    """Live session. One connection holds it at a time; only `events` allows two tasks at once.

    ``now``: a monotonic clock. ``spec``: of the engine.
    """

    channels = 1
    """Channels of its audio, and so its streams in the engine."""
    channel_names: tuple[str, ...] = ()
    """Names of several channels."""

    def __init__(
        self,
        number: str,
        owner: str,
        options: LiveOptions,
        bounds: SessionBounds,
        totals: InputLogTotals,
        now: Callable[[], float] = time.monotonic,
        event_metrics: EventMetrics | None = None,
        spec: EngineSpec | None = None,
    ) -> None:
        self.id = number
        self.name = ""
        """Name of the job that it becomes, if it is kept."""
        self.owner = owner
        self.spec = spec
        self.options = options
        self.bounds = bounds
        self.event_log = EventLog()
        self.input_log = InputLog(totals, owner)
        self.input_log.options = options
        self.began = self.touched = now()
        self.disconnected_at: float | None = None
        """Time when the last connection ended; None while one is open."""
        self.taken = asyncio.Event()
        """Set when another connection takes the session over, which then gets a new event."""
        self.connection_lock = asyncio.Lock()
        """Held by the connection that sends and reads here."""
        self.received_orders = 0
        """Number of received commits, cancels, changes and finish, which need no repetition."""
        self.finishing = False
        self.concluding = False
        """True once nothing more is recognized, and it is only to be saved."""
        self.reason: errors.SidecarError | None = None
        """Why the service ends it, after its summary; None if its client does."""
        self.forgiving = False
        """True if audio on which engines crash is skipped, and does not end the session."""
        self.recording: SessionRecording | None = None
        self.save: SaveSession | None = None
        self.end_by = math.inf
        """Time by which its last events have to be there, once it takes no more audio."""
        self.news = asyncio.Event()
        """Set when there is input for an engine."""
        self.event_metrics = event_metrics or EventMetrics(
            ServiceMetrics().live, "", options.patience_s
        )
        self._now, self._held = now, totals
        self._longest_silence_s = options.endpointing.silence_s
        """Longest silence that ends an utterance, of all options so far: the engine keeps the
        utterance until that is over."""
        self._room = asyncio.Event()
        self._executing = 0
        """Commands in execution."""
        self._command_s = 0.0
        """Seconds of audio in the last of them."""
        self._patience_s = math.inf
        """Seconds within which audio has to come, so that it continues the utterance."""
        self._ahead_until = self.began
        """Time up to which the received audio lasts if it is played as it comes."""
        self._first_audio_at: float | None = None
        """Time of the first audio, later by as long as a client that is ahead was held back, and
        earlier by what does not count of its lead."""
        self._answered = 0
        self._turns_since_s = 0.0
        """Position from which on `turns` of the options holds."""
        self._backlog_end_s = 0.0
        """End of the audio that came while the engine was being loaded."""

    @property
    def received_s(self) -> float:
        """Return the seconds of received audio."""
        return self.input_log.at

    @property
    def over(self) -> bool:
        """Return whether no more events come."""
        return self.event_log.over

    @property
    def position_s(self) -> float:
        """Return the position from which a new engine resumes, in seconds of its audio."""
        return self.event_log.behind_finals(self.input_log.settled)

    async def send(
        self, raw: bytes, encoding: SampleEncoding = SampleEncoding.PCM16, rate: int = SAMPLE_RATE
    ) -> None:
        """Add audio: little-endian samples, interleaved if there are several channels. Wait if the
        engine is far behind.

        Raises:
            errors.SoundInvalid: the samples are not whole, or the rate is not supported.
            errors.ChunkTooLong: the chunk is too long.
            errors.SessionOver: the session accepts no more input.
        """
        if rate not in SAMPLE_RATES:
            raise errors.SoundInvalid(
                f"A sample rate of {rate} Hz is not supported: 8,000 to 192,000."
            )
        width = encoding.width * self.channels
        if len(raw) % width:
            raise errors.SoundInvalid(
                f"{len(raw)} bytes are not a whole number of samples of {width} bytes."
            )
        if len(raw) > self.bounds.chunk_s * rate * width:
            raise errors.ChunkTooLong(
                f"A chunk may have at most {self.bounds.chunk_s:g} s of audio; this one has "
                f"{len(raw) / width / rate:.1f} s."
            )
        self._check()
        came = self.touched = self._now()
        if not raw:
            return
        is_ahead = self._is_ahead(came)
        with self.executing():
            while self._is_full():
                self._room.clear()
                with contextlib.suppress(TimeoutError):  # other sessions free space unannounced
                    async with asyncio.timeout(BUFFER_POLL_S):
                        await self._room.wait()
                self._check()
            self.touched = self._now()
            if is_ahead and self._first_audio_at is not None:
                self._first_audio_at += self.touched - came
            self.event_metrics.live_metrics.full.see(self.touched - came)
            self.event_metrics.received(len(raw) / width / rate)
            self.input_log.add(raw, encoding, rate, ahead=is_ahead)
            self.news.set()
            if self.recording is not None:
                await self.recording.add(raw, encoding, rate)
            self.expect_audio(len(raw) / width / rate)

    def _is_ahead(self, came: float) -> bool:
        """Return whether the client has sent more than a microphone can have recorded by then, so
        that nobody waits for this audio as somebody who speaks does. How much of it waits here says
        nothing of that: it waits because the service is behind."""
        if self._first_audio_at is None:
            self._first_audio_at = came
        lead_s = self.received_s - MAX_MICROPHONE_PACE * (came - self._first_audio_at)
        self._first_audio_at -= max(0.0, lead_s - MAX_COUNTED_LEAD_S) / MAX_MICROPHONE_PACE
        return lead_s > MAX_MICROPHONE_LEAD_S

    @contextlib.contextmanager
    def executing(self) -> Iterator[None]:
        """Execute a command of the client. Until that is done its connection reads no audio, so
        that none is missing, and the client is not idle."""
        if not self._executing:
            self._command_s = 0.0
        self._executing += 1
        try:
            yield
        finally:  # also if the connection ends meanwhile
            self._executing -= 1

    def expect_audio(self, came_s: float = 0.0) -> None:
        """Wait for audio from now on, ``came_s`` of which has just come. If none comes until a
        client that sends in real time would have sent the silence that ends an utterance, that
        counts as silence: clients that are muted, or detect speech themselves, send none."""
        now = self._now()
        self._command_s += came_s
        most_s = max(MAX_AHEAD_S, self._command_s)
        self._ahead_until = min(max(self._ahead_until, now) + came_s, now + most_s)
        silence_s = max(self.options.endpointing.silence_s, self._ahead_until - now)
        self._patience_s = silence_s + self.bounds.late_s

    def wait_for_audio(self, passed_s: float) -> None:
        """Count the time that passed without audio. While a client is away, or a command is
        executed, none passes."""
        if self.finishing or self._executing or self.disconnected_at is not None:
            return
        self._patience_s -= passed_s
        if self._patience_s < 0.0:
            self._patience_s = math.inf
            self.input_log.order(LiveOrder.PAUSE)
            self.news.set()

    def commit(self) -> None:
        """End the turn behind the received audio.

        Raises:
            errors.SessionOver: the session accepts no more input.
        """
        self._order(LiveOrder.COMMIT)

    def cancel(self) -> None:
        """Drop the open turn, and the audio since then that was not recognized. Results of ended
        turns are sent first; then one `TurnDropped` confirms it, even if the engine dies."""
        self._order(LiveOrder.CANCEL)

    def meet(self, options: LiveOptions) -> None:
        """Set the enrolled speakers, before an engine has the session."""
        self.options = self.options.with_speakers_of(options)

    def change(self, options: LiveOptions) -> None:
        """Change the options for the audio from here on. The enrolled speakers stay as they were at
        the start, and so do the service's own values: the client's share of the engine, the timeout
        of recognition, and the limit of delay.

        Raises:
            errors.BadRequest: the options are not possible here; nothing has changed.
            errors.SessionOver: the session accepts no more input.
        """
        before = self.options
        accepted = accepted_options(options, self.bounds, self.spec, self.channels)
        changed = replace(
            accepted.with_speakers_of(before),
            client=before.client,
            patience_s=before.patience_s,
            wait_s=before.wait_s,
        )
        self._order(changed)
        if changed.turns is not before.turns:
            self._turns_since_s = self.received_s
        self.options = changed
        silence_s = changed.endpointing.silence_s
        self._longest_silence_s = max(self._longest_silence_s, silence_s)
        self.expect_audio()

    def finish(self, reason: errors.SidecarError | None = None, *, asked: bool = True) -> None:
        """End the audio: the remaining events are sent, then the summary, then the ``reason`` of
        the service. ``asked``: without one, requested by the client, which counts its commands."""
        if not (self.finishing or self.over):
            if not self.concluding:
                self.give_time()
            self.received_orders += asked and reason is None
            self.finishing, self.reason = True, reason
            self.news.set()

    def give_time(self, seconds: float = FINISH_TIMEOUT_S) -> None:
        """Wait so long for its last events, from now on."""
        self.end_by = self._now() + seconds

    async def conclude(self, transcript: Transcript) -> None:
        """End the session with its summary, after making a job of it if it is to be kept."""
        transcript = self._with_missing(transcript)
        self._say(live_events.Summary(transcript, await self._keep(transcript)))
        self.end()

    async def fail(self, error: errors.SidecarError) -> None:
        """End the session with an error, of its engine or a time limit, after the summary of what
        was said so far, which says the error in a notice."""
        self.finish(asked=False)
        self.reason = error
        self.event_log.missing[Notice(error.code, error.detail)] = self.event_log.progress_s[1]
        self.break_off()
        transcript = self._with_missing(self.transcript())
        job = await self._keep(transcript)
        if transcript.segments or job:  # a client with a summary may look for no error
            self._say(live_events.Summary(transcript, job))
        self.end()

    @property
    def missing_from_s(self) -> float | None:
        """Return the second of its audio from which on words may be missing, as some of it could
        not be recognized; None if all was."""
        return min(self.event_log.missing.values(), default=None)

    def _with_missing(self, transcript: Transcript) -> Transcript:
        """Return the transcript with what failed, and from where on words may be missing."""
        news = (one for one in self.event_log.missing if one not in transcript.notices)
        return replace(transcript.with_notice(*news), recognized_s=self.missing_from_s)

    def break_off(self) -> None:
        """End the turns in progress, which no engine recognizes any further."""
        self.concluding = True
        for event in self.event_log.break_off(self.position_s):
            self._say(event)

    def transcript(self) -> Transcript:
        """Return the transcript of what is final so far."""
        segments, engine = self.event_log.so_far(self.position_s).said, self.spec
        return Transcript(
            segments,
            self.options.language,
            self.received_s,
            engine.name if engine is not None else "",
            "",
            diarized=any(one.speaker is not None for one in segments),
        )

    async def _keep(self, transcript: Transcript) -> str | None:
        """Make a job of the session if it is to be kept and has audio; return the job's id. If that
        fails, send a notice."""
        self.concluding = True
        if self.save is None or not (self.options.keep and self.received_s):
            return None
        self.give_time(SAVE_TIMEOUT_S)
        try:
            return await self.save(self, transcript)
        except errors.SidecarError as error:
            log.warning("a finished live session could not be saved: %s", error.code)
            notice = Notice(NOT_SAVED_CODE, f"The session could not be saved: {error.detail}")
            self._say(live_events.NoticeRaised(notice))
            return None

    def events(self, after: int = 0) -> AsyncIterator[NumberedEvent]:
        """Return an iterator over all events after number ``after``, until the end.

        Raises:
            errors.SidecarError: the error that ended the session, if the client did not.
        """
        return self.event_log.after(after)

    def end(self, error: errors.SidecarError | None = None) -> None:
        """End the session now."""
        error = error or self.reason
        if not self.over:
            self.event_metrics.ended(error, finished=self.finishing)
        self.event_log.end(error)
        self.input_log.clear()
        if self.recording is not None:
            self.recording.close()
        self.news.set()
        self._room.set()

    def catches_up(self) -> None:
        """Note that the engine was loaded just now: until it has recognized the audio so far,
        partials are late without any overload, and the client gets no such notice."""
        self._backlog_end_s = self.input_log.at

    def handle_event(self, event: live_events.LiveEvent) -> None:
        """Handle an event of the engine; one that comes too late is ignored."""
        if self.concluding or (
            isinstance(event, live_events.NoticeRaised)
            and event.notice.code == live_events.PARTIALS_LATE
            and self.input_log.settled < self._backlog_end_s
        ):
            return
        if isinstance(event, live_events.InputProcessed):
            self._answered = max(self._answered, event.commits)
            self.input_log.settle(event.settled, self._answered, event.wanted)
            self._room.set()
        elif isinstance(event, live_events.TurnEnded) and event.committed:
            self._answered += 1  # if the engine dies now, its successor need not answer this
            self.input_log.answered(self._answered)
        elif isinstance(event, live_events.TurnDropped):
            self.input_log.dropped()
            self._room.set()
        self._say(event)

    def lose(self) -> None:
        """Skip the audio that the last engine had, as no engine survives it. The turns that began
        in it end with the finals so far; the client's commits and cancels in it are answered."""
        wishes, recognized_s = self.input_log.lose(), self.event_log.progress_s[1]
        self._say(live_events.NoticeRaised(AUDIO_LOST_NOTICE, missing_from=recognized_s))
        for ended in self.event_log.broken_off(self.input_log.settled):
            self._say(ended)
        for wish in wishes:
            [ended] = self.event_log.broken_off(self.input_log.settled)
            if wish is LiveOrder.COMMIT:
                self._say(replace(ended, committed=True))
            else:
                self._say(live_events.TurnDropped(ended.turn, ended.end))
        self._room.set()

    def _say(self, event: live_events.LiveEvent, channel: int | None = None) -> None:
        """Send an event to the client; ``channel``: of several, the one that it is about."""
        if isinstance(event, live_events.TurnDropped) or (
            isinstance(event, live_events.TurnEnded) and event.committed
        ):
            self.touch()  # the client has waited for it
        if self.event_log.add(event, channel):
            self.event_metrics.sent(event, channel)
        if len(self.event_log.kept) > self.bounds.events:
            self._exceed(f"{self.bounds.events} events")

    def touch(self) -> None:
        """Note that the client is connected."""
        self.touched = self._now()

    def begins_anew(self) -> LiveOptions:
        """Reset the input for a new engine; return the options at its begin."""
        if self._is_turn_over():
            self.finish(asked=False)
            self.input_log.clear()
        self.input_log.settled = self.position_s
        self.input_log.rewind()
        self._answered = 0
        return self.input_log.options.with_speakers_of(self.options)

    def _is_turn_over(self) -> bool:
        """Return whether a pause has ended the turn of a session of one turn."""
        events = (one.event for one in reversed(self.event_log.kept))
        last = next((one for one in events if isinstance(one, live_events.TurnEnded)), None)
        if self.options.turns is not TurnControl.ONE or last is None or last.committed:
            return False
        return last.end >= self._turns_since_s

    def overdue(self, now: float) -> errors.SidecarError | None:
        """Return the error if a time limit is exceeded, else None."""
        if now - self.began >= self.bounds.longest_s:
            return errors.SessionTooLong()
        if now - self.touched < self.bounds.idle_s:
            return None
        is_ours = self.finishing or self._executing or self.input_log.has_unanswered_order
        return None if is_ours else errors.SessionIdle()

    def _is_full(self) -> bool:
        kept_s = self.input_log.seconds
        if kept_s >= self.bounds.buffer_s + self._longest_silence_s:
            return True
        return kept_s >= MIN_BUFFER_S and not self._held.may_add(self.input_log, self._now())

    def _order(self, order: LiveOrder | LiveOptions) -> None:
        """Take a command of the client, except the last one."""
        self._check()
        self.touched = self._now()
        if self.received_orders >= self.bounds.commands:
            self._exceed(f"{self.bounds.commands} commands")
            raise errors.SessionOver()
        self.received_orders += 1
        self.input_log.order(order)
        self.news.set()

    def _exceed(self, limit: str) -> None:
        """Accept no more input: the session is ended for this reason as by a limit of time."""
        if self.reason is None:
            self.reason = errors.SessionTooLong(f"The session has reached its limit of {limit}.")

    def _check(self) -> None:
        if self.over or self.finishing or self.reason is not None:
            raise self.event_log.wrong or errors.SessionOver()
