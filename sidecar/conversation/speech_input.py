"""Live session as the speech input of a conversation."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from sidecar import errors
from sidecar.concurrency import OneShotTimer
from sidecar.conversation import conversation_events as events
from sidecar.interfaces import live_events, live_options
from sidecar.interfaces.engine_interface import AUTO
from sidecar.live.sessions.session import AUDIO_LOST_NOTICE, Session
from sidecar.transcripts.transcript import Notice

CLOCK_HISTORY_S = 120.0
"""Of sound; nobody asks for what lies further back."""
MIN_CLOCK_STEP_S = 0.01
"""Places are no closer together: however short the chunks are, there are no more than 12,000."""


class AudioClock:
    """Clock of audio that comes in chunks; what lies ``s`` seconds before a chunk's end was said
    ``s`` seconds before it came. A client that pauses between two makes no difference to that."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, float]] = deque()

    def came(self, upto: float, now: float) -> None:
        """All sound up to ``upto`` seconds is there by ``now``."""
        ends = self._ends
        if ends and upto <= ends[-1][0]:
            return
        if len(ends) > 1 and upto - ends[-2][0] < MIN_CLOCK_STEP_S:
            ends.pop()
        ends.append((upto, now))
        while self._ends[-1][0] - self._ends[0][0] > CLOCK_HISTORY_S:
            self._ends.popleft()

    def time(self, position: float) -> float:
        """Return the time of the audio at ``position``."""
        if not self._ends:
            return position
        at = bisect_left(self._ends, (position,))
        end, came = self._ends[min(at, len(self._ends) - 1)]
        return came - max(0.0, end - position)


INPUT_STALL_S = 0.6
"""A client that sends nothing for so long while somebody speaks has stopped to listen: pages send
four times a second, and say nothing when a person switches the microphone off."""
STALL_CHUNKS = 1.5
"""Times the length of a chunk a client is waited for at least: some send a second at once."""
MAX_UTTERANCE_SPANS = 100
"""Utterances of which it is known where they lay."""
MIN_SPEECH_S = 0.064
"""So far behind its beginning speech is speech: two looks of the detector."""
CONVERSATION_ENDPOINTING = live_options.EndpointingOptions(silence_s=0.2, pause_s=0.1)
"""Words are made from a tenth of a second of silence on; whether that ends a turn is the machine's
to say."""


def speech_input_options(language: str = AUTO) -> live_options.LiveOptions:
    """Return the options of a live session for a conversation."""
    return live_options.LiveOptions(
        language=language,
        turns=live_options.TurnControl.SILENCE,
        endpointing=CONVERSATION_ENDPOINTING,
        diarize=False,
    )


