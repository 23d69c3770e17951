"""Traces of live sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar import clock, errors
from sidecar.interfaces.live_engine import Encoding
from sidecar.interfaces.live_events import Final, SpeechStarted
from sidecar.live.sessions.event_log import Numbered
from sidecar.live.sessions.session import Session
from sidecar.observability.tracing import ARRIVED, Stage, Trace, Traces, Value

NAME = "live session"


class SessionTraces:
    """Observes all live sessions (`live.sessions.session.Observer`)."""

    def __init__(
        self,
        traces: Traces,
        engine: str,
        loaded: Callable[[], tuple[float, float]],
        now: clock.Clock = clock.wall,
    ) -> None:
        """``loaded``: from when to when the engine was loaded last, in seconds since 1970."""
        self.greeting: Mapping[str, Any] = {}
        self._traces, self._engine, self._loaded, self._now = traces, engine, loaded, now

    def begin(self, session: Session) -> Traced:
        """A session begins, as part of what its client traces."""
        at = self._now()
        trace = self._traces.begin(NAME, at, ARRIVED.get())
        return Traced(trace, at, self._engine, self._loaded, self._now)


class Traced:
    """The witness of one session."""

    def __init__(
        self,
        trace: Trace,
        began: float,
        engine: str,
        loaded: Callable[[], tuple[float, float]],
        now: clock.Clock,
    ) -> None:
        self._trace, self._engine, self._loaded, self._now = trace, engine, loaded, now
        self._began = self._since = began
        self._finals = 0
        self._samples_s = 0.0

    def sound(self, raw: bytes, encoding: Encoding, rate: int) -> None:
        """It is counted."""
        self._samples_s += len(raw) / encoding.width / rate

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Nothing is told of it."""

    def told(self, numbered: Numbered) -> None:
        """Each final ends an utterance."""
        at = self._now()
        match numbered.event:
            case SpeechStarted():
                self._since = at
            case Final() as final:
                self._trace.tell(utterance(final, self._since, at))
                self._finals += 1
                self._since = at

    def over(self, wrong: errors.SidecarError | None) -> None:
        """It has ended, and with it the trace."""
        at = self._now()
        begin, end = self._loaded()
        if max(begin, self._began) < min(end, at):
            self._trace.tell(Stage("loaded", max(begin, self._began), min(end, at)))
        attributes: dict[str, Value] = {
            "vibevoice.engine": self._engine,
            "vibevoice.audio_s": round(self._samples_s, 3),
            "vibevoice.utterances": self._finals,
        }
        self._trace.end(at, attributes, wrong.code if wrong is not None else "")


def utterance(final: Final, since: float, at: float) -> Stage:
    """One that began ``since`` and was told ``at``: received, queued, run. Pure."""
    run = max(since, at - final.work_s)
    queued = max(since, run - final.wait_s)
    parts = (
        Stage("received", since, queued),
        Stage("queued", queued, run),
        Stage("run", run, at),
    )
    length_s = round(final.segment.end - final.segment.start, 3)
    return Stage("utterance", since, at, {"vibevoice.audio_s": length_s}, stages=parts)
