"""Traces of live sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar import clock, errors
from sidecar.interfaces.live_events import Final, SpeechStarted
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.live.sessions.session import Session
from sidecar.observability.tracing import CURRENT_ARRIVAL, RequestTrace, Tracer, TraceSpan, Value

TRACE_NAME = "live session"


class SessionTracer:
    """Factory of trace observers (`live.sessions.session.SessionObserverFactory`)."""

    def __init__(
        self,
        traces: Tracer,
        engine: str,
        loaded: Callable[[], tuple[float, float]],
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``loaded``: start and end of the last load of the engine, in seconds since 1970."""
        self.greeting: Mapping[str, Any] = {}
        self.traces, self.engine, self.loaded, self.clock = traces, engine, loaded, now

    def begin(self, session: Session) -> SessionTrace:
        """Begin the trace of a session, as part of its client's trace."""
        at = self.clock()
        return SessionTrace(self, self.traces.begin(TRACE_NAME, at, CURRENT_ARRIVAL.get()), at)


class SessionTrace:
    """Trace observer of one session."""

    def __init__(self, tracer: SessionTracer, trace: RequestTrace, began: float) -> None:
        self._tracer, self._trace = tracer, trace
        self._began = self._since = began
        self._finals = 0
        self._samples_s = 0.0

    def sound(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """Count the audio."""
        self._samples_s += len(raw) / encoding.width / rate

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Ignore the command."""

    def told(self, numbered: NumberedEvent) -> None:
        """Trace an utterance when its final is sent."""
        at = self._tracer.clock()
        match numbered.event:
            case SpeechStarted():
                self._since = at
            case Final() as final:
                self._trace.tell(utterance_stages(final, self._since, at))
                self._finals += 1
                self._since = at

    def over(self, wrong: errors.SidecarError | None) -> None:
        """End the trace."""
        at = self._tracer.clock()
        begin, end = self._tracer.loaded()
        if max(begin, self._began) < min(end, at):
            self._trace.tell(TraceSpan("loaded", max(begin, self._began), min(end, at)))
        attributes: dict[str, Value] = {
            "vibevoice.engine": self._tracer.engine,
            "vibevoice.audio_s": round(self._samples_s, 3),
            "vibevoice.utterances": self._finals,
        }
        self._trace.end(at, attributes, wrong.code if wrong is not None else "")


def utterance_stages(final: Final, since: float, at: float) -> TraceSpan:
    """Return the span of an utterance with its stages: received, queued, run. Pure."""
    run = max(since, at - final.work_s)
    queued = max(since, run - final.wait_s)
    parts = (
        TraceSpan("received", since, queued),
        TraceSpan("queued", queued, run),
        TraceSpan("run", run, at),
    )
    length_s = round(final.segment.end - final.segment.start, 3)
    return TraceSpan("utterance", since, at, {"vibevoice.audio_s": length_s}, stages=parts)
