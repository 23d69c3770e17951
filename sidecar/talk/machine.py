"""A spoken conversation as a machine: events in, commands out. Pure: no clock, no thread, no stage.

Whatever comes of an old turn is dropped here, so that nothing hangs on how fast a stage stops. At
an interruption the order is: hush, the next turn's number, stop (the voice before the thought),
the history, the client.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import ReplyEmpty, SidecarError, StageSilent
from sidecar.talk import events as happened
from sidecar.talk.commands import Attend, Command, Hush, Recognise, Tell, WakeAt
from sidecar.talk.echo import ALIKE, LONGEST_LAG_S, is_echo
from sidecar.talk.events import Role, Stage, TalkEvent
from sidecar.talk.history import History, bounded
from sidecar.talk.interruption import (
    GUARDED_PAUSE_AFTER_S,
    GUARDED_THRESHOLD,
    PAUSE_AFTER_S,
    RESUME_AFTER_S,
    Meaning,
    goes_on,
    meaning,
)
from sidecar.talk.options import TalkOptions
from sidecar.talk.person import Person
from sidecar.talk.told import (
    Began,
    Ending,
    Entered,
    Failed,
    Latency,
    NothingSaid,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    Phase,
    ReplyEnded,
    ReplyTruncated,
)
from sidecar.talk.turns import Turn

USUAL = TalkOptions()
_MOST_AT_ONCE = 64
"""Timers that one event may set off: more would be a machine that turns in a circle."""


class Conversation:
    """One conversation. Feed it with `take`; it is not for several threads."""

    def __init__(self, options: TalkOptions = USUAL) -> None:
        self.options = options
        self.history = History(options.most_messages, options.most_bytes)
        self._commands: list[Command] = []
        self._now = float("-inf")
        self._number = 1
        self._turn: Turn | None = None
        self._person: Person | None = None
        self._guarded = False
        self._attending = (0.0, PAUSE_AFTER_S)
        self._last_said, self._last_said_until = "", float("-inf")
        self._phase = Phase.IDLE
        self._due: float | None = None

    @property
    def turn(self) -> int:
        """The number of the turn that is answered, or will be next."""
        return self._number

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self._phase

    def take(self, event: TalkEvent) -> list[Command]:
        """What is to be done about ``event``, in order."""
        self._late_first(event.at)
        self._now = max(self._now, event.at)
        self._happened(event)
        self._late_first(self._now)
        self._settle_up()
        commands, self._commands = self._commands, []
        return commands

    # What happened

    def _happened(self, event: TalkEvent) -> None:
        match event:
            case happened.SpeechStarted() | happened.SpeechStopped() | happened.Words():
                self._heard(event)
            case happened.Token() | happened.Voiced() | happened.StageEnded() | happened.Played():
                self._reported(event)
            case happened.StageFailed(stage=Stage.RECOGNISER):
                self._recogniser_failed(event.turn, event.error)
            case happened.StageFailed():
                self._reported(event)
            case happened.Tick():
                pass
            case _:
                self._wished(event)

    def _heard(
        self, event: happened.SpeechStarted | happened.SpeechStopped | happened.Words
    ) -> None:
        """Something of a person's voice."""
        person = self._person
        match event:
            case happened.SpeechStarted():
                self._started(event.utterance, min(event.began, self._now))
            case happened.SpeechStopped():
                if person is not None and person.speaking and person.current == event.utterance:
                    self._stopped(person, event.ended)
            case happened.Words():
                text = bounded(event.text, self.options.most_bytes)
                if person is not None and person.hear(event.utterance, text, event.upto):
                    self._said_more(person)

    def _reported(
        self,
        event: happened.Token
        | happened.Voiced
        | happened.StageEnded
        | happened.StageFailed
        | happened.Played,
    ) -> None:
        """Something of a stage, or of who plays the sound: of this turn, or too late."""
        turn = self._turn
        if turn is None or event.turn != turn.number:
            return
        match event:
            case happened.Token():
                turn.token(event)
            case happened.Voiced():
                turn.voiced(event)
            case happened.StageEnded():
                turn.ended(event)
            case happened.StageFailed():
                turn.failed(event)
            case happened.Played():
                turn.heard(event.seconds, self._now)
        self._end_if_done()

    def _wished(self, event: TalkEvent) -> None:
        """Something of the client's."""
        match event:
            case happened.Typed():
                self._typed(event.text)
            case happened.Noted():
                self.history.add(event.role, event.text)
            case happened.Asked():
                self._asked()
            case happened.Committed():
                self._committed()
            case happened.Forgotten():
                self._forget()
            case happened.Alike():
                self._alike(event.likeness)
            case happened.Cancelled():
                self._cancelled()
            case happened.Truncated():
                self._truncated(event.turn, event.seconds)
            case happened.Reset():
                self._reset()
            case happened.Configured():
                self.options = event.options
                self.history.bound(event.options.most_messages, event.options.most_bytes)

    # A person speaks

    def _started(self, utterance: int, began: float) -> None:
        person, turn = self._person, self._turn
        if person is not None and person.speaking and person.current == utterance:
            return
        if turn is not None and not turn.confirmed:
            self._discard(turn)
            turn = None
        if person is not None and person.dismissed and utterance != person.current:
            person = None
        if person is None:
            person = self._person = Person.starting(utterance, began)
            person.saying = self._echoing(began)
        else:
            person.start(utterance, began)
        if turn is None:
            self._tell_of(person)
        elif not turn.audible:
            self._hold(person, turn)

    def _stopped(self, person: Person, ended: float) -> None:
        person.stop(person.current, min(ended, self._now))
        turn = self._turn
        short = person.ended - person.since < self._pause_after
        if turn is None:
            self._consider(person)
        elif short and turn.audible and person.paused_at is None and not person.text:
            self._dismiss(person, turn)
        else:
            person.dismissed = False  # what was long, and had no words yet, may have some
            self._decide(person, turn)

    def _said_more(self, person: Person) -> None:
        if person.settled:
            person.settled_at = self._now
        turn = self._turn
        if turn is not None and turn.confirmed:
            self._decide(person, turn)
            return
        if person.told:
            self._do(Tell(PersonSaying(person.text)))
        self._consider(person)

    def _recogniser_failed(self, utterance: int, error: SidecarError) -> None:
        person = self._person
        if person is not None:
            person.give_up(utterance, error)
            if person.settled:
                self._said_more(person)

    def _tell_of(self, person: Person) -> None:
        """Clients get to know of who speaks."""
        if person.told:
            return
        person.told = True
        self._do(Tell(PersonStarted(person.current, person.began)))
        if person.text:
            self._do(Tell(PersonSaying(person.text)))

    def _echoing(self, began: float) -> str:
        """What may be heard again of our own, by who begins to speak now."""
        if self._turn is not None and self._turn.sounding:
            return self._turn.reply.around(self._turn.played)
        return self._last_said if began <= self._last_said_until + LONGEST_LAG_S else ""

    def _is_echo(self, person: Person) -> bool:
        saying = person.saying
        if self._turn is not None and self._turn.sounding:
            saying = f"{saying} {self._turn.reply.around(self._turn.played)}"
        return bool(saying) and is_echo(person.text, saying)

    # While nobody answers: is the turn over?

    def _consider(self, person: Person) -> None:
        """Answer, or begin to, what was said so far, if all of it is known."""
        if self._turn is not None and self._turn.confirmed:
            return
        if not person.settled:
            return
        if self._person_over_at(person) <= self._now:
            self._over(person)
        elif self._turn is None or self._turn.said != person.text:
            self._speculate(person)

    def _person_over_at(self, person: Person) -> float:
        if person.committed:
            return person.ended
        if not self.options.ends_turns:
            return float("inf")
        if not person.text:  # a noise: there is nothing to wait for
            return person.ended
        return person.over_at(self.options.patience)

    def _speculate(self, person: Person) -> None:
        if self._turn is not None:
            self._discard(self._turn)
        wanted = self.options.answers and self.options.ends_turns
        if person.text and wanted and not self._is_echo(person):
            self._answer(person.text)

    def _over(self, person: Person) -> None:
        """The person's turn is over."""
        text = bounded(person.text, self.options.most_bytes)
        echo = text and self._is_echo(person)
        if echo:
            self._guarded = True
        self._person = None
        if echo or not (text or person.failure):
            self._discard_any()
            self._nothing_said(person)
            self._answer_if(person.answer)
            return
        self._tell_of(person)
        self._do(Tell(PersonStopped(person.ended)))
        if text:
            self._do(Tell(PersonSaid(self.history.add(Role.USER, text))))
        if text and (self.options.answers or person.answer):
            self._reply_to(person, text)
        else:
            self._discard_any()
        if person.failure is not None:
            self._unheard(person, person.failure)

    def _reply_to(self, person: Person, text: str) -> None:
        turn = self._turn
        if turn is None or turn.said != text:
            self._discard_any()
            turn = self._answer("", text)
        endpoint, recognised = self._now - person.ended, person.recognised_s
        turn.confirm(self._now, Latency(turn.number, endpoint, recognised, total=person.ended))
        self._end_if_done()

    def _unheard(self, person: Person, error: SidecarError) -> None:
        """Some of what was said has no words."""
        if person.text:
            self._do(Tell(Failed(0, error)))
            return
        turn = self._turn = self._new_turn("")
        turn.fail(error, self._now)
        turn.confirm(self._now, Latency(turn.number, total=person.ended))
        self._end_if_done()

    def _nothing_said(self, person: Person) -> None:
        if person.told:
            person.told = False
            self._do(Tell(NothingSaid()))

    # While there is an answer: does somebody want the floor?

    @property
    def _pause_after(self) -> float:
        guarded = self._guarded or self.options.guarded
        return GUARDED_PAUSE_AFTER_S if guarded else PAUSE_AFTER_S

    def _hold(self, person: Person, turn: Turn) -> None:
        """Hold the reply until it is known what is said over it."""
        if self.options.interruptible and person.paused_at is None:
            person.paused_at = self._now
            turn.pause()

    def _decide(self, person: Person, turn: Turn) -> None:
        """By its words, as far as they are known."""
        if not self.options.interruptible and not person.committed:
            return
        text, settled = person.text, person.settled
        if not text or (self._is_echo(person) and not person.committed):
            floor = False
        elif person.committed or not turn.audible:
            floor = goes_on(text) or person.committed
        else:
            floor = meaning(text) is Meaning.FLOOR
        if floor:
            self._interrupt(person)
        elif settled:
            self._guarded = self._guarded or (bool(text) and self._is_echo(person))
            self._dismiss(person, turn)

    def _interrupt(self, person: Person) -> None:
        """The floor is the person's."""
        self._abandon(Ending.INTERRUPTED)
        person.dismissed, person.paused_at = False, None
        self._tell_of(person)
        self._consider(person)

    def _dismiss(self, person: Person, turn: Turn) -> None:
        """It was nothing: the reply goes on."""
        person.dismissed, person.paused_at, person.committed = True, None, False
        self._nothing_said(person)
        turn.resume(self._now)

    def _alike(self, likeness: float) -> None:
        """The sound says whether it is an echo, whatever the words."""
        person, turn = self._person, self._turn
        if likeness < ALIKE or person is None or not person.saying or person.text:
            return
        self._guarded = True
        if turn is not None and turn.confirmed:
            if not person.dismissed:
                self._dismiss(person, turn)
        else:
            self._forget()

    # Turns

    def _new_turn(self, said: str) -> Turn:
        return Turn(self._number, said, self.options, self._do, self._now)

    def _answer(self, said: str, text: str = "") -> Turn:
        """Think about the history and what was ``said`` besides. ``text``: what of the history the
        turn answers, where that is certain already."""
        turn = self._turn = self._new_turn(said or text)
        turn.think(self.history.messages(self.options.instructions, said), self._now)
        return turn

    def _answer_now(self) -> None:
        """Answer what stands in the history."""
        self._discard_any()
        if not self.history.messages(self.options.instructions):
            self._do(Tell(Failed(0, ReplyEmpty("There is nothing to be answered."))))
            return
        turn = self._answer("")
        turn.confirm(self._now, Latency(turn.number, total=self._now))

    def _answer_if(self, wanted: bool) -> None:
        if wanted:
            self._answer_now()

    def _discard_any(self) -> None:
        if self._turn is not None and not self._turn.confirmed:
            self._discard(self._turn)

    def _discard(self, turn: Turn) -> None:
        """The person goes on: what was thought about is not what was said. Nobody knew of it."""
        self._turn = None
        self._number += 1
        turn.stop()

    def _abandon(self, ending: Ending) -> None:
        """Fall silent, if there is anything to be heard."""
        turn = self._turn
        if turn is None:
            return
        if not turn.confirmed:
            self._discard(turn)
            return
        if self._person is not None:
            self._person.paused_at = None
        self._do(Hush(turn.number))
        self._number += 1
        turn.stop()
        turn.break_off()
        self._record(turn, turn.reply.heard(turn.played), ending)

    def _end_if_done(self) -> None:
        turn = self._turn
        if turn is None or not turn.done:
            return
        self._number += 1
        self._record(turn, turn.reply.heard(turn.reply.made_s), turn.ending)
        self._left_over()

    def _record(self, turn: Turn, heard: str, ending: Ending) -> None:
        """The turn is over, and that was heard."""
        self._turn = None
        text = self.history.replied(turn.number, turn.reply, heard)
        self._last_said = turn.reply.around(turn.played)
        if turn.sounding:
            self._last_said_until = self._now
        made = turn.reply.made_s
        self._do(Tell(ReplyEnded(turn.number, ending, text, min(turn.played, made), made)))

    def _left_over(self) -> None:
        """Who spoke when the reply ended has the floor."""
        person = self._person
        if person is None:
            return
        if person.dismissed and not person.speaking:
            self._person = None
            return
        person.dismissed, person.paused_at = False, None
        self._tell_of(person)
        self._consider(person)

    # What clients wish

    def _typed(self, text: str) -> None:
        text = bounded(text.strip(), self.options.most_bytes)
        if not text:
            return
        self._abandon(Ending.INTERRUPTED)
        self._bank()
        self._do(Tell(PersonSaid(self.history.add(Role.USER, text), typed=True)))
        self._answer_now()

    def _bank(self) -> None:
        """What was said aloud and not answered yet comes before what is typed."""
        person = self._person
        if person is None or person.speaking:
            return
        self._person = None
        if person.told and person.text:
            self._do(Tell(PersonStopped(person.ended)))
            self._do(Tell(PersonSaid(self.history.add(Role.USER, person.text))))
        else:
            self._nothing_said(person)

    def _asked(self) -> None:
        person = self._person
        if person is not None and person.committed:
            person.answer = True
            return
        self._abandon(Ending.INTERRUPTED)
        self._answer_now()

    def _committed(self) -> None:
        person, turn = self._person, self._turn
        if person is None:
            return
        if person.speaking:
            person.stop(person.current, self._now)
        person.committed = True
        if turn is not None and turn.confirmed:
            self._decide(person, turn)
        else:
            self._consider(person)

    def _forget(self) -> None:
        person, turn = self._person, self._turn
        if person is None:
            return
        self._person = None
        if turn is not None and turn.confirmed:
            turn.resume(self._now)
        self._discard_any()
        self._nothing_said(person)

    def _cancelled(self) -> None:
        if self._turn is not None and self._turn.confirmed:
            self._abandon(Ending.CANCELLED)
            self._left_over()

    def _truncated(self, number: int, seconds: float) -> None:
        turn = self._turn
        if turn is not None and turn.confirmed and turn.number == number:
            turn.cut(seconds)
            self._cancelled()
        text = self.history.truncate(number, seconds)
        if text is not None:
            self._do(Tell(ReplyTruncated(number, seconds, text)))

    def _reset(self) -> None:
        self._abandon(Ending.CANCELLED)
        self._person = None
        self.history.clear()
        self._last_said = ""
        self._do(Tell(Began()))

    # Time

    def _late_first(self, at: float) -> None:
        """Do what was to be done by then, before what happened then."""
        for _ in range(_MOST_AT_ONCE):
            timer = min(self._timers(), key=lambda one: one[0], default=None)
            if timer is None or timer[0] > at:
                return
            self._now = max(self._now, timer[0])
            timer[1]()
        raise AssertionError("a timer does not go off")

    def _timers(self) -> list[tuple[float, Callable[[], None]]]:
        """What is to be done when, if nothing happens before."""
        found: list[tuple[float, Callable[[], None]]] = []
        person, turn = self._person, self._turn
        if turn is not None:
            found.append((turn.stalled_at, self._stalled))
        if person is None:
            return found
        over = turn is not None and turn.confirmed
        if not (over and person.dismissed):
            found += [(at, self._want_words) for at, _, _ in person.wanted()]
        found += [(at, self._words_late) for at, _ in person.late()]
        if not over:
            if person.settled:
                at = self._person_over_at(person)
                found += [(at, lambda: self._consider(person))] if at < float("inf") else []
        elif not person.dismissed and self.options.interruptible:
            if person.paused_at is not None:
                found.append((person.paused_at + RESUME_AFTER_S, self._nothing_came))
            elif person.speaking:
                found.append((person.since + self._pause_after, self._spoken_long_enough))
        return found

    def _stalled(self) -> None:
        turn = self._turn
        assert turn is not None
        if turn.stall(self._now):
            self._end_if_done()
        else:
            self._abandon(turn.ending)
            self._left_over()

    def _want_words(self) -> None:
        assert self._person is not None
        for at, number, one in self._person.wanted():
            if at <= self._now and one.ended is not None:
                one.asked = self._now
                self._do(Recognise(number, one.ended))

    def _words_late(self) -> None:
        assert self._person is not None
        for at, number in self._person.late():
            if at <= self._now and self._person is not None:
                self._recogniser_failed(number, StageSilent())

    def _spoken_long_enough(self) -> None:
        assert self._person is not None
        assert self._turn is not None
        self._hold(self._person, self._turn)

    def _nothing_came(self) -> None:
        assert self._person is not None
        assert self._turn is not None
        self._dismiss(self._person, self._turn)

    # What is told in the end

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _settle_up(self) -> None:
        """Whatever else is to be known after an event."""
        phase = self._phase_now()
        if phase is not self._phase:
            self._phase = phase
            self._do(Tell(Entered(phase)))
        sounding = self._turn is not None and self._turn.sounding
        guarded = sounding and (self._guarded or self.options.guarded)
        attending = (GUARDED_THRESHOLD if guarded else 0.0, self._pause_after)
        if attending != self._attending:
            self._attending = attending
            self._do(Attend(*attending))
        due = min((at for at, _ in self._timers() if at < float("inf")), default=None)
        if due != self._due:
            self._due = due
            self._do(WakeAt(due))

    def _phase_now(self) -> Phase:
        person, turn = self._person, self._turn
        if person is not None and person.told and person.speaking:
            return Phase.LISTENING
        if turn is not None and turn.confirmed:
            if turn.sounding:
                return Phase.SPEAKING
            return Phase.SYNTHESIZING if turn.saying else Phase.GENERATING
        return Phase.TRANSCRIBING if person is not None else Phase.IDLE
