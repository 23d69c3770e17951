"""Trace spans of requests and jobs, and their export over OTLP/HTTP.

Stages are reported when they have ended, from data that exists anyway. Spans contain no spoken
text, path or name: only seconds, counts, codes, and names of engines. If tracing is off,
OpenTelemetry is not imported.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

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

    def send(self, trace: TraceSpan, arrival: RequestArrival | None) -> None:
        """Send the trace of a request that has ended, as a child of its client's trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        carrier = {}
        if arrival is not None:
            carrier = {"traceparent": arrival.traceparent, "tracestate": arrival.tracestate}
        self._send(trace, self._propagator.extract(carrier, Context()), SpanKind.SERVER)

    def _send(self, one: TraceSpan, above: Context, kind: SpanKind) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        span = self._tracer.start_span(one.name, above, kind, start_time=_to_nanoseconds(one.begin))
        for stage in one.stages:
            self._send(stage, set_span_in_context(span, Context()), SpanKind.INTERNAL)
        span.set_attributes(one.attributes)
        if one.error:
            span.set_attribute("error.type", one.error)
            span.set_status(StatusCode.ERROR)
        span.end(_to_nanoseconds(one.end))

    def close(self) -> None:
        """Send the remaining spans, for at most `EXPORT_TIMEOUT_S`."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(EXPORT_TIMEOUT_S)


def _to_nanoseconds(at: float) -> int:
    return round(at * 1e9)
