"""Where recordings become transcripts: a store of jobs and a queue, opened and closed together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sidecar import clock
from sidecar.background import Background
from sidecar.config.settings import Settings
from sidecar.jobs.counted import Counted
from sidecar.jobs.feed import Listener
from sidecar.jobs.job import Job
from sidecar.jobs.lane import Terms
from sidecar.jobs.local import LocalJobs
from sidecar.jobs.log import JobLog, MemoryLog
from sidecar.jobs.pace import Pace
from sidecar.jobs.pace_file import PaceFile
from sidecar.jobs.provision import Provision
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.recovery import Keeping, KeptRecordings, go_on
from sidecar.jobs.retention import Retention
from sidecar.jobs.room import Hold
from sidecar.jobs.runner import Plan
from sidecar.jobs.store import JobStore
from sidecar.observability.crash import data_folder
from sidecar.observability.tally import JobTally
from sidecar.threads import Threads


class Intake(Protocol):
    """Queue that accepts jobs: of this process, or of all services that share jobs."""

    @property
    def draining(self) -> bool:
        """Whether no job is accepted any more."""
        ...

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        ...

    @property
    def running(self) -> int:
        """Jobs that run."""
        ...

    def check_room(self, promised: int = 0) -> None:
        """Raise `errors.QueueFull` or `errors.ShuttingDown` if no job is accepted."""
        ...

    async def submit(self, job: Job, *, promised: Hold | None = None) -> None:
        """Accept a job: return once it is persisted."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Accept no more; running jobs have so long to end."""
        ...

    async def broken(self) -> None:
        """Wait for a fault that ends all work."""
        ...

    def interrupt(self) -> None:
        """Put back what runs here."""
        ...


class EngineSetup:
    """The queue that runs jobs in this process, and its pace.

    ``provision``: what each job gets; ``plan``: the options that it begins with; ``places``: so
    many run at once; ``model``: the name of its weights, by which the pace is known.
    """

    def __init__(
        self, settings: Settings, provision: Provision, plan: Plan, places: int, model: str
    ) -> None:
        self.provision, self.places = provision, places
        self._limit = settings.queue_limit
        self._terms = Terms(
            plan, settings.max_audio_hours * 3600, provision.company, provision.lead_s
        )
        self._file = PaceFile(data_folder(settings.data_dir))
        self.pace = Pace(provision.spec.name, model, self._file.read())
        """How long work takes."""

    def queue(self, log: JobLog) -> JobQueue:
        """Return a queue that writes to a log."""
        return JobQueue(
            self.provision.slot,
            log,
            self._terms,
            limit=self._limit,
            places=self.places,
            guess=self.provision.guess,
            pace=self.pace,
        )

    def open(self, background: Background) -> None:
        """Persist the pace from time to time."""
        background.spawn("remember the pace", self._file.run(self.pace))

    async def close(self) -> None:
        """Persist the pace."""
        await asyncio.to_thread(self._file.write, self.pace.known)


class Backend(Protocol):
    """A store of jobs and a queue. ``keeping``: recordings of jobs that outlive the process; None
    where none do. ``shares``: whether other services have the same jobs."""

    shares: bool

    @property
    def store(self) -> JobStore:
        """What owners and wires do with jobs."""
        ...

    @property
    def queue(self) -> Intake:
        """Accepts jobs."""
        ...

    @property
    def keeping(self) -> KeptRecordings | None:
        """Recordings of jobs that outlive the process."""
        ...

    def listen(self, tell: Listener) -> None:
        """Have ``tell`` called with the events of jobs that are accepted here."""
        ...

    async def open(self, background: Background) -> None:
        """Start to work."""
        ...

    async def fetched(self) -> None:
        """Wait a moment for results to be fetched that are gone with this process."""
        ...

    async def close(self) -> None:
        """Stop and leave nothing behind."""
        ...


class LocalBackend:
    """The `Backend` of a service that has its jobs for itself, in memory or in a file."""

    shares = False

    def __init__(
        self,
        settings: Settings,
        engine: EngineSetup,
        tally: JobTally,
        disk: Threads,
        now: clock.Clock,
    ) -> None:
        """``disk``: threads that may wait for one."""
        self._disk, self._now, self._engine = disk, now, engine
        self._kept = Keeping(settings, now) if settings.keeps_jobs else None
        self.log: JobLog = self._kept.store if self._kept else MemoryLog(now)
        """What happens to the jobs of this process."""
        self.log.listen(Counted(tally))
        self.queue = engine.queue(self.log)
        self.results = Retention(
            self.log,
            settings.job_retention,
            settings.job_retention_mb << 20,
            settings.job_retention_count,
        )
        """Jobs that have ended, until they are fetched."""
        self.store = LocalJobs(self.log, self.queue, self.results)

    @property
    def keeping(self) -> KeptRecordings | None:
        """Recordings of jobs that outlive the process."""
        return self._kept

    def listen(self, tell: Listener) -> None:
        """Have ``tell`` called with the events of all jobs."""
        self.log.listen(tell)

    async def open(self, background: Background) -> None:
        """Start to work, and go on with what was left of the last time."""
        self.queue.open()
        if self._kept is not None:
            ended = [record for record in self.log.all() if record.over]
            for record in sorted(ended, key=lambda one: one.touched):
                self.results.remember(record, self._now() - record.touched)
            background.spawn("go on", go_on(self._kept, self.queue, self._disk))
        self._engine.open(background)

    async def fetched(self) -> None:
        """Wait a moment for results to be fetched."""
        await self.results.all_fetched()

    async def close(self) -> None:
        """Stop and leave nothing behind."""
        await self.queue.close()
        await self._engine.close()
        self.results.close()
        if self._kept is not None:
            self._kept.close()
        else:
            self.log.close()


if TYPE_CHECKING:

    def _checked(local: LocalBackend) -> Backend:
        return local
