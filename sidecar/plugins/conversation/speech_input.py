"""Live session as the speech input of a conversation."""

import dataclasses
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from sidecar import errors
from sidecar.bounded_dict import BoundedDict
from sidecar.interfaces import live_events, live_options
from sidecar.interfaces.engine_interface import AUTO
from sidecar.live.sessions.session import AUDIO_LOST_NOTICE, Session
from sidecar.plugins.conversation import conversation_events as events
from sidecar.transcripts.transcript import Notice, join_texts

CLOCK_HISTORY_S = 120.0
"""Seconds of audio that the clock covers; older positions are never looked up."""
MIN_CLOCK_STEP_S = 0.01
"""Minimum distance of the clock's entries in seconds, of which there are at most 12,000."""

MAX_UTTERANCE_SPANS = 100
"""Maximum number of utterances with a stored position in the audio."""
MIN_SPEECH_S = 0.064
"""Seconds from the start of speech to its detection: two frames of the detector."""
CONVERSATION_ENDPOINTING = live_options.EndpointingOptions(silence_s=0.2, pause_s=0.1)
"""Endpointing of the session: words are recognized from 0.1 s of silence on. The state machine
decides whether that ends a turn."""


class AudioClock:
    """Clock of audio that comes in chunks. Audio ``s`` seconds before a chunk's end was recorded
    ``s`` seconds before the chunk came. A pause of the client between two chunks does not change
    that."""

    def __init__(self) -> None:
        self.ends: deque[tuple[float, float]] = deque()

    def came(self, upto: float, now: float) -> None:
        """Record that all audio up to ``upto`` seconds has come by ``now``."""
        ends = self.ends
        if ends and upto <= ends[-1][0]:
            return
        if len(ends) > 1 and upto - ends[-2][0] < MIN_CLOCK_STEP_S:
            ends.pop()
        ends.append((upto, now))
        while self.ends[-1][0] - self.ends[0][0] > CLOCK_HISTORY_S:
            self.ends.popleft()

    def time(self, position: float) -> float:
        """Return the time of the audio at ``position``."""
        if not self.ends:
            return position
        at = bisect_left(self.ends, (position,))
        end, came = self.ends[min(at, len(self.ends) - 1)]
        return came - max(0.0, end - position)


def speech_input_options(language: str = AUTO) -> live_options.LiveOptions:
    """Return the options of a live session for a conversation."""
    return live_options.LiveOptions(
        language=language,
        turns=live_options.TurnControl.SILENCE,
        endpointing=CONVERSATION_ENDPOINTING,
        diarize=False,
    )


_FAILURES: Mapping[str, Callable[[], errors.SidecarError]] = {
    live_events.RECOGNITION_FAILED: errors.EngineFailed,
    live_events.UTTERANCE_DROPPED: errors.UtteranceDropped,
}
"""Errors of a turn without words, by the code of the notice before its end."""


