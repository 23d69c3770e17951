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
    """Observes all live sessions (`live.sessions.session.Observer`)."""

    def __init__(
        self,
        traces: Tracer,
        engine: str,
        loaded: Callable[[], tuple[float, float]],
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``loaded``: from when to when the engine was loaded last, in seconds since 1970."""
        self.greeting: Mapping[str, Any] = {}
        self.traces, self.engine, self.loaded, self.clock = traces, engine, loaded, now

    def begin(self, session: Session) -> SessionTrace:
        """A session begins, as part of what its client traces."""
        at = self.clock()
        return SessionTrace(self, self.traces.begin(TRACE_NAME, at, CURRENT_ARRIVAL.get()), at)


class SessionTrace:
    """The observer of one session."""

    def __init__(self, tracer: SessionTracer, trace: RequestTrace, began: float) -> None:
        self._tracer, self._trace = tracer, trace
        self._began = self._since = began
        self._finals = 0
        self._samples_s = 0.0

    def sound(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """It is counted."""
        self._samples_s += len(raw) / encoding.width / rate

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Ignore it."""

    def told(self, numbered: NumberedEvent) -> None:
        """Each final ends an utterance."""
        at = self._tracer.clock()
        match numbered.event:
            case SpeechStarted():
                self._since = at
            case Final() as final:
                self._trace.tell(utterance_stages(final, self._since, at))
                self._finals += 1
                self._since = at

    def over(self, wrong: errors.SidecarError | None) -> None:
        """It has ended, and with it the trace."""
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
    """One that began ``since`` and was told ``at``: received, queued, run. Pure."""
    run = max(since, at - final.work_s)
    queued = max(since, run - final.wait_s)
    parts = (
        TraceSpan("received", since, queued),
        TraceSpan("queued", queued, run),
        TraceSpan("run", run, at),
    )
    length_s = round(final.segment.end - final.segment.start, 3)
    return TraceSpan("utterance", since, at, {"vibevoice.audio_s": length_s}, stages=parts)
