"""Traces of jobs: a span of each stage.

Stages are reported when they have ended, from data that exists anyway. Spans contain no spoken
text, path or name: only seconds, counts, codes, and names of engines.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar import clock, errors
from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import JobListener
from sidecar.plugins.tracing.arrivals import CURRENT_ARRIVAL, RequestArrival
from sidecar.plugins.tracing.spans import TraceSpan, Value

if TYPE_CHECKING:
    from sidecar.plugins.tracing.otlp_exporter import OtlpExporter

log = logging.getLogger(__name__)

TRACE_NAME = "transcription"
STAGE_CHANGES = (
    job_record.StartedChange,
    job_record.CrashedChange,
    job_record.RequeuedChange,
    job_record.InterruptedChange,
)
"""Changes that end a stage before the job ends."""
LastLoad = Callable[[], tuple[float, float]]
"""Begin and end of the last load of the engine, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class JobTraceContext:
    """Trace of a recording whose intake began at ``begun``. ``arrival``: its request; ``events``:
    the job's events that end a stage."""

    begun: float
    arrival: RequestArrival | None
    events: list[job_record.JobEvent] = field(default_factory=list)


def job_stages(
    way: JobTraceContext, record: job_record.JobRecord, loaded: tuple[float, float]
) -> list[TraceSpan]:
    """Return the spans of a job that has ended: received, probed, and for each attempt queued,
    loaded (if the job waited for a load) and run. Pure."""
    code = record.error.code if record.error is not None else ""
    ended = record.ended if record.ended is not None else record.created
    found = _stages_before_queue(way, record.created)
    waits, runs, attempt = record.created, None, 0
    for event in way.events:
        match event.change:
            case job_record.StartedChange():
                attempt += 1
                found.append(TraceSpan("queued", waits, event.at))
                runs = event.at
            case job_record.CrashedChange() if runs is not None:
                found += _attempt_stages(runs, event.at, loaded, attempt, errors.EngineCrashed.code)
                waits, runs = event.at, None
            case job_record.RequeuedChange() | job_record.InterruptedChange():
                found += [] if runs is None else _attempt_stages(runs, event.at, loaded, attempt)
                waits, runs = event.at, None
    if runs is None:
        return [*found, TraceSpan("queued", waits, ended, error=code)]
    return [*found, *_attempt_stages(runs, ended, loaded, attempt, code)]


def _attributes(record: job_record.JobRecord) -> dict[str, Value]:
    """Return a job's attributes for traces, without any of its content."""
    found: dict[str, Value] = {}
    if record.facts.total_s is not None:
        found["vibevoice.audio_s"] = round(record.facts.total_s, 3)
    found |= {"vibevoice.outcome": record.state.value, "vibevoice.attempts": record.attempts}
    if record.transcript is not None:
        found["vibevoice.precision"] = str(record.transcript.precision)
    return found


class JobTraces:
    """Traces of jobs that were submitted by a request since this object was created."""

    def __init__(
        self,
        traces: "OtlpExporter",
        listen: Callable[[JobListener], None],
        engine: str,
        loaded: LastLoad,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        self._traces, self._engine = traces, engine
        self._loaded, self._now = loaded, now
        self._ways: dict[str, JobTraceContext] = {}
        listen(self._on_event)

    def begun(self) -> JobTraceContext:
        """Record the begin of a recording's intake."""
        return JobTraceContext(self._now(), CURRENT_ARRIVAL.get())

    def entered(self, way: JobTraceContext, record: job_record.JobRecord) -> None:
        """Record that the recording becomes a job; the job is added next."""
        self._ways[record.id] = way

    def refused(
        self, way: JobTraceContext, record: job_record.JobRecord | None, error: BaseException
    ) -> None:
        """Record that the submission failed and no job was created."""
        if record is not None and self._ways.pop(record.id, None) is None:
            return  # its trace is already sent
        code = error.code if isinstance(error, errors.SidecarError) else type(error).__name__
        at = self._now()
        found = _stages_before_queue(way, at, code)
        self._tell(way, at, found, {"vibevoice.outcome": "refused"}, code)

    def _on_event(self, record: job_record.JobRecord, event: job_record.JobEvent) -> None:
        way = self._ways.get(record.id)
        if way is None:
            return
        if isinstance(event.change, STAGE_CHANGES):
            way.events.append(event)
        elif record.over:
            del self._ways[record.id]
            try:
                self._over(way, record, event)
            except Exception:  # a job must not fail because of its trace
                log.exception("internal error: a job has no trace")

    def _over(
        self, way: JobTraceContext, record: job_record.JobRecord, event: job_record.JobEvent
    ) -> None:
        found = job_stages(way, record, self._loaded())
        code = record.error.code if record.error is not None else ""
        ended, attributes = record.ended or event.at, _attributes(record)
        arrival = way.arrival
        if arrival is None or arrival.answered is not None:  # answered before the job ended
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
        named = {"vibevoice.engine": self._engine, **attributes}
        self._traces.send(TraceSpan(TRACE_NAME, began, at, named, code, found), way.arrival)


def _stages_before_queue(way: JobTraceContext, created: float, code: str = "") -> list[TraceSpan]:
    received = []
    if way.arrival is not None:
        received = [TraceSpan("received", way.arrival.at, way.begun)]
    return [*received, TraceSpan("looked_at", way.begun, created, error=code)]


def _attempt_stages(
    begin: float, end: float, loaded: tuple[float, float], number: int, code: str = ""
) -> list[TraceSpan]:
    """Return the spans of one attempt: the load, if the job waited for one, and the run."""
    attributes = {"vibevoice.attempt": number}
    came = loaded[1]
    if not begin < came <= end:
        return [TraceSpan("run", begin, end, attributes, code)]
    return [
        TraceSpan("loaded", begin, came, {"vibevoice.load_s": round(came - loaded[0], 3)}),
        TraceSpan("run", came, end, attributes, code),
    ]
