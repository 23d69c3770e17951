"""Metrics and traces of jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar import clock, errors
from sidecar.audio.audio_decoder import AudioFacts
from sidecar.jobs.job_log import Listener
from sidecar.jobs.job_record import (
    Begun,
    Cancelled,
    Crashed,
    Failed,
    Interrupted,
    JobEvent,
    JobRecord,
    PutBack,
    Reported,
)
from sidecar.observability.metrics import JobTally, outcome_of
from sidecar.observability.tracing import ARRIVED, Arrival, Stage, Traces, Value
from sidecar.transcripts.transcript import Finished


class Counted:
    """Listens to a store (`jobs.job_log.Listener`)."""

    def __init__(self, tally: JobTally) -> None:
        self._tally = tally

    def __call__(self, record: JobRecord, event: JobEvent) -> None:
        """One more event, and the record after it."""
        tally, since = self._tally, event.at - record.created
        match event.change:
            case Reported(Finished(transcript)):
                tally.done(transcript.duration, record.processing_s, since)
            case Failed(failure):
                error = failure.error()
                tally.failed(error.code, since, outcome_of(error))
            case Cancelled():
                tally.cancelled(since)
            case Begun() if record.begun == event.at:
                tally.began(since)
            case Crashed():
                tally.crashed.add()


log = logging.getLogger(__name__)

NAME = "transcription"
STEPS = (Begun, Crashed, PutBack, Interrupted)
"""What ends a stage before the end."""
Loaded = Callable[[], tuple[float, float]]
"""From when to when the engine was loaded last, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Way:
    """A recording that is being taken in since ``begun``; ``arrival``: the request it came by;
    ``events``: what has happened to its job that makes a stage."""

    begun: float
    arrival: Arrival | None
    events: list[JobEvent] = field(default_factory=list)


def stages(way: Way, record: JobRecord, loaded: tuple[float, float]) -> list[Stage]:
    """What became of a job that is over: received, looked at, and for each attempt queued, loaded
    where it waited for that, and run. Pure."""
    code = record.error.code if record.error is not None else ""
    ended = record.ended if record.ended is not None else record.created
    found = _before(way, record.created)
    waits, runs, attempt = record.created, None, 0
    for event in way.events:
        match event.change:
            case Begun():
                attempt += 1
                found.append(Stage("queued", waits, event.at))
                runs = event.at
            case Crashed() if runs is not None:
                found += _attempt(runs, event.at, loaded, attempt, errors.EngineCrashed.code)
                waits, runs = event.at, None
            case PutBack() | Interrupted():
                found += [] if runs is None else _attempt(runs, event.at, loaded, attempt)
                waits, runs = event.at, None
    if runs is None:
        return [*found, Stage("queued", waits, ended, error=code)]
    return [*found, *_attempt(runs, ended, loaded, attempt, code)]


def attributes_of(facts: AudioFacts | None, record: JobRecord | None) -> dict[str, Value]:
    """What may be told of a job: nothing of what is in it."""
    found: dict[str, Value] = {}
    if facts is not None and facts.total_s is not None:
        found["vibevoice.audio_s"] = round(facts.total_s, 3)
    if record is None:
        return {**found, "vibevoice.outcome": "refused"}
    found |= {"vibevoice.outcome": record.state.value, "vibevoice.attempts": record.attempts}
    if record.transcript is not None:
        found["vibevoice.precision"] = str(record.transcript.precision)
    return found


class Listens(Protocol):
    """Tells of the events of jobs."""

    def listen(self, tell: Listener) -> None:
        """Have ``tell`` called with each."""
        ...


class JobTraces:
    """Tells of each job that came by a request while this was there."""

    def __init__(
        self,
        traces: Traces,
        jobs: Listens,
        engine: str,
        loaded: Loaded,
        now: clock.Clock = clock.wall,
    ) -> None:
        self._traces, self._engine = traces, engine
        self._loaded, self._now = loaded, now
        self._ways: dict[str, Way] = {}
        jobs.listen(self._heard)

    def begun(self) -> Way:
        """A recording is being taken in."""
        return Way(self._now(), ARRIVED.get())

    def entered(self, way: Way, record: JobRecord) -> None:
        """It has become a job, which is about to be there."""
        self._ways[record.id] = way

    def refused(self, way: Way, record: JobRecord | None, error: BaseException) -> None:
        """It became none."""
        if record is not None and self._ways.pop(record.id, None) is None:
            return  # it was told
        code = error.code if isinstance(error, errors.SidecarError) else type(error).__name__
        at = self._now()
        found = _before(way, at, code)
        self._tell(way, at, found, attributes_of(None, None), code)

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        way = self._ways.get(record.id)
        if way is None:
            return
        if isinstance(event.change, STEPS):
            way.events.append(event)
        elif record.over:
            del self._ways[record.id]
            try:
                self._over(way, record, event)
            except Exception:  # no job fails for that
                log.exception("a fault of ours: a job is not traced")

    def _over(self, way: Way, record: JobRecord, event: JobEvent) -> None:
        found = stages(way, record, self._loaded())
        code = record.error.code if record.error is not None else ""
        ended, attributes = record.ended or event.at, attributes_of(record.facts, record)
        arrival = way.arrival
        if arrival is None or arrival.answered is not None:  # it was answered that it waits
            self._tell(way, ended, found, attributes, code)
            return

        def answered() -> None:
            at = max(ended, arrival.answered or ended)
            told = [*found, Stage("answered", ended, at)]
            self._tell(way, at, told, attributes, code)

        arrival.after(answered)

    def _tell(
        self,
        way: Way,
        at: float,
        found: Sequence[Stage],
        attributes: Mapping[str, Value],
        code: str,
    ) -> None:
        began = way.arrival.at if way.arrival is not None else way.begun
        trace = self._traces.begin(NAME, began, way.arrival)
        for stage in found:
            trace.tell(stage)
        trace.end(at, {"vibevoice.engine": self._engine, **attributes}, code)


def _before(way: Way, created: float, code: str = "") -> list[Stage]:
    received = []
    if way.arrival is not None:
        received = [Stage("received", way.arrival.at, way.begun)]
    return [*received, Stage("looked_at", way.begun, created, error=code)]


def _attempt(
    begin: float, end: float, loaded: tuple[float, float], number: int, code: str = ""
) -> list[Stage]:
    """It waits for the engine, where that has to come in first, and has it."""
    attributes = {"vibevoice.attempt": number}
    came = loaded[1]
    if not begin < came <= end:
        return [Stage("run", begin, end, attributes, code)]
    return [
        Stage("loaded", begin, came, {"vibevoice.load_s": round(came - loaded[0], 3)}),
        Stage("run", came, end, attributes, code),
    ]
