"""Trace spans of requests, jobs and live sessions, and their export over OTLP/HTTP.

Stages are reported when they have ended, from data that exists anyway. Spans contain no spoken
text, path or name: only seconds, counts, codes, and names of engines. If tracing is off, the tracer
is a `NullTracer` and is not called, and OpenTelemetry is not imported.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry import trace

Value = str | int | float | bool
OTLP_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Standard variables for the address to which traces are sent."""


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """Span from ``begin`` to ``end``, in seconds since 1970. ``error``: the code of the error that
    ended it; ``stages``: its child spans."""

    name: str
    begin: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    stages: Sequence[TraceSpan] = ()


@dataclass(eq=False, slots=True)
class RequestArrival:
    """Arrival of a request, with its client's trace context; ``at`` is in seconds since 1970."""

    at: float
    traceparent: str = ""
    tracestate: str = ""
    answered: float | None = None
    """Time of the response in seconds since 1970, `None` before it."""
    _then: list[Callable[[], None]] = field(default_factory=list)

    def answer(self, at: float) -> None:
        """Record the time of the response and call the waiting functions."""
        self.answered = at
        while self._then:
            self._then.pop()()

    def after(self, act: Callable[[], None]) -> None:
        """Call ``act`` after the response, or now if it was sent."""
        if self.answered is None:
            self._then.append(act)
        else:
            act()


CURRENT_ARRIVAL: ContextVar[RequestArrival | None] = ContextVar("ARRIVED", default=None)
"""Request being answered; set only if tracing is on."""


class RequestTrace(Protocol):
    """Trace of one request."""

    def tell(self, stage: TraceSpan) -> None:
        """Record a stage that has ended."""

    def end(self, at: float, attributes: Mapping[str, Value], error: str = "") -> None:
        """End the trace."""


class Tracer(Protocol):
    """Exporter of traces."""

    on: bool
    """True if traces are recorded."""

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """Start a trace at ``at`` (seconds since 1970), as a child of the client's trace."""

    def close(self) -> None:
        """Send the remaining spans; this waits for the network for a few seconds at most."""


class NullTracer:
    """Tracer that records nothing."""

    on = False

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """Raise: tracing is off."""
        raise AssertionError("traces are off")

    def close(self) -> None:
        """Do nothing."""


def is_tracing_configured(environment: Mapping[str, str]) -> bool:
    """Return whether the environment configures traces, by the standard's variables."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return exporter == "otlp" or any(environment.get(name) for name in OTLP_ENDPOINT_VARIABLES)


SERVICE_NAME = "vibevoice-asr"
EXPORT_TIMEOUT_S = 3.0
"""Time that the shutdown waits for the collector, in seconds."""


class OtlpExporter:
    """OTLP exporter on a thread of the SDK, with a bounded queue of spans."""

    on = True

    def __init__(self, version: str) -> None:
        """Configure the exporter; the environment has the collector's address, headers,
        certificates and sampling.

        Raises:
            ImportError: the packages of OpenTelemetry are not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._propagator = TraceContextTextMapPropagator()
        given = {"service.version": version, "service.instance.id": str(uuid.uuid4())}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            given["service.name"] = SERVICE_NAME
        self._provider = TracerProvider(resource=Resource.create(given), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sidecar", version)

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """Start a trace at ``at`` (seconds since 1970), as a child of the client's trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        carrier = {}
        if arrival is not None:
            carrier = {"traceparent": arrival.traceparent, "tracestate": arrival.tracestate}
        above = self._propagator.extract(carrier, Context())
        span = self._tracer.start_span(name, above, SpanKind.SERVER, start_time=_to_nanoseconds(at))
        return _OtlpTrace(self._tracer, span)

    def close(self) -> None:
        """Send the remaining spans, for at most `EXPORT_TIMEOUT_S`."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(EXPORT_TIMEOUT_S)


class _OtlpTrace:
    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer, self._span = tracer, span

    def tell(self, stage: TraceSpan) -> None:
        """Record a stage that has ended, with its child stages."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        within = trace.set_span_in_context(self._span, Context())
        span = self._tracer.start_span(stage.name, within, start_time=_to_nanoseconds(stage.begin))
        one = _OtlpTrace(self._tracer, span)
        for part in stage.stages:
            one.tell(part)
        one.end(stage.end, stage.attributes, stage.error)

    def end(self, at: float, attributes: Mapping[str, Value], error: str = "") -> None:
        """End the span."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(_to_nanoseconds(at))


def _to_nanoseconds(at: float) -> int:
    return round(at * 1e9)