class SpeechInput:
    """Owns the way from a session to ``happened``, and to ``noticed`` for what is beside the
    conversation; `listen` goes on until the session ends."""

    def __init__(
        self,
        session: Session,
        now: Callable[[], float],
        happened: Callable[[events.ConversationEvent], None],
        noticed: Callable[[Notice], None],
    ) -> None:
        self._session, self._now, self._happened = session, now, happened
        self._noticed = noticed
        self._clock = AudioClock()
        self._finals: dict[int, list[str]] = {}
        """Texts of a turn's finals, by turn, until it has ended."""
        self._stopped: dict[int, float] = {}
        self.speaking: int | None = None
        """The utterance that goes on."""
        self._starving: OneShotTimer | None = None
        self._quiet = False
        """Nothing has come for so long that what is said there is not gone on with."""
        self.options, self._guard = session.options, 0.0
        """Recognition options while nothing is played."""
        self._spans: dict[int, tuple[float, float]] = {}
        self._gone: frozenset[int] = frozenset()
        self._commits: deque[Callable[[], None] | None] = deque()
        self._forgets: deque[Callable[[], None]] = deque()

    @property
    def over(self) -> bool:
        """Return whether it takes no more audio."""
        return self._session.over

    @property
    def received_s(self) -> float:
        """Seconds of sound that came."""
        return self._session.received_s

    def span(self, utterance: int) -> tuple[float, float]:
        """Return the span of an utterance in all the audio, in seconds: from, to. One that goes
        on ends where it began, and of one that is long gone nothing is known."""
        return self._spans.get(utterance, (0.0, 0.0))

    def place(self, utterance: int) -> tuple[float, float, float]:
        """Return the span of an utterance in all the audio without the lead before its first
        word, so far: from, to, and the time of that."""
        start, end = self.span(utterance)
        start += self.options.endpointing.pre_roll_s
        if utterance == self.speaking:
            end = self.received_s
        return start, max(start, end), self._clock.time(max(start, end))

    async def hear(
        self,
        raw: bytes,
        encoding: live_options.SampleEncoding = live_options.SampleEncoding.PCM16,
        rate: int = 16_000,
    ) -> None:
        """More sound, as `Session.send`."""
        if self._starving is not None:  # also while an engine has no room for what came
            self._starving.cancel()
        try:
            await self._session.send(raw, encoding, rate)
        finally:
            self._rest(len(raw) / encoding.width / rate)
        self._clock.came(self._session.received_s, self._now())
        self._quiet = False

    def touch(self) -> None:
        """The client is there, though it sends no sound."""
        self._session.touch()

    def commit(self, heard: Callable[[], None]) -> None:
        """The client ends the person's turn behind the sound that came: that is told once all of
        it was heard, and then ``heard`` is called.

        Raises:
            errors.SessionOver: nothing is heard any more.
        """
        self._session.commit()
        self._commits.append(heard)

    def forget(self, gone: Callable[[], None]) -> None:
        """The client does not want what was said and not answered; as `commit`."""
        self._session.forget()
        self._forgets.append(gone)

    def use(self, options: live_options.LiveOptions) -> None:
        """Change the recognition options."""
        self.options = options
        self.attend(self._guard)

    def attend(self, threshold: float) -> None:
        """Take for speech what is surer than usual by ``threshold``."""
        self._guard, ends = threshold, self.options.endpointing
        guarded = max(ends.threshold, min(0.95, ends.threshold + threshold))
        ends = dataclasses.replace(ends, threshold=guarded)
        with suppress(errors.SidecarError):  # one that is over hears nothing anyway
            self._session.change(dataclasses.replace(self.options, endpointing=ends))

    async def listen(self) -> None:
        """Report what is recognized.

        Raises:
            errors.SidecarError: what ended the session.
        """
        try:
            async for numbered in self._session.events():
                self._told(numbered.event)
        finally:
            if self._starving is not None:
                self._starving.cancel()

    def _told(self, event: live_events.LiveEvent) -> None:
        match event:
            case live_events.SpeechStarted(turn, at):
                self.speaking = turn
                self._lies(turn, at, at)
                # What comes before the first sound may have been sent long ago.
                into = self.options.endpointing.pre_roll_s + MIN_SPEECH_S
                began = self._clock.time(at + into) - MIN_SPEECH_S
                self._happened(events.UserSpeechStarted(self._now(), turn, began))
                if self._quiet:  # it is told late: no sound comes that could end it
                    self._cut()
            case live_events.SpeechStopped(turn, at):
                self._silent(turn)
                self._stopped[turn] = self._clock.time(at)
                self._lies(turn, self.span(turn)[0], at)
                self._happened(events.UserSpeechStopped(self._now(), turn, self._stopped[turn]))
            case live_events.Partial() if event.turn == self.speaking:
                self._words(event.turn, event.text, self._clock.time(event.start))
            case live_events.Final():
                self._finals.setdefault(event.turn, []).append(event.segment.text)
                if event.turn == self.speaking:  # it was long, and is cut
                    self._words(event.turn, "", self._clock.time(event.segment.end))
            case live_events.TurnEnded():
                self._ended(event)
            case live_events.TurnDropped(turn):
                self._dropped(turn)
            case live_events.NoticeRaised(notice) if notice.code == AUDIO_LOST_NOTICE.code:
                self._lost()
            case live_events.NoticeRaised(notice):
                self._noticed(notice)

    def _lost(self) -> None:
        """No more words come of what was said and is not told."""
        if self.speaking is not None:
            ended = self._stopped[self.speaking] = self._now()
            self._happened(events.UserSpeechStopped(ended, self.speaking, ended))
        error = errors.EngineCrashed(hint="Say it again, or type it.")
        for utterance in self._stopped or (events.UNKNOWN_UTTERANCE,):
            stage = events.ConversationStage.RECOGNISER
            self._happened(events.StageFailed(self._now(), utterance, stage, error))
        self._gone = frozenset(self._stopped)
        self.speaking = None
        self._stopped.clear()
        self._finals.clear()

    def _ended(self, event: live_events.TurnEnded) -> None:
        self._finals.pop(event.turn, None)
        if event.turn not in self._gone:
            self._told_all(event)
        heard = self._commits.popleft() if event.committed and self._commits else None
        if heard is not None:
            self._happened(events.TurnCommitted(self._now()))
            heard()

    def _told_all(self, event: live_events.TurnEnded) -> None:
        ended = self._stopped.pop(event.turn, None)
        if ended is None:  # the client ended it, or we did
            self._silent(event.turn)
            ended = self._clock.time(event.end)
            self._lies(event.turn, event.start, event.end)
            self._happened(events.UserSpeechStopped(self._now(), event.turn, ended))
        self._happened(events.RecognizedWords(self._now(), event.turn, event.text, ended))

    def _dropped(self, turn: int) -> None:
        self._silent(turn)
        self._stopped.pop(turn, None)
        self._finals.pop(turn, None)
        self._happened(events.TurnDiscarded(self._now()))
        if self._forgets:
            self._forgets.popleft()()

    def _lies(self, utterance: int, start: float, end: float) -> None:
        self._spans[utterance] = start, end
        if len(self._spans) > MAX_UTTERANCE_SPANS:
            del self._spans[next(iter(self._spans))]

    def _silent(self, turn: int) -> None:
        """Handle silence, unless the next turn has begun."""
        if self.speaking == turn:
            self.speaking = None

    def _words(self, turn: int, text: str, upto: float) -> None:
        """Report the finals of the turn and ``text`` behind them."""
        said = " ".join(filter(None, (*self._finals.get(turn, ()), text)))
        self._happened(events.RecognizedWords(self._now(), turn, said, upto))

    def _rest(self, chunk_s: float) -> None:
        """Schedule the end of input, unless more comes before."""
        self._starving = OneShotTimer(max(INPUT_STALL_S, STALL_CHUNKS * chunk_s), self._starved)

    def _starved(self) -> None:
        self._quiet = True
        if self.speaking is not None:
            self._cut()

    def _cut(self) -> None:
        """End what is said behind all the sound that came: also what is told of it later."""
        self._quiet = False
        with suppress(errors.SidecarError):
            self._session.commit()
            self._commits.append(None)
