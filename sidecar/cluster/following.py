"""Follower of shared jobs: reads the events of those that somebody streams here, as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sidecar import clock, errors
from sidecar.cluster.retrying import patiently
from sidecar.cluster.rows import Rows, StoredEvent, StoredJob, fold
from sidecar.database.database import Database
from sidecar.jobs.events import Cancelled, JobEvent
from sidecar.jobs.feed import Feed, Subscription
from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, advance
from sidecar.jobs.written import Unreadable
from sidecar.vault.sealing import SealBroken

CHANNEL = "vibevoice_events"
"""A notification names a job with new events, or that is gone, if it is marked as followed. It only
wakes, and is not counted on: after a reconnect all followed jobs are read."""

_BEHIND = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    JOIN unnest(%s::text[], %s::bigint[]) AS followed (id, after) ON job = id
    WHERE seq > after ORDER BY job, seq"""
_FOLLOW = """
    UPDATE vibevoice.jobs j SET followed = true FROM (
        SELECT id FROM vibevoice.jobs WHERE id = ANY(%s) AND NOT followed
        ORDER BY id FOR UPDATE) locked
    WHERE j.id = locked.id"""
_THERE = "SELECT id, submitted, recording IS NOT NULL FROM vibevoice.jobs WHERE id = ANY(%s)"


@dataclass(slots=True)
class _Followed:
    """A job that is followed: its record as it was told last."""

    record: JobRecord
    listeners: int = 0
    marked: bool = False
    """Whether the database notifies of its events."""


class Follower(Feed):
    """Keeps the jobs in memory that are followed here, and no others."""

    def __init__(self, database: Database, rows: Rows, now: clock.Clock = clock.wall) -> None:
        super().__init__()
        self._database, self._rows, self._now = database, rows, now
        self._followed: dict[str, _Followed] = {}
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        database.listen(CHANNEL, self._notified)

    async def subscribe_to(self, job_id: str, after: int = 0) -> Subscription:
        """Return the events of a job behind the number ``after``, past and to come.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        if "\0" in job_id:  # which no text in the database has
            raise errors.JobNotFound()
        await self._database.fetch(_FOLLOW, ([job_id],))
        record, events = await self._read(job_id)
        followed = self._followed.get(job_id)
        if followed is None:
            followed = _Followed(record, marked=True)
        else:  # it was told further than what was read, or less
            missing = [one for one in events if one.seq > followed.record.seq]
            self._publish(followed, missing)
            if followed.record.seq > record.seq:
                return await self.subscribe_to(job_id, after)
        past = [one for one in events if one.seq > after]
        subscription = self.subscribe(followed.record, after, past)
        if not followed.record.over:
            self._followed[job_id] = followed
            self._notified(job_id)  # what came since it was read woke nobody
        return subscription

    def follow(self, job: Job) -> None:
        """Have a job hear what happens to it, until it has ended or `unfollow` is called."""
        awaited = not job.record.kept  # which its submission marked
        followed = self._followed.setdefault(job.id, _Followed(job.record, marked=awaited))
        followed.listeners += 1
        job.hear(self)
        self._notified(job.id)

    def unfollow(self, job: Job) -> None:
        """Have a job hear no more."""
        job.unhear(self)
        if job.id in self._followed:
            self._followed[job.id].listeners = len(self._of_one.get(job.id, ()))
            self._drop_idle(job.id)

    def leave(self, job_id: str, subscription: Subscription) -> None:
        """Tell a subscription no more."""
        super().leave(job_id, subscription)
        self._drop_idle(job_id)

    async def run(self) -> None:
        """Read what is new of followed jobs, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = self._woken & self._followed.keys(), set()
            if woken:
                await patiently(partial(self._catch_up, sorted(woken)))

    @property
    def following(self) -> int:
        """Jobs that are followed here."""
        return len(self._followed)

    def _notified(self, job_id: str) -> None:
        if job_id and job_id not in self._followed:
            return
        if not job_id:  # after a reconnect, perhaps to a server that had lost the marks
            for followed in self._followed.values():
                followed.marked = False
        self._woken |= {job_id} if job_id else self._followed.keys()
        self._wake.set()

    async def _catch_up(self, job_ids: Sequence[str]) -> None:
        job_ids = [one for one in job_ids if one in self._followed]
        known = [self._followed[one].record.seq for one in job_ids]
        if unmarked := [one for one in job_ids if not self._followed[one].marked]:
            await self._database.fetch(_FOLLOW, (unmarked,))
            for one in unmarked:
                if one in self._followed:
                    self._followed[one].marked = True
        rows = await self._database.fetch(_BEHIND, (job_ids, known))
        there = {row[0] for row in rows}
        if silent := [one for one in job_ids if one not in there]:  # perhaps it was deleted
            there |= {row[0] for row in await self._database.fetch(_THERE, (silent,))}
        by_job: dict[str, list[StoredEvent]] = {one: [] for one in job_ids}
        for row in rows:
            by_job[row[0]].append(StoredEvent(*row))
        for job_id in job_ids:
            if (followed := self._followed.get(job_id)) is None:
                continue
            with contextlib.suppress(SealBroken, Unreadable):  # of a later release
                self._publish(followed, [self._rows.event(one) for one in by_job[job_id]])
            if job_id not in there and not followed.record.over:
                event = JobEvent(followed.record.seq + 1, self._now(), Cancelled())
                self._publish(followed, [event])

    def _publish(self, followed: _Followed, events: Sequence[JobEvent]) -> None:
        for event in events:
            record = advance(followed.record, event)
            if record is followed.record:
                continue
            followed.record = record
            self.publish(record, event)
        if followed.record.over:
            self._followed.pop(followed.record.id, None)

    async def _read(self, job_id: str) -> tuple[JobRecord, Sequence[JobEvent]]:
        """Return a job and all its events."""
        jobs = await self._database.fetch(_THERE, ([job_id],))
        rows = await self._database.fetch(_BEHIND, ([job_id], [0]))
        try:
            events = [self._rows.event(StoredEvent(*row)) for row in rows]
            return fold(self._rows.record(StoredJob(*jobs[0])), events), events
        except (IndexError, SealBroken, Unreadable):
            raise errors.JobNotFound() from None

    def _drop_idle(self, job_id: str) -> None:
        followed = self._followed.get(job_id)
        if followed and not followed.listeners and not self._subscriptions.get(job_id):
            del self._followed[job_id]
