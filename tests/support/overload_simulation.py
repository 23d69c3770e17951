"""A live engine in virtual time: its load model is real, people and threads are made up."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.live.runtime.load_shedding import (
    ArrivingUtterance,
    EngineLoadModel,
    ServedSession,
    SheddingLevel,
    SpeechShare,
    UtteranceAdmission,
    WorkKind,
)
from sidecar.live.runtime.recognition_plan import RecognitionUrgency, turn_order

TICK_S = 0.1
PAUSE_S = 0.5
"""Of silence, until an utterance is known to have ended."""
STEP_S = 1.0
"""From one partial to the next."""
KINDS = {
    RecognitionUrgency.FINAL: WorkKind.FINAL,
    RecognitionUrgency.PARTIAL: WorkKind.PARTIAL,
    RecognitionUrgency.VOICE: WorkKind.LABEL,
}


@dataclass(frozen=True)
class Machine:
    """What a second of speech costs one of its threads."""

    threads: int = 2
    final: float = 0.06
    partial: float = 0.12
    label: float = 0.05

    def cost(self, kind: WorkKind) -> float:
        return float(getattr(self, kind.name.lower()))


@dataclass
class Person:
    """A session: begins at ``begins``, is silent for ``listens_s``, and then says something of
    ``talk_s`` seconds again and again with ``breath_s`` between."""

    owner: str = "everybody"
    begins: float = 0.0
    listens_s: float = 0.0
    talk_s: float = 3.0
    breath_s: float = 1.0
    rank: int | None = None
    share: SpeechShare | None = None
    speaks: float | None = None
    """Since when, while an utterance of it goes on that is to be recognized."""
    refused_at: float | None = None
    delays: list[float] = field(default_factory=list)
    shed: int = 0

    def newcomer(self, now: float) -> ArrivingUtterance:
        entering = self.rank is None and now - self.begins < 10.0
        return ArrivingUtterance(self.owner, self.rank, entering)

    def speaker(self, now: float) -> ServedSession | None:
        if self.rank is None or self.share is None:
            return None
        return ServedSession(self.owner, self.rank, self.speaks is not None, self.share.at(now))


@dataclass(eq=False)
class Work:
    urgency: RecognitionUrgency
    since: float
    seconds: float
    person: Person
    ended: float = 0.0


class Simulation:
    """Runs to ``until`` seconds."""

    def __init__(
        self, machine: Machine, people: list[Person], limit_s: float = 1.0, seed: int = 0
    ) -> None:
        self.machine, self.people = machine, people
        self.model = EngineLoadModel(machine.threads, limit_s)
        self.model.costs.measured(4.0, 4.0 * machine.final / 2)
        self.done: Counter[RecognitionUrgency] = Counter()
        self.done_by_level: Counter[tuple[SheddingLevel, RecognitionUrgency]] = Counter()
        self.shed_at: dict[str, float] = {}
        """When each thing was shed first."""
        self._random = random.Random(seed)
        self._ranks, self._numbers = itertools.count(), itertools.count()
        self._events: list[tuple[float, int, Iterator[float]]] = []
        self._waiting: list[Work] = []
        self._free = machine.threads
        self._served: dict[str, float] = {}
        self.now = 0.0

    def run(self, until: float) -> Simulation:
        for person in self.people:
            self._go(self._life(person), person.begins)
        self._go(self._clock(), 0.0)
        while self._events and self._events[0][0] <= until:
            self.now, _, going = heapq.heappop(self._events)
            pause = next(going, None)
            if pause is not None:
                self._go(going, self.now + pause)
        return self

    @property
    def delays(self) -> list[float]:
        return [delay for person in self.people for delay in person.delays]

    def _go(self, what: Iterator[float], at: float) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), what))

    def _clock(self) -> Iterator[float]:
        while True:
            speaking = sum(one.speaks is not None for one in self.people)
            self.model.update_level(speaking, self._waiting_s(), self.now)
            level = self.model.level(self.now)
            for kind in (SheddingLevel.PARTIALS, SheddingLevel.LABELS):
                if level >= kind:
                    self.shed_at.setdefault(kind.name, self.now)
            yield TICK_S

    def _waiting_s(self) -> float:
        return sum(one.seconds for one in self._waiting if one.urgency is RecognitionUrgency.FINAL)

    def _life(self, person: Person) -> Iterator[float]:
        yield max(1e-3, person.listens_s)
        while True:
            others = (one for one in self.people if one is not person)
            speakers = [s for one in others if (s := one.speaker(self.now)) is not None]
            verdict = self.model.admission(person.newcomer(self.now), speakers, self._waiting_s())
            if verdict is UtteranceAdmission.REFUSE:
                person.refused_at = self.now
                return
            talk_s = person.talk_s * self._random.uniform(0.6, 1.4)
            if verdict is UtteranceAdmission.SHED:
                self.shed_at.setdefault("utterance", self.now)
                person.shed += 1
                yield talk_s
            else:
                yield from self._says(person, talk_s)
            yield person.breath_s

    def _says(self, person: Person, talk_s: float) -> Iterator[float]:
        if person.share is None:
            person.rank, person.share = next(self._ranks), SpeechShare(self.now)
        person.speaks = begun = self.now
        while self.now - begun + STEP_S < talk_s:
            yield STEP_S
            person.share.spoken(STEP_S, self.now)
            self._add(RecognitionUrgency.PARTIAL, self.now - begun, person)
        yield talk_s - (self.now - begun)
        ended = self.now
        yield PAUSE_S
        person.share.spoken(talk_s % STEP_S, self.now)
        person.speaks = None
        self._add(RecognitionUrgency.FINAL, talk_s, person, ended)
        self._add(RecognitionUrgency.VOICE, talk_s, person)

    def _add(
        self, urgency: RecognitionUrgency, seconds: float, person: Person, ended: float = 0.0
    ) -> None:
        if urgency is RecognitionUrgency.PARTIAL:  # only the last one counts
            self._waiting = [
                one
                for one in self._waiting
                if one.person is not person or one.urgency is not RecognitionUrgency.PARTIAL
            ]
        self._waiting.append(Work(urgency, self.now, seconds, person, ended))
        self._start()

    def _start(self) -> None:
        while self._free:
            level = self.model.level(self.now)
            allowed = [
                one
                for one in self._waiting
                if not (
                    one.urgency is RecognitionUrgency.PARTIAL and level >= SheddingLevel.PARTIALS
                )
                and not (one.urgency is RecognitionUrgency.VOICE and level >= SheddingLevel.LABELS)
            ]
            if not allowed:
                return
            work = min(allowed, key=self._turn_order)
            self._waiting.remove(work)
            self._served[work.person.owner] = self.now
            self._free -= 1
            self._go(self._at_work(work), self.now)

    def _turn_order(self, work: Work) -> tuple[int, float, float]:
        return turn_order(work.person.owner, work.urgency, work.since, self._served)

    def _at_work(self, work: Work) -> Iterator[float]:
        kind = KINDS[work.urgency]
        took = work.seconds * self.machine.cost(kind) * self._random.uniform(0.7, 1.3)
        yield took
        self._free += 1
        self.done[work.urgency] += 1
        self.done_by_level[self.model.level(self.now), work.urgency] += 1
        self.model.costs.add_work(kind, took)
        if work.urgency is RecognitionUrgency.FINAL:
            self.model.costs.spoken(work.seconds)
            work.person.delays.append(self.now - work.ended)
        self._start()