class SpeechInput:
    """Translation of a session's events to conversation events for ``emit_event``.
    ``emit_notice`` gets the other notices. `listen` runs until the session ends."""

    def __init__(
        self,
        session: Session,
        now: Callable[[], float],
        emit_event: Callable[[events.ConversationEvent], None],
        emit_notice: Callable[[Notice], None],
    ) -> None:
        self._session, self._now, self._emit_event = session, now, emit_event
        self._emit_notice = emit_notice
        self._clock = AudioClock()
        self._finals: dict[int, list[str]] = {}
        """Texts of a turn's finals, by turn, until the turn has ended."""
        self._stopped: dict[int, float] = {}
        self.speaking: int | None = None
        """The utterance in progress."""
        self.options, self._added_threshold = session.options, 0.0
        """Recognition options, and the threshold that is added while a reply is played."""
        self._spans = BoundedDict[int, tuple[float, float]](MAX_UTTERANCE_SPANS)
        self._lost_utterances: frozenset[int] = frozenset()
        self._failures: dict[int | None, errors.SidecarError] = {}
        """Why no words of a turn come, by turn; `None`: of the next that ends."""

    @property
    def missing(self) -> tuple[Notice, ...]:
        """Return the notices of what was said and has no words."""
        return tuple(self._session.event_log.missing)

    def span(self, utterance: int) -> tuple[float, float]:
        """Return the span of an utterance in all the audio, in seconds: from, to. An utterance in
        progress ends where it began; of one that is no longer kept both are 0."""
        return self._spans.get(utterance, (0.0, 0.0))

    def located_span(self, utterance: int) -> tuple[float, float, float]:
        """Return the span of an utterance so far, without the lead before its first word: from, to,
        and the time of its end."""
        start, end = self.span(utterance)
        start += self.options.endpointing.pre_roll_s
        if utterance == self.speaking:
            end = self._session.received_s
        return start, max(start, end), self._clock.time(max(start, end))

    async def hear(self, raw: bytes, encoding: live_options.SampleEncoding, rate: int) -> None:
        """Add audio, as `Session.send`."""
        await self._session.send(raw, encoding, rate)
        self._clock.came(self._session.received_s, self._now())

    def use(self, options: live_options.LiveOptions) -> None:
        """Change the recognition options."""
        self.options = options
        self.raise_threshold(self._added_threshold)

    def raise_threshold(self, threshold: float) -> None:
        """Raise the threshold of speech detection by ``threshold``."""
        self._added_threshold, endpointing = threshold, self.options.endpointing
        guarded = max(endpointing.threshold, min(0.95, endpointing.threshold + threshold))
        endpointing = dataclasses.replace(endpointing, threshold=guarded)
        with suppress(errors.SidecarError):  # a session that has ended needs no options
            self._session.change(dataclasses.replace(self.options, endpointing=endpointing))

    async def listen(self) -> None:
        """Report what is recognized until the session ends.

        Raises:
            errors.SidecarError: the error that ended the session.
        """
        async for numbered in self._session.events():
            self._handle(numbered.event)

    def _handle(self, event: live_events.LiveEvent) -> None:
        match event:
            case live_events.SpeechStarted(turn, at):
                self.speaking = turn
                self._spans[turn] = at, at
                # Audio before the first word may have been sent long ago.
                offset_s = self.options.endpointing.pre_roll_s + MIN_SPEECH_S
                began = self._clock.time(at + offset_s) - MIN_SPEECH_S
                self._emit_event(events.UserSpeechStarted(self._now(), turn, began))
            case live_events.SpeechStopped(turn, at):
                self._speech_ended(turn)
                self._stopped[turn] = self._clock.time(at)
                self._spans[turn] = self.span(turn)[0], at
                self._emit_event(events.UserSpeechStopped(self._now(), turn, self._stopped[turn]))
            case live_events.Partial() if event.turn == self.speaking:
                self._words(event.turn, event.text, self._clock.time(event.start))
            case live_events.Final():
                self._finals.setdefault(event.turn, []).append(event.segment.text)
                if event.turn == self.speaking:  # a long utterance was cut
                    self._words(event.turn, "", self._clock.time(event.segment.end))
            case live_events.TurnEnded():
                self._turn_ended(event)
            case live_events.Summary():
                self._emit_event(events.UserAudioEnded(self._now()))
            case live_events.TurnDropped(turn):
                self._speech_ended(turn)
                self._stopped.pop(turn, None)
                self._finals.pop(turn, None)
                self._pop_failure(turn)
                self._emit_event(events.TurnDiscarded(self._now()))
            case live_events.NoticeRaised(notice) if notice.code == AUDIO_LOST_NOTICE.code:
                self._audio_lost()
            case live_events.NoticeRaised(notice, turn):
                if (failure := _FAILURES.get(notice.code)) is not None:
                    self._failures[turn] = failure()
                self._emit_notice(notice)

    def _audio_lost(self) -> None:
        """Report that the words of utterances in progress are lost."""
        if self.speaking is not None:
            ended = self._stopped[self.speaking] = self._now()
            self._emit_event(events.UserSpeechStopped(ended, self.speaking, ended))
        error = errors.EngineCrashed(hint="Say it again, or type it.")
        for utterance in self._stopped or (events.UNKNOWN_UTTERANCE,):
            stage = events.ConversationStage.RECOGNIZER
            self._emit_event(events.StageFailed(self._now(), utterance, stage, error))
        self._lost_utterances = frozenset(self._stopped)
        self.speaking = None
        self._stopped.clear()
        self._finals.clear()
        self._failures.clear()

    def _turn_ended(self, turn_ended: live_events.TurnEnded) -> None:
        self._finals.pop(turn_ended.turn, None)
        if turn_ended.turn not in self._lost_utterances:
            self._emit_turn(turn_ended)
        if turn_ended.committed:
            self._emit_event(events.TurnCommitted(self._now()))

    def _emit_turn(self, turn_ended: live_events.TurnEnded) -> None:
        ended = self._stopped.pop(turn_ended.turn, None)
        if ended is None:  # ended by the client
            self._speech_ended(turn_ended.turn)
            ended = self._clock.time(turn_ended.end)
            self._spans[turn_ended.turn] = turn_ended.start, turn_ended.end
            self._emit_event(events.UserSpeechStopped(self._now(), turn_ended.turn, ended))
        failure = self._pop_failure(turn_ended.turn)
        if failure is not None and not turn_ended.text:
            stage = events.ConversationStage.RECOGNIZER
            self._emit_event(events.StageFailed(self._now(), turn_ended.turn, stage, failure))
        self._emit_event(
            events.RecognizedWords(self._now(), turn_ended.turn, turn_ended.text, ended)
        )

    def _pop_failure(self, turn: int) -> errors.SidecarError | None:
        """Return why no words of a turn come, which is over, and forget it."""
        found = [self._failures.pop(key, None) for key in (turn, None)]
        return found[0] or found[1]

    def _speech_ended(self, turn: int) -> None:
        """Handle silence, unless the next turn has begun."""
        if self.speaking == turn:
            self.speaking = None

    def _words(self, turn: int, text: str, upto: float) -> None:
        """Report the turn's finals, with ``text`` after them."""
        words = join_texts((*self._finals.get(turn, ()), text))  # as at the end of the turn
        self._emit_event(events.RecognizedWords(self._now(), turn, words, upto))
