"""A client of a live engine in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from service_process import PATIENCE_S, wait_until

from sidecar.audio import Block
from sidecar.interfaces.live_events import Final, LiveEvent, LiveSessionStart, Summary
from sidecar.interfaces.live_options import LiveOptions, LiveOrder
from sidecar.live.runtime.live_scheduler import LiveEngine
from sidecar.transcripts.transcript import Transcript


class LiveClient:
    """Who speaks with a session, and keeps what it says."""

    def __init__(
        self, engine: LiveEngine, options: LiveOptions, begin: LiveSessionStart | None = None
    ) -> None:
        self.told: list[LiveEvent] = []
        self._over = threading.Event()
        self.session = engine.open(options, begin or LiveSessionStart(), self._tell)

    def _tell(self, event: LiveEvent) -> None:
        self.told.append(event)
        if isinstance(event, Summary):
            self._over.set()

    def say(self, samples: Block, chunk: int) -> Iterator[None]:
        """Push it all, a chunk at each step."""
        for start in range(0, len(samples), chunk):
            wait_until(lambda: self.session.backlog_s <= 12.0, "it is heard")
            self.session.push(samples[start : start + chunk])
            yield

    def end(self) -> LiveClient:
        self.session.push(LiveOrder.FINISH)
        assert self._over.wait(PATIENCE_S), self.told[-3:]
        return self

    def until(self, *kinds: type[LiveEvent]) -> None:
        """Wait until something of a kind is told."""
        wait_until(lambda: self.of(*kinds), f"{kinds} of {self.told}")

    def until_finals(self, count: int) -> None:
        """Wait until so many segments are final."""
        wait_until(lambda: len(self.finals) >= count, f"{count} finals of {self.told[-3:]}")

    def of(self, *kinds: type[LiveEvent]) -> list[LiveEvent]:
        return [event for event in self.told if isinstance(event, kinds)]

    @property
    def finals(self) -> list[Final]:
        return [event for event in self.told if isinstance(event, Final)]

    @property
    def transcript(self) -> Transcript:
        """Of the summary, which is the last."""
        *_, last = self.told
        assert isinstance(last, Summary)
        return last.transcript

    @property
    def said(self) -> list[tuple[int, int, float, float, str]]:
        """Turn, piece, begin, end and text of all that stands."""
        return [
            (one.turn, one.segment_number, one.segment.start, one.segment.end, one.segment.text)
            for one in self.finals
        ]
