"""Trace spans of requests, jobs and live sessions.

Stages are told once they are over, of what is known anyway. There is nothing in them of what was
said, nor a path or a name: seconds, counts, codes, and what engines are called. Off, this is an
object that does nothing, and nobody asks it for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

Value = str | int | float | bool
OTLP_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Either says where traces go, as for every program."""


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """Span from ``begin`` to ``end``, in seconds since 1970; ``error``: the code of what ended
    it, and its ``stages``."""

    name: str
    begin: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    stages: Sequence[TraceSpan] = ()


@dataclass(eq=False, slots=True)
class RequestArrival:
    """A request that came ``at`` a time of day, as part of what its client traces."""

    at: float
    traceparent: str = ""
    tracestate: str = ""
    answered: float | None = None
    """Time of the response, None before it."""
    _then: list[Callable[[], None]] = field(default_factory=list)

    def answer(self, at: float) -> None:
        """It is answered."""
        self.answered = at
        while self._then:
            self._then.pop()()

    def after(self, act: Callable[[], None]) -> None:
        """Do it once that is so."""
        if self.answered is None:
            self._then.append(act)
        else:
            act()


CURRENT_ARRIVAL: ContextVar[RequestArrival | None] = ContextVar("ARRIVED", default=None)
"""The request that is being answered, where somebody traces."""


class RequestTrace(Protocol):
    """Of one request, from when it began."""

    def tell(self, stage: TraceSpan) -> None:
        """A stage of it is over."""

    def end(self, at: float, attributes: Mapping[str, Value], error: str = "") -> None:
        """All of it is."""


class Tracer(Protocol):
    """Exporter of traces."""

    on: bool
    """True if traces are recorded."""

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """One that began ``at`` a time of day, beneath what the client traces."""

    def close(self) -> None:
        """Send what is left; this waits for the network, not for long."""


class NullTracer:
    """Tracer that records nothing."""

    on = False

    def begin(self, name: str, at: float, arrival: RequestArrival | None) -> RequestTrace:
        """Raise: there are no traces."""
        raise AssertionError("traces are off")

    def close(self) -> None:
        """Do nothing."""


def is_tracing_configured(environment: Mapping[str, str]) -> bool:
    """Return whether the environment configures traces, by the standard's variables."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return exporter == "otlp" or any(environment.get(name) for name in OTLP_ENDPOINT_VARIABLES)
