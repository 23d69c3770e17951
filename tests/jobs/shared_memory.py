"""A store that several services of one process share, with claims: what a database does, without
one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from serving import until

from sidecar import clock, errors
from sidecar.jobs import poison
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.events import (
    Begun,
    Change,
    Crashed,
    Failed,
    Failure,
    Interrupted,
    JobEvent,
    PutBack,
    Reported,
)
from sidecar.jobs.log import Entry, MemoryLog
from sidecar.jobs.record import JobRecord, JobState, advance

WORKERS = Begun, Crashed, PutBack, Reported, Failed
"""What only who has a job may say of it."""


class Shared:
    """What all have in common."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self.entries: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.holds: dict[str, tuple[SharedMemory, float]] = {}
        """Who has a job, and until when by the loop's clock."""
        self.views: list[SharedMemory] = []
        self.refused: list[Change] = []
        """What was said by one who had the job no more."""

    def tell(self, told: SharedMemory, record: JobRecord, event: JobEvent) -> None:
        """Everybody hears of it; the others a moment later."""
        loop = asyncio.get_running_loop()
        for view in self.views:
            if view is told:
                view._feed.publish(record, event)
            else:
                loop.call_soon(view._feed.publish, record, event)
        self.news()

    def news(self) -> None:
        for view in self.views:
            view._news.set()


class SharedMemory(MemoryLog):
    """The store as one service sees it; ``down``: it cannot reach it."""

    def __init__(self, shared: Shared, now: clock.Clock = clock.wall) -> None:
        super().__init__(now)
        self._shared = shared
        self._entries, self._keys = shared.entries, shared.keys
        self._news = asyncio.Event()
        self._mine: set[str] = set()
        self.down = False
        self.claimed: list[str] = []
        self.refuses: dict[str, Failure] = {}
        shared.views.append(self)

    def append(self, job_id: str, change: Change) -> JobRecord:
        holder = self._shared.holds.get(job_id)
        if isinstance(change, WORKERS) and (holder is None or holder[0] is not self):
            self._shared.refused.append(change)
            return self.get(job_id)
        return self._told(job_id, change)

    def add(self, record: JobRecord) -> None:
        super().add(record)
        self._shared.news()

    async def written(self, job_id: str | None = None) -> None:
        if job_id in self._mine:  # who has a job waits, as with the database
            await until(lambda: not self.down)
        if self.down:
            raise errors.JournalUnreachable()

    async def claim(self, takes: Callable[[JobRecord], bool]) -> JobRecord | None:
        self._reach()
        self._news.clear()
        self._expire()
        busy = Counter(self.get(one).owner for one in self._shared.holds)
        waiting = [
            entry.record
            for entry in self._entries.values()
            if entry.record.state is JobState.QUEUED and entry.record.id not in self._shared.holds
        ]
        for record in sorted(waiting, key=lambda one: busy[one.owner]):
            if takes(record):
                self._hold(record.id)
                self._mine.add(record.id)
                self.claimed.append(record.id)
                return record
        return None

    async def beat(self) -> Collection[str]:
        self._reach()
        holds = self._shared.holds
        mine = {one for one in self._mine if one in holds and holds[one][0] is self}
        lost = {one for one in self._mine - mine if not self._over(one)}
        self._mine = mine
        for job_id in mine:
            self._hold(job_id)
        return lost

    async def give_back(self, job_id: str) -> None:
        self._reach()
        self._mine.discard(job_id)
        holder = self._shared.holds.get(job_id)
        if holder is None or holder[0] is not self:
            return
        if self.get(job_id).state is JobState.RUNNING:
            self._told(job_id, PutBack())
        self._shared.holds.pop(job_id, None)
        self._shared.news()

    async def look(
        self,
        node_id: str,
        refused: Mapping[str, Failure],
        able: Collection[str],
        patience_s: float,
    ) -> None:
        self._reach()
        self.refuses = dict(refused)

    async def leave(self, node_id: str) -> None:
        self.refuses = {}

    async def news(self) -> None:
        await self._news.wait()

    def close(self) -> None:
        """The others go on."""
        self._shared.views.remove(self)

    def _hold(self, job_id: str) -> None:
        until = asyncio.get_running_loop().time() + self._shared.lease_s
        self._shared.holds[job_id] = self, until

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        for job_id, (_, over) in [*self._shared.holds.items()]:
            if over < now:
                del self._shared.holds[job_id]
                after = self._told(job_id, Interrupted())
                if (end := poison.given_up(after.crashes, after.interruptions)) is not None:
                    self._told(job_id, Failed(Failure.of(end)))

    def _told(self, job_id: str, change: Change) -> JobRecord:
        entry = self._entry(job_id)
        event = JobEvent(self._next_seq(entry), self._now(), change)
        record = advance(entry.record, event)
        if record is not entry.record:
            self._keep(entry, record, event)
            if record.over:
                self._shared.holds.pop(job_id, None)
            self._shared.tell(self, record, event)
        return record

    def _over(self, job_id: str) -> bool:
        try:
            return self.get(job_id).over
        except errors.JobNotFound:
            return False

    def _reach(self) -> None:
        if self.down:
            raise errors.JournalUnreachable()
