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
from sidecar.plugins.tracing.spans import AttributeValue, TraceSpan

if TYPE_CHECKING:
    from sidecar.plugins.tracing.otlp_exporter import OtlpExporter

log = logging.getLogger(__name__)

TRACE_NAME = "transcription"
STAGE_CHANGES = (
    job_record.StartedChange,
    job_record.RequeuedChange,
)
"""Changes that end a stage before the job ends."""
LastLoad = Callable[[], tuple[float, float]]
"""Begin and end of the last load of the engine, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class JobTraceContext:
    """Trace of a recording whose submission began at ``begun``. ``arrival``: its request;
    ``events``: the job's events that end a stage."""

    begun: float
    arrival: RequestArrival | None
    events: list[job_record.JobEvent] = field(default_factory=list)


def job_stages(
    context: JobTraceContext, record: job_record.JobRecord, loaded: tuple[float, float]
) -> list[TraceSpan]:
    """Return the spans of a job that has ended: received, probed, and for each attempt queued,
    loaded (if the job waited for a load) and run. Pure."""
    code = record.error.code if record.error is not None else ""
    ended = record.ended if record.ended is not None else record.created
    spans = _stages_before_queue(context, record.created)
    waits, runs, attempt = record.created, None, 0
    for event in context.events:
        match event.change:
            case job_record.StartedChange() if runs is None:
                attempt += 1
                spans.append(TraceSpan("queued", waits, event.at))
                runs = event.at
            case job_record.RequeuedChange(counts_as) if runs is not None:
                crashed = counts_as is job_record.CountsAs.CRASH
                code_of_attempt = errors.EngineCrashed.code if crashed else ""
                spans += _attempt_stages(runs, event.at, loaded, attempt, code_of_attempt)
                waits, runs = event.at, None
    if runs is None:
        return [*spans, TraceSpan("queued", waits, ended, error=code)]
    return [*spans, *_attempt_stages(runs, ended, loaded, attempt, code)]


def _attributes(record: job_record.JobRecord) -> dict[str, AttributeValue]:
    """Return a job's attributes for traces, without any of its content."""
    attributes: dict[str, AttributeValue] = {}
    if record.audio_info.total_s is not None:
        attributes["vibevoice.audio_s"] = round(record.audio_info.total_s, 3)
    attributes |= {"vibevoice.outcome": record.state.value, "vibevoice.attempts": record.attempts}
    if record.transcript is not None:
        attributes["vibevoice.precision"] = str(record.transcript.precision)
    return attributes


class JobTraces:
    """Traces of jobs that were submitted by a request since this object was created."""

    def __init__(
        self,
        exporter: "OtlpExporter",
        listen: Callable[[JobListener], None],
        engine: Callable[[], str],
        loaded: LastLoad,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        self._exporter, self._engine = exporter, engine
        self._loaded, self._now = loaded, now
        self._contexts: dict[str, JobTraceContext] = {}
        listen(self._on_event)

    def begun(self) -> JobTraceContext:
        """Record the begin of a recording's submission."""
        return JobTraceContext(self._now(), CURRENT_ARRIVAL.get())

    def entered(self, context: JobTraceContext, record: job_record.JobRecord) -> None:
        """Record that the recording becomes a job; the job is added next."""
        self._contexts[record.id] = context

    def refused(
        self, context: JobTraceContext, record: job_record.JobRecord | None, error: BaseException
    ) -> None:
        """Record that the submission failed and no job was created."""
        if record is not None and self._contexts.pop(record.id, None) is None:
            return  # its trace is already sent
        code = error.code if isinstance(error, errors.SidecarError) else type(error).__name__
        at = self._now()
        spans = _stages_before_queue(context, at, code)
        self._send(context, at, spans, {"vibevoice.outcome": "refused"}, code)

    def _on_event(self, record: job_record.JobRecord, event: job_record.JobEvent) -> None:
        context = self._contexts.get(record.id)
        if context is None:
            return
        if isinstance(event.change, STAGE_CHANGES):
            context.events.append(event)
        elif record.over:
            del self._contexts[record.id]
            try:
                self._over(context, record, event)
            except Exception:  # a job must not fail because of its trace
                log.exception("internal error: a job has no trace")

    def _over(
        self, context: JobTraceContext, record: job_record.JobRecord, event: job_record.JobEvent
    ) -> None:
        spans = job_stages(context, record, self._loaded())
        code = record.error.code if record.error is not None else ""
        ended, attributes = record.ended or event.at, _attributes(record)
        arrival = context.arrival
        if arrival is None or arrival.answered is not None:  # answered before the job ended
            self._send(context, ended, spans, attributes, code)
            return

        def answered() -> None:
            at = max(ended, arrival.answered or ended)
            answered_span = TraceSpan("answered", ended, at)
            self._send(context, at, [*spans, answered_span], attributes, code)

        arrival.after(answered)

    def _send(
        self,
        context: JobTraceContext,
        at: float,
        spans: Sequence[TraceSpan],
        attributes: Mapping[str, AttributeValue],
        code: str,
    ) -> None:
        began = context.arrival.at if context.arrival is not None else context.begun
        named = {"vibevoice.engine": self._engine(), **attributes}
        self._exporter.send(TraceSpan(TRACE_NAME, began, at, named, code, spans), context.arrival)


def _stages_before_queue(
    context: JobTraceContext, created: float, code: str = ""
) -> list[TraceSpan]:
    received = []
    if context.arrival is not None:
        received = [TraceSpan("received", context.arrival.at, context.begun)]
    return [*received, TraceSpan("looked_at", context.begun, created, error=code)]


def _attempt_stages(
    begin: float, end: float, loaded: tuple[float, float], number: int, code: str = ""
) -> list[TraceSpan]:
    """Return the spans of one attempt: the load, if the job waited for one, and the run."""
    attributes = {"vibevoice.attempt": number}
    load_ended = loaded[1]
    if not begin < load_ended <= end:
        return [TraceSpan("run", begin, end, attributes, code)]
    return [
        TraceSpan(
            "loaded", begin, load_ended, {"vibevoice.load_s": round(load_ended - loaded[0], 3)}
        ),
        TraceSpan("run", load_ended, end, attributes, code),
    ]
