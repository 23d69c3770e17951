"""Export of traces over OTLP/HTTP, as the environment (OTEL_…) configures it."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from typing import TYPE_CHECKING

from sidecar.installation import install_command
from sidecar.plugins.tracing.arrivals import RequestArrival
from sidecar.plugins.tracing.spans import TraceSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

log = logging.getLogger(__name__)

SERVICE_NAME = "vibevoice-asr"
EXPORT_TIMEOUT_S = 3.0
"""Time that the shutdown waits for the collector, in seconds."""


class OtlpExporter:
    """OTLP exporter on a thread of the SDK, with a bounded queue of spans."""

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

    def _send(self, trace_span: TraceSpan, parent: Context, kind: SpanKind) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        span = self._tracer.start_span(
            trace_span.name, parent, kind, start_time=_to_nanoseconds(trace_span.begin)
        )
        for stage in trace_span.stages:
            self._send(stage, set_span_in_context(span, Context()), SpanKind.INTERNAL)
        span.set_attributes(trace_span.attributes)
        if trace_span.error:
            span.set_attribute("error.type", trace_span.error)
            span.set_status(StatusCode.ERROR)
        span.end(_to_nanoseconds(trace_span.end))

    def close(self) -> None:
        """Send the remaining spans, for at most `EXPORT_TIMEOUT_S`."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(EXPORT_TIMEOUT_S)


def _to_nanoseconds(at: float) -> int:
    return round(at * 1e9)


def create_exporter(version: str) -> OtlpExporter | None:
    """Return the exporter; `None` if its packages are missing."""
    try:
        return OtlpExporter(version)
    except ImportError:  # the variables may be meant for other programs
        log.warning("traces are off: packages are missing: %s", install_command("otel"))
        return None
