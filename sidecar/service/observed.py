"""Who is told of all that passes, where the settings want it: traces of stages, captures."""

from __future__ import annotations

import asyncio

from sidecar import __version__, clock
from sidecar.config.settings import Settings
from sidecar.interfaces.engine import EngineSpec
from sidecar.jobs.traced import JobTraces, Listens
from sidecar.live.sessions.capture import Captures
from sidecar.live.sessions.session_traces import SessionTraces
from sidecar.live.sessions.witness import Observer
from sidecar.observability.tracing import traces_of
from sidecar.workers.fleet import Fleet


class Observed:
    """Owns them. ``jobs``: tells of jobs that are traced; ``live``: the engine for live audio, None
    without."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        jobs: Listens,
        live: EngineSpec | None,
        now: clock.Clock,
    ) -> None:
        self.traces = traces_of(settings.traces, __version__)
        """Where is told what took how long: nowhere, mostly."""
        self.jobs: JobTraces | None = None
        """The stages of jobs, where they are told."""
        self.sessions: list[Observer] = []
        """Who looks at live sessions."""
        self._captures: Captures | None = None
        if self.traces.on:
            name, hears = fleet.files.spec.name, live.name if live is not None else ""
            self.jobs = JobTraces(
                self.traces, jobs, name, lambda: fleet.files.slot.last_load(now()), now
            )
            self.sessions.append(
                SessionTraces(self.traces, hears, lambda: fleet.live.last_load(now()), now)
            )
        if settings.capture and live is not None:
            self._captures = Captures(settings, live.name, now)
            self.sessions.append(self._captures)

    async def forget(self, owner: str) -> None:
        """Delete what was captured of an owner's sessions that are over.

        Raises:
            errors.SidecarError: it cannot be deleted.
        """
        if self._captures is not None:
            await self._captures.forget(owner)

    async def close(self) -> None:
        """Write what is still to be written."""
        if self._captures is not None:
            await asyncio.to_thread(self._captures.close)
        if self.traces.on:
            await asyncio.to_thread(self.traces.close)
