"""Traces of jobs: spans of their stages and attributes for OpenTelemetry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar import clock, errors
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.jobs.job_event_log import JobListener
from sidecar.jobs.job_record import (
    CrashedChange,
    InterruptedChange,
    JobEvent,
    JobRecord,
    RequeuedChange,
    StartedChange,
)
from sidecar.observability.tracing import CURRENT_ARRIVAL, RequestArrival, Tracer, TraceSpan, Value

log = logging.getLogger(__name__)
TRACE_NAME = "transcription"
STAGE_CHANGES = (StartedChange, CrashedChange, RequeuedChange, InterruptedChange)
"""Changes that end a stage before the end of the job."""
LastLoad = Callable[[], tuple[float, float]]
"""From when to when the engine was loaded last, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class JobTraceContext:
    """A recording that is being taken in since ``begun``; ``arrival``: the request it came by;
    ``events``: what has happened to its job that makes a stage."""

    begun: float
    arrival: RequestArrival | None
    events: list[JobEvent] = field(default_factory=list)


def job_stages(
    way: JobTraceContext, record: JobRecord, loaded: tuple[float, float]
) -> list[TraceSpan]:
    """Return the spans of a job that has ended: received, probed, and for each attempt queued,
    loaded if it waited for that, and run. Pure."""
    code = record.error.code if record.error is not None else ""
    ended = record.ended if record.ended is not None else record.created
    found = _stages_before_queue(way, record.created)
    waits, runs, attempt = record.created, None, 0
    for event in way.events:
        match event.change:
            case StartedChange():
                attempt += 1
                found.append(TraceSpan("queued", waits, event.at))
                runs = event.at
            case CrashedChange() if runs is not None:
                found += _attempt_stages(runs, event.at, loaded, attempt, errors.EngineCrashed.code)
                waits, runs = event.at, None
            case RequeuedChange() | InterruptedChange():
                found += [] if runs is None else _attempt_stages(runs, event.at, loaded, attempt)
                waits, runs = event.at, None
    if runs is None:
        return [*found, TraceSpan("queued", waits, ended, error=code)]
    return [*found, *_attempt_stages(runs, ended, loaded, attempt, code)]


def trace_attributes(facts: AudioInfo | None, record: JobRecord | None) -> dict[str, Value]:
    """Return the attributes of a job for traces: nothing of its content."""
    found: dict[str, Value] = {}
    if facts is not None and facts.total_s is not None:
        found["vibevoice.audio_s"] = round(facts.total_s, 3)
    if record is None:
        return {**found, "vibevoice.outcome": "refused"}
    found |= {"vibevoice.outcome": record.state.value, "vibevoice.attempts": record.attempts}
    if record.transcript is not None:
        found["vibevoice.precision"] = str(record.transcript.precision)
    return found


class JobEventSource(Protocol):
    """Tells of the events of jobs."""

    def listen(self, tell: JobListener) -> None:
        """Have ``tell`` called with each."""


class JobTraces:
    """Tells of each job that came by a request while this was there."""

    def __init__(
        self,
        traces: Tracer,
        jobs: JobEventSource,
        engine: str,
        loaded: LastLoad,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        self._traces, self._engine = traces, engine
        self._loaded, self._now = loaded, now
        self._ways: dict[str, JobTraceContext] = {}
        jobs.listen(self._on_event)

    def begun(self) -> JobTraceContext:
        """A recording is being taken in."""
        return JobTraceContext(self._now(), CURRENT_ARRIVAL.get())

    def entered(self, way: JobTraceContext, record: JobRecord) -> None:
        """It has become a job, which is about to be there."""
        self._ways[record.id] = way

    def refused(self, way: JobTraceContext, record: JobRecord | None, error: BaseException) -> None:
        """It became none."""
        if record is not None and self._ways.pop(record.id, None) is None:
            return  # it was told
        code = error.code if isinstance(error, errors.SidecarError) else type(error).__name__
        at = self._now()
        found = _stages_before_queue(way, at, code)
        self._tell(way, at, found, trace_attributes(None, None), code)

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        way = self._ways.get(record.id)
        if way is None:
            return
        if isinstance(event.change, STAGE_CHANGES):
            way.events.append(event)
        elif record.over:
            del self._ways[record.id]
            try:
                self._over(way, record, event)
            except Exception:  # no job fails for that
                log.exception("internal error: a job has no trace")

    def _over(self, way: JobTraceContext, record: JobRecord, event: JobEvent) -> None:
        found = job_stages(way, record, self._loaded())
        code = record.error.code if record.error is not None else ""
        ended, attributes = record.ended or event.at, trace_attributes(record.facts, record)
        arrival = way.arrival
        if arrival is None or arrival.answered is not None:  # it was answered that it waits
            self._tell(way, ended, found, attributes, code)
            return

        def answered() -> None:
            at = max(ended, arrival.answered or ended)
            told = [*found, TraceSpan("answered", ended, at)]
            self._tell(way, at, told, attributes, code)

        arrival.after(answered)

    def _tell(
        self,
        way: JobTraceContext,
        at: float,
        found: Sequence[TraceSpan],
        attributes: Mapping[str, Value],
        code: str,
    ) -> None:
        began = way.arrival.at if way.arrival is not None else way.begun
        trace = self._traces.begin(TRACE_NAME, began, way.arrival)
        for stage in found:
            trace.tell(stage)
        trace.end(at, {"vibevoice.engine": self._engine, **attributes}, code)


def _stages_before_queue(way: JobTraceContext, created: float, code: str = "") -> list[TraceSpan]:
    received = []
    if way.arrival is not None:
        received = [TraceSpan("received", way.arrival.at, way.begun)]
    return [*received, TraceSpan("looked_at", way.begun, created, error=code)]


def _attempt_stages(
    begin: float, end: float, loaded: tuple[float, float], number: int, code: str = ""
) -> list[TraceSpan]:
    """It waits for the engine, where that has to come in first, and has it."""
    attributes = {"vibevoice.attempt": number}
    came = loaded[1]
    if not begin < came <= end:
        return [TraceSpan("run", begin, end, attributes, code)]
    return [
        TraceSpan("loaded", begin, came, {"vibevoice.load_s": round(came - loaded[0], 3)}),
        TraceSpan("run", came, end, attributes, code),
    ]
