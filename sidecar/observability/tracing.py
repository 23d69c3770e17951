"""Trace spans of requests, jobs and live sessions.

Stages are reported when they have ended, from data that exists anyway. Spans contain no spoken
text, path or name: only seconds, counts, codes, and names of engines. If tracing is off, the tracer
is a `NullTracer` and is not called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

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
