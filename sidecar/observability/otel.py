"""OpenTelemetry export over OTLP/HTTP. Imported only if tracing is configured."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar.observability.tracing import RequestArrival, RequestTrace, TraceSpan, Value

SERVICE_NAME = "vibevoice-asr"
EXPORT_TIMEOUT_S = 3.0
"""Time that the shutdown waits for the collector, in seconds."""


class OtlpExporter:
    """OTLP exporter on a thread of the SDK, with a bounded queue of spans."""

    on = True

    def __init__(self, version: str) -> None:
        """Configure the exporter; the environment has the collector's address, headers,
        certificates and sampling."""
        given = {"service.version": version, "service.instance.id": str(uuid.uuid4())}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            given["service.name"] = SERVICE_NAME
        self._provider = TracerProvider(resource=Resource.create(given), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sidecar", version)

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """Start a trace at ``at`` (seconds since 1970), as a child of the client's trace."""
        carrier = {}
        if arrival is not None:
            carrier = {"traceparent": arrival.traceparent, "tracestate": arrival.tracestate}
        above = TraceContextTextMapPropagator().extract(carrier, Context())
        kind = trace.SpanKind.SERVER
        span = self._tracer.start_span(name, above, kind, start_time=_to_nanoseconds(at))
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
        within = trace.set_span_in_context(self._span, Context())
        span = self._tracer.start_span(stage.name, within, start_time=_to_nanoseconds(stage.begin))
        one = _OtlpTrace(self._tracer, span)
        for part in stage.stages:
            one.tell(part)
        one.end(stage.end, stage.attributes, stage.error)

    def end(self, at: float, attributes: Mapping[str, Value], error: str = "") -> None:
        """End the span."""
        self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end(_to_nanoseconds(at))


def _to_nanoseconds(at: float) -> int:
    return round(at * 1e9)
