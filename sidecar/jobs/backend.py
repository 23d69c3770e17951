"""Where recordings become transcripts: a store, a queue, results; opened and closed together."""

from __future__ import annotations

import asyncio

from sidecar import clock
from sidecar.background import Background
from sidecar.diagnostics.crash import data_folder
from sidecar.jobs.counted import Counted
from sidecar.jobs.keeping import Keeping, go_on
from sidecar.jobs.lane import Terms
from sidecar.jobs.pace import Pace
from sidecar.jobs.pace_file import PaceFile
from sidecar.jobs.provision import Provision
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.retention import Retention
from sidecar.jobs.runner import Plan
from sidecar.jobs.sharing import shared_queue
from sidecar.jobs.store import JobStore, MemoryStore
from sidecar.jobs.unanswered import Unanswered
from sidecar.metering.tally import JobTally
from sidecar.settings import NODE, Settings
from sidecar.threads import Threads


class Backend:
    """Owns them.

    ``provision``: what each job gets; ``plan``: the options that it begins with; ``places``: so
    many recordings are heard at once; ``model``: the name of its weights, for how long work takes;
    ``disk``: threads that may wait for one; ``instance``: the id of this service among the nodes.
    """

    def __init__(
        self,
        settings: Settings,
        provision: Provision,
        plan: Plan,
        places: int,
        model: str,
        tally: JobTally,
        disk: Threads,
        now: clock.Clock,
        instance: str,
    ) -> None:
        self._role, self._disk, self._now = settings.role, disk, now
        self.keeping = Keeping(settings, now, instance) if settings.keeps_jobs else None
        """Those that outlive the process, where they do."""
        self.store: JobStore = self.keeping.store if self.keeping else MemoryStore(now)
        self.store.listen(Counted(tally), here=True)
        self._pace_file = PaceFile(data_folder(settings.data_dir))
        self.pace = Pace(provision.spec.name, model, self._pace_file.read())
        """How long work takes."""
        queue = JobQueue(
            provision.slot,
            self.store,
            Terms(plan, settings.max_audio_hours * 3600, provision.company, provision.lead_s),
            limit=settings.queue_limit,
            places=places,
            guess=provision.guess,
            pace=self.pace,
        )
        shared = shared_queue(settings, self.keeping, provision, self.pace, queue, now, instance)
        self.shares = shared is not None
        """Whether other services have the same jobs."""
        self.queue = shared or queue
        """Who takes in: for this service, or for all that share its jobs."""
        self.results = Retention(
            self.store,
            settings.job_retention,
            settings.job_retention_mb << 20,
            settings.job_retention_count,
            own=shared.awaits if shared is not None else lambda record: True,
        )
        """Those that are over, until they are fetched."""
        self.unanswered: Unanswered | None = None
        """Those whose clients timed out, where others may be asked next."""
        left = self.keeping.unanswered if self.keeping is not None else None
        if shared is not None and left is not None:
            self.unanswered = Unanswered(left, self.store, shared, self.results, self.seek)

    async def open(self, background: Background) -> None:
        """Start working, and go on with what was left of the last time."""
        if self.keeping is not None:
            await self.keeping.open_store()
        self.queue.open()
        if self.keeping is not None:
            ended = [record for record in self.store.all() if record.over]
            for record in sorted(ended, key=lambda one: one.touched):
                self.results.remember(record, self._now() - record.touched)
            if isinstance(self.queue, JobQueue):
                background.spawn("go on", go_on(self.keeping, self.queue, self._disk))
            if self.keeping.sessions is not None:
                background.spawn("share live sessions", self.keeping.sessions.run())
        if self.unanswered is not None and self._role != NODE:
            background.spawn("end what nobody waits for", self.unanswered.end_in_time())
        background.spawn("remember the pace", self._pace_file.run(self.pace))

    async def seek(self, job_id: str | None = None) -> None:
        """Know of a job that another service may have taken in or changed a moment ago; of all
        jobs without an id."""
        if self.keeping is not None:
            await self.keeping.seek(job_id)

    async def fetched(self) -> None:
        """Wait a moment for results to be fetched, where anybody fetches them from here."""
        if self._role != NODE:
            await self.results.all_fetched()

    async def close(self) -> None:
        """Stop working and leave nothing behind."""
        await self.queue.close()
        await asyncio.to_thread(self._pace_file.write, self.pace.known)
        self.results.close()
        if self.keeping is not None:
            await self.keeping.close()
        else:
            self.store.close()
