"""Follower of shared jobs for clients that stream them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sidecar import clock, errors
from sidecar.cluster.job_rows import JobRows, replay_events
from sidecar.jobs.job_log import JobEventFeed, JobSubscription
from sidecar.jobs.job_record import CancelledChange, JobEvent, JobRecord, apply_event
from sidecar.jobs.job_runner import Job
from sidecar.jobs.sqlite_job_log import UnreadableRecord
from sidecar.storage.postgres_database import PostgresDatabase, Row, retry_while_unavailable
from sidecar.storage.postgres_settings import MIN_RETRY_PAUSE_S

EVENTS_CHANNEL = "vibevoice_events_"
"""Channel of a service, with its id: a notification names a job that it follows and that has new
events, or is gone. If they are short, it has the events themselves in a second line. It is not
counted on: after a reconnect all are read."""

MAX_READS = 10
"""Reads of a job that was told further here than what was read, before a subscription fails."""
_BEHIND = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    JOIN unnest(%s::text[], %s::bigint[]) AS followed (id, after) ON job = id
    WHERE seq > after ORDER BY job, seq"""
_FOLLOW = """
    UPDATE vibevoice.jobs SET followers = array_append(followers, %s)
    WHERE id = %s AND NOT %s = ANY(followers)"""
_FOLLOW_AGAIN = """
    UPDATE vibevoice.jobs j SET followers = array_append(array_remove(followers, %s), %s) FROM (
        SELECT id FROM vibevoice.jobs WHERE id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED) locked
    WHERE j.id = locked.id RETURNING j.id"""
_THERE = "SELECT id, submitted, recording IS NOT NULL FROM vibevoice.jobs WHERE id = ANY(%s)"


@dataclass(slots=True)
class _FollowedJob:
    """Followed job: its record at its latest event."""

    record: JobRecord
    marked: bool = False
    """True if the database notifies this service of its events."""


