"""A spoken conversation as a machine: events in, commands out. Pure: no clock, no thread, no stage.

Whatever comes of an old turn is dropped, so that nothing hangs on how fast a stage stops. At an
interruption the order is: hush, the next turn's number, stop (the voice before the thought), the
history, the client (`answering`). This module has the person's side, and brings both together.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import SidecarError, StageSilent
from sidecar.talk import events as happened
from sidecar.talk.answering import Answering
from sidecar.talk.commands import Attend, Command, Recognise, Tell, WakeAt
from sidecar.talk.echo import ALIKE, is_echo
from sidecar.talk.events import Role, Stage, TalkEvent
from sidecar.talk.history import History, bounded
from sidecar.talk.interruption import (
    GUARDED_PAUSE_AFTER_S,
    GUARDED_THRESHOLD,
    PAUSE_AFTER_S,
    RESUME_AFTER_S,
    Verdict,
    verdict,
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
        self._commands: list[Command] = []
        self._now = float("-inf")
        self._answering = Answering(options, self._do)
        self._person: Person | None = None
        self._guarded = False
        self._attending = (0.0, PAUSE_AFTER_S)
        self._phase = Phase.IDLE
        self._due: float | None = None

    @property
    def turn(self) -> int:
        """The number of the turn that is answered, or will be next."""
        return self._answering.number

    @property
    def history(self) -> History:
        """What was said so far."""
        return self._answering.history

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

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    # What happened

    def _happened(self, event: TalkEvent) -> None:
        match event:
            case happened.SpeechStarted():
                self._started(event.utterance, min(event.began, self._now))
            case happened.SpeechStopped():
                self._stopped(event.utterance, min(event.ended, self._now))
            case happened.Words():
                self._words(event)
            case happened.Alike():
                self._alike(event.likeness)
            case happened.StageFailed(stage=Stage.RECOGNISER):
                self._recogniser_failed(event.turn, event.error)
            case (
                happened.Token()
                | happened.Voiced()
                | happened.StageEnded()
                | happened.StageFailed()
                | happened.Played()
            ):
                self._answering.report(event, self._now)
                self._go_on_if_done()
            case _:
                self._wished(event)

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
            case happened.Cancelled():
                self._cancel()
            case happened.Truncated():
                self._truncated(event.turn, event.seconds)
            case happened.Reset():
                self._reset()
            case happened.Configured():
                self.options = event.options
                self._answering.use(event.options)

    # A person speaks

    def _started(self, utterance: int, began: float) -> None:
        person = self._person
        if person is not None and person.speaking and person.current == utterance:
            return
        self._answering.discard()
        if person is not None and person.dismissed and utterance != person.current:
            person = None
        if person is None:
            person = self._person = Person.starting(utterance, began)
            person.saying = self._answering.saying(began)
        else:
            person.start(utterance, began)
        reply = self._answering.given
        if reply is None:
            self._tell_of(person)
        elif not reply.audible:
            self._hold(person, reply)

    def _stopped(self, utterance: int, ended: float) -> None:
        person, reply = self._person, self._answering.given
        if person is None or not person.speaking or person.current != utterance:
            return
        person.stop(utterance, ended)
        if reply is None:
            self._consider(person)
            return
        short = person.ended - person.since < self._pause_after
        if short and reply.audible and person.paused_at is None and not person.text:
            self._dismiss(person, reply)
        else:
            person.dismissed = False  # what was long, and had no words yet, may have some
            self._decide(person, reply)

    def _words(self, event: happened.Words) -> None:
        person = self._person
        text = bounded(event.text, self.options.most_bytes)
        if person is not None and person.hear(event.utterance, text, event.upto):
            self._said_more(person)

    def _recogniser_failed(self, utterance: int, error: SidecarError) -> None:
        person = self._person
        if person is not None:
            person.give_up(utterance, error)
            if person.settled:
                self._said_more(person)

    def _said_more(self, person: Person) -> None:
        if person.settled:
            person.settled_at = self._now
        reply = self._answering.given
        if reply is not None:
            self._decide(person, reply)
            return
        if person.told:
            self._do(Tell(PersonSaying(person.text)))
        self._consider(person)

    def _tell_of(self, person: Person) -> None:
        """Clients get to know of who speaks."""
        if person.told:
            return
        person.told = True
        self._do(Tell(PersonStarted(person.current, person.began)))
        if person.text:
            self._do(Tell(PersonSaying(person.text)))

    def _nothing_said(self, person: Person) -> None:
        if person.told:
            person.told = False
            self._do(Tell(NothingSaid()))

    def _is_echo(self, person: Person) -> bool:
        saying = person.saying
        if self._answering.sounding:
            saying = f"{saying} {self._answering.saying(self._now)}"
        return bool(saying) and is_echo(person.text, saying)

    # While no reply is given: is the turn over?

    def _consider(self, person: Person) -> None:
        """Answer, or try to, what was said so far, if all of it is known."""
        if self._answering.given is not None or not person.settled:
            return
        text = person.text
        if self._over_at(person) <= self._now:
            self._over(person)
        elif self.options.answers and self.options.ends_turns and not self._is_echo(person):
            self._answering.attempt(text, self._now)

    def _over_at(self, person: Person) -> float:
        if person.committed:
            return person.ended
        if not self.options.ends_turns:
            return float("inf")
        if not person.text:  # a noise: there is nothing to wait for
            return person.ended
        return person.over_at(self.options.patience)

    def _over(self, person: Person) -> None:
        """The person's turn is over."""
        self._person = None
        text = bounded(person.text, self.options.most_bytes)
        if text and self._is_echo(person):
            self._guarded, text = True, ""
        elif not text and person.failure is not None:
            self._tell_of(person)
            self._do(Tell(PersonStopped(person.ended)))
            self._answering.give_up(person.failure, person.ended, self._now)
            self._go_on_if_done()
            return
        if text:
            self._answer(person, text)
            return
        self._answering.discard()
        self._nothing_said(person)
        if person.answer:
            self._answering.give_any(self._now)

    def _answer(self, person: Person, text: str) -> None:
        self._tell_of(person)
        self._do(Tell(PersonStopped(person.ended)))
        self._do(Tell(PersonSaid(self.history.add(Role.USER, text))))
        if person.failure is not None:
            self._do(Tell(Failed(0, person.failure)))
        if not (self.options.answers or person.answer):
            self._answering.discard()
            return
        endpoint, recognised = self._now - person.ended, person.recognised_s
        self._answering.give(text, Latency(0, endpoint, recognised, total=person.ended), self._now)
        self._go_on_if_done()

    # While one is: does somebody want the floor?

    @property
    def _pause_after(self) -> float:
        guarded = self._guarded or self.options.guarded
        return GUARDED_PAUSE_AFTER_S if guarded else PAUSE_AFTER_S

    def _hold(self, person: Person, reply: Turn) -> None:
        """Hold the reply until it is known what is said over it."""
        if self.options.interruptible and person.paused_at is None:
            person.paused_at = self._now
            reply.pause()

    def _decide(self, person: Person, reply: Turn) -> None:
        """By its words, as far as they are known."""
        if person.committed:  # the client is sure that this is a turn
            self._interrupt(person)
            return
        if not self.options.interruptible:
            return
        text, settled = person.text, person.settled
        echo = self._is_echo(person)
        match verdict(text, settled=settled, audible=reply.audible, echo=echo):
            case Verdict.OVER:
                self._interrupt(person)
            case Verdict.GOES_ON:
                self._guarded = self._guarded or echo
                self._dismiss(person, reply)
            case Verdict.OPEN:
                pass

    def _interrupt(self, person: Person) -> None:
        """The floor is the person's."""
        self._abandon(Ending.INTERRUPTED)
        person.dismissed = False
        self._tell_of(person)
        self._consider(person)

    def _dismiss(self, person: Person, reply: Turn) -> None:
        """It was nothing: the reply goes on."""
        person.dismissed, person.paused_at = True, None
        self._nothing_said(person)
        reply.resume(self._now)

    def _alike(self, likeness: float) -> None:
        """The sound is like an echo, and there are no words yet: the reply is not held for it. If
        it was none after all, its words still count."""
        person, reply = self._person, self._answering.given
        if likeness < ALIKE or person is None or not person.saying or person.text:
            return
        self._guarded = True
        if reply is not None and not person.dismissed:
            self._dismiss(person, reply)

    def _go_on_if_done(self) -> None:
        """If the reply is over, who spoke then has the floor."""
        if self._answering.finish(self._now):
            self._leave_floor()

    def _leave_floor(self) -> None:
        person = self._person
        if person is None:
            return
        if person.dismissed and not person.speaking:
            self._person = None
            return
        person.dismissed, person.paused_at = False, None
        self._tell_of(person)
        self._consider(person)

    def _abandon(self, ending: Ending) -> None:
        if self._person is not None:
            self._person.paused_at = None
        self._answering.abandon(ending, self._now)

    # What clients wish

    def _typed(self, text: str) -> None:
        text = bounded(text.strip(), self.options.most_bytes)
        if not text:
            return
        self._abandon(Ending.INTERRUPTED)
        self._bank()
        self._do(Tell(PersonSaid(self.history.add(Role.USER, text), typed=True)))
        self._answering.give_any(self._now)

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
        self._answering.give_any(self._now)

    def _committed(self) -> None:
        person, reply = self._person, self._answering.given
        if person is None:
            return
        if person.speaking:
            person.stop(person.current, self._now)
        person.committed = True
        if reply is not None:
            self._decide(person, reply)
        else:
            self._consider(person)

    def _forget(self) -> None:
        person, reply = self._person, self._answering.given
        if person is None:
            return
        self._person = None
        if reply is not None:
            reply.resume(self._now)
        self._answering.discard()
        self._nothing_said(person)

    def _cancel(self) -> None:
        if self._answering.given is not None:
            self._abandon(Ending.CANCELLED)
            self._leave_floor()

    def _truncated(self, number: int, seconds: float) -> None:
        reply = self._answering.given
        if reply is not None and reply.number == number:
            reply.cut(seconds)
            self._cancel()
        text = self.history.truncate(number, seconds)
        if text is not None:
            self._do(Tell(ReplyTruncated(number, seconds, text)))

    def _reset(self) -> None:
        self._abandon(Ending.CANCELLED)
        self._person = None
        self._answering.forget()
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
        if self._answering.turn is not None:
            found.append((self._answering.turn.stalled_at, self._stalled))
        if self._person is not None:
            found += self._timers_of(self._person, self._answering.given)
        return [timer for timer in found if timer[0] < float("inf")]

    def _timers_of(
        self, person: Person, reply: Turn | None
    ) -> list[tuple[float, Callable[[], None]]]:
        found = [(at, lambda: self._words_late(person)) for at, _ in person.late()]
        if reply is None or not person.dismissed:
            found += [(at, lambda: self._want_words(person)) for at, _, _ in person.wanted()]
        if reply is None:
            if person.settled:
                found.append((self._over_at(person), lambda: self._consider(person)))
        elif self.options.interruptible and not person.dismissed:
            if person.paused_at is not None:
                at = person.paused_at + RESUME_AFTER_S
                found.append((at, lambda: self._dismiss(person, reply)))
            elif person.speaking:
                at = person.since + self._pause_after
                found.append((at, lambda: self._hold(person, reply)))
        return found

    def _stalled(self) -> None:
        if self._answering.stalled(self._now):
            self._leave_floor()

    def _want_words(self, person: Person) -> None:
        for at, number, one in person.wanted():
            if at <= self._now and one.ended is not None:
                one.asked = self._now
                self._do(Recognise(number, one.ended))

    def _words_late(self, person: Person) -> None:
        for at, number in person.late():
            if at <= self._now and self._person is person:
                self._recogniser_failed(number, StageSilent())

    def _settle_up(self) -> None:
        """What else is to be known after an event."""
        phase = self._phase_now()
        if phase is not self._phase:
            self._phase = phase
            self._do(Tell(Entered(phase)))
        guarded = self._answering.sounding and (self._guarded or self.options.guarded)
        attending = (GUARDED_THRESHOLD if guarded else 0.0, self._pause_after)
        if attending != self._attending:
            self._attending = attending
            self._do(Attend(*attending))
        due = min((at for at, _ in self._timers()), default=None)
        if due != self._due:
            self._due = due
            self._do(WakeAt(due))

    def _phase_now(self) -> Phase:
        person, reply = self._person, self._answering.given
        if person is not None and person.told and person.speaking:
            return Phase.LISTENING
        if reply is not None:
            if reply.sounding:
                return Phase.SPEAKING
            return Phase.SYNTHESIZING if reply.saying else Phase.GENERATING
        return Phase.TRANSCRIBING if person is not None else Phase.IDLE