class JobFollower(JobEventFeed):
    """Keeps the jobs in memory that are followed here, and no others."""

    def __init__(
        self,
        database: PostgresDatabase,
        rows: JobRows,
        service_id: str,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        super().__init__()
        self._database, self._rows, self._service_id, self._now = database, rows, service_id, now
        self._followed: dict[str, _FollowedJob] = {}
        self._coming: dict[str, bool] = {}
        """Jobs that are submitted now, and whether something was notified of them."""
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        database.listen(EVENTS_CHANNEL + service_id, self._hear_notification)

    async def subscribe_to(self, job_id: str, after: int = 0) -> JobSubscription:
        """Return the events of a job behind the number ``after``, past and to come.

        Raises:
            errors.JobNotFound: there is no such job.
            errors.JournalUnreachable: the database does not answer.
        """
        if "\0" in job_id:  # which no text in the database has
            raise errors.JobNotFound()
        await self._database.fetch(_FOLLOW, (self._service_id, job_id, self._service_id))
        for _ in range(MAX_READS):
            record, events = await self._read(job_id)
            followed = self._followed.get(job_id)
            if followed is None or followed.record.seq <= record.seq:
                break
            await asyncio.sleep(MIN_RETRY_PAUSE_S)  # it was told further than what was read
        else:  # the database has lost what it had told
            raise errors.JournalUnreachable()
        if followed is None:
            followed = _FollowedJob(record, marked=True)
        else:
            missing = [one for one in events if one.seq > followed.record.seq]
            self._publish(followed, missing)
        past = [one for one in events if one.seq > after]
        subscription = self.subscribe(followed.record, after, past)
        if not followed.record.over:
            self._followed[job_id] = followed
            self._notified(job_id)  # what came since it was read woke nobody
        return subscription

    @contextmanager
    def submitting(self, job_id: str) -> Iterator[None]:
        """While a job is submitted, which marks it as followed: `follow` within this needs to read
        it only if something was notified of it meanwhile."""
        self._coming[job_id] = False
        try:
            yield
        finally:
            del self._coming[job_id]

    def follow(self, job: Job) -> None:
        """Have a job hear what happens to it, until it has ended or `unfollow` is called."""
        marked = not job.record.kept  # by its submission, or as it was taken over
        self._followed.setdefault(job.id, _FollowedJob(job.record, marked=marked))
        job.hear(self)
        if not marked or self._coming.get(job.id, True):
            self._notified(job.id)

    def unfollow(self, job: Job) -> None:
        """Have a job hear no more."""
        job.unhear(self)
        self._drop_idle(job.id)

    def leave(self, job_id: str, subscription: JobSubscription) -> None:
        """End a subscription."""
        super().leave(job_id, subscription)
        self._drop_idle(job_id)

    async def run(self) -> None:
        """Read what is new of followed jobs, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = self._woken & self._followed.keys(), set()
            if woken:
                await retry_while_unavailable(partial(self._catch_up, sorted(woken)))

    @property
    def following(self) -> int:
        """Jobs that are followed here."""
        return len(self._followed)

    def _hear_notification(self, payload: str) -> None:
        job_id, _, news = payload.partition("\n")
        if not (news and self._published(job_id, json.loads(news))):
            self._notified(job_id)

    def _published(self, job_id: str, news: dict[str, Any]) -> bool:
        """Publish the events of a notification; False if they are to be read, as some before them
        are missing here, or a call is about to read them."""
        followed = self._followed.get(job_id)
        if followed is None or job_id in self._woken or followed.record.seq != news["base"]:
            return False
        try:
            events = [
                self._rows.event(job_id, seq, at, kind, b64decode(change))
                for seq, at, kind, change in news["events"]
            ]
        except UnreadableRecord:  # of a later release
            return False
        self._publish(followed, events)
        return True

    def _notified(self, job_id: str) -> None:
        if job_id in self._coming:
            self._coming[job_id] = True
        if job_id and job_id not in self._followed:
            return
        if not job_id:  # after a reconnect, perhaps to a server that had lost the marks
            for followed in self._followed.values():
                followed.marked = False
            self._coming = dict.fromkeys(self._coming, True)
        self._woken |= {job_id} if job_id else self._followed.keys()
        self._wake.set()

    async def _catch_up(self, job_ids: Sequence[str]) -> None:
        job_ids = [one for one in job_ids if one in self._followed]
        known = [self._followed[one].record.seq for one in job_ids]
        if unmarked := [one for one in job_ids if not self._followed[one].marked]:
            await self._follow_again(unmarked)
        rows = await self._database.fetch(_BEHIND, (job_ids, known))
        there = {row[0] for row in rows}
        if silent := [one for one in job_ids if one not in there]:  # perhaps it was deleted
            there |= {row[0] for row in await self._database.fetch(_THERE, (silent,))}
        by_job: dict[str, list[Row]] = {one: [] for one in job_ids}
        for row in rows:
            by_job[row[0]].append(row)
        for job_id in job_ids:
            if (followed := self._followed.get(job_id)) is None:
                continue
            with contextlib.suppress(UnreadableRecord):  # of a later release
                self._publish(followed, [self._rows.event(*one) for one in by_job[job_id]])
            if job_id not in there and not followed.record.over:
                event = JobEvent(followed.record.seq + 1, self._now(), CancelledChange())
                self._publish(followed, [event])

    async def _follow_again(self, job_ids: Sequence[str]) -> None:
        """Mark jobs as followed; one whose row another call has locked a moment later, so that it
        holds up no other."""
        values = self._service_id, self._service_id, [*job_ids]
        marked = {row[0] for row in await self._database.fetch(_FOLLOW_AGAIN, values)}
        for job_id in marked & self._followed.keys():
            self._followed[job_id].marked = True
        for job_id in {*job_ids} - marked:
            asyncio.get_running_loop().call_later(MIN_RETRY_PAUSE_S, self._notified, job_id)

    def _publish(self, followed: _FollowedJob, events: Sequence[JobEvent]) -> None:
        for event in events:
            record = apply_event(followed.record, event)
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
            events = [self._rows.event(*row) for row in rows]
            return replay_events(self._rows.record(*jobs[0]), events), events
        except (IndexError, UnreadableRecord):
            raise errors.JobNotFound() from None

    def _drop_idle(self, job_id: str) -> None:
        followed = self._followed.get(job_id)
        if followed and not self._of_one.get(job_id) and not self._subscriptions.get(job_id):
            del self._followed[job_id]
