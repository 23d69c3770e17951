"""Follower of shared jobs, for clients that stream their events."""

import asyncio
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from sidecar import clock, errors
from sidecar.jobs.job_event_log import JobEventFeed, JobSubscription
from sidecar.jobs.job_record import (
    CancelledChange,
    FailedChange,
    JobEvent,
    JobFailure,
    JobRecord,
    apply_event,
)
from sidecar.jobs.job_runner import Job
from sidecar.jobs.sqlite_event_log import UnreadableRecord
from sidecar.plugins.shared_jobs.job_rows import (
    JobRows,
    log_unreadable,
    replay_events,
    unreadable_error,
)
from sidecar.plugins.shared_jobs.postgres_database import PostgresDatabase, retry_while_unavailable
from sidecar.plugins.shared_jobs.postgres_settings import MIN_RETRY_PAUSE_S

EVENTS_CHANNEL = "vibevoice_events_"
"""Channel of a service, with its id. A notification names a followed job that has new events
or was deleted; short events are in its second line. Notifications may be lost: after a
reconnect all events are read."""

MAX_READS = 10
"""Reads of a job whose followed state is ahead of the read one, before a subscription fails."""
_BEHIND = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    JOIN unnest(%s::text[], %s::bigint[]) AS followed (id, after) ON job = id
    WHERE seq > after ORDER BY job, seq"""
_FOLLOW = """
    UPDATE vibevoice.jobs SET followers = array_append(followers, %s) WHERE id IN (
        SELECT id FROM vibevoice.jobs WHERE id = ANY(%s) AND NOT %s = ANY(followers)
        ORDER BY id FOR UPDATE)"""
_ENDED = "SELECT id FROM vibevoice.jobs WHERE id = ANY(%s) AND ended IS NOT NULL"
_THERE = "SELECT id, submitted, recording IS NOT NULL FROM vibevoice.jobs WHERE id = ANY(%s)"


class JobFollower(JobEventFeed):
    """Follower of jobs: holds the followed ones in memory, and no others."""

    def __init__(
        self,
        database: PostgresDatabase,
        rows: JobRows,
        service_id: str,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        super().__init__()
        self._database, self._rows, self._service_id, self._now = database, rows, service_id, now
        self.followed: dict[str, JobRecord] = {}
        """Followed jobs, as they were last published."""
        self._submitting: set[str] = set()
        """Jobs that may not be in the database yet."""
        self._marked = True
        """Whether the database notifies this service of the events of all of them."""
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        database.listen(EVENTS_CHANNEL + service_id, self.hear_notification)

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """Return the events of a job after the number ``after``, stored and future.

        Raises:
            errors.JobNotFound: there is no such job.
            errors.JournalUnreachable: the database does not answer.
        """
        if "\0" in job_id:  # no text in the database contains it
            raise errors.JobNotFound()
        await self.mark([job_id])
        for _ in range(MAX_READS):
            record, events = await self._read(job_id)
            published = self.followed.get(job_id)
            if published is None or published.seq <= record.seq:
                break
            # the published state is ahead of the one that was read
            await asyncio.sleep(MIN_RETRY_PAUSE_S)
        else:  # the database has lost events that it had notified
            raise errors.JournalUnreachable()
        if published is not None:
            self._publish(job_id, [one for one in events if one.seq > published.seq])
        subscription = self.open_subscription(
            record, after, [one for one in events if one.seq > after]
        )
        if not record.over:
            self.followed[job_id] = record
            self._notified(job_id)  # events since the read were not notified
        return subscription

    @contextmanager
    def submitting(self, job_id: str) -> Iterator[None]:
        """Mark a job as being submitted. Within this context, `follow` reads nothing, as
        the submission marks the job as followed; and a job that is not in the database yet
        is not taken for deleted."""
        self._submitting.add(job_id)
        try:
            yield
        finally:
            self._submitting.remove(job_id)

    def follow(self, job: Job) -> None:
        """Pass the events of a job to it, until it has ended or `unfollow` is called."""
        self.followed.setdefault(job.id, job.record)
        job.follow(self)
        if job.id not in self._submitting:
            self._marked = False
            self._notified(job.id)

    def unfollow(self, job: Job) -> None:
        """Pass no more events to a job."""
        job.unfollow(self)
        self._drop_idle(job.id)

    def leave(self, job_id: str, subscription: JobSubscription) -> None:
        """End a subscription."""
        super().leave(job_id, subscription)
        self._drop_idle(job_id)

    async def run(self) -> None:
        """Read new events of followed jobs, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = self._woken & self.followed.keys(), set()
            if woken:
                await retry_while_unavailable(partial(self._catch_up, sorted(woken)))

    def hear_notification(self, payload: str) -> None:
        """Take a notification of `EVENTS_CHANNEL`."""
        job_id, _, news = payload.partition("\n")
        if not (news and self._published(job_id, json.loads(news))):
            self._notified(job_id)

    def _published(self, job_id: str, news: dict[str, Any]) -> bool:
        """Publish the events of a notification. Return False if they have to be read: events before
        them are missing here, or a read is about to start."""
        published = self.followed.get(job_id)
        if published is None or job_id in self._woken or published.seq != news["base"]:
            return False
        try:
            events = [
                self._rows.event(job_id, seq, at, kind, b64decode(change))
                for seq, at, kind, change in news["events"]
            ]
        except UnreadableRecord:  # written by a later release
            return False
        self._publish(job_id, events)
        return True

    def _notified(self, job_id: str) -> None:
        if job_id and job_id not in self.followed:
            return
        if not job_id:  # after a reconnect, perhaps to a server that lost the marks
            self._marked = False
        self._woken |= {job_id} if job_id else self.followed.keys()
        self._wake.set()

    async def mark(self, job_ids: Sequence[str]) -> None:
        """Have the database notify this service of the events of jobs.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        await self._database.fetch(_FOLLOW, (self._service_id, [*job_ids], self._service_id))

    async def _catch_up(self, job_ids: Sequence[str]) -> None:
        if not self._marked:
            await self.mark(sorted(self.followed))
            self._marked = True
        job_ids = [one for one in job_ids if one in self.followed]
        known = [self.followed[one].seq for one in job_ids]
        rows = await self._database.fetch_events(_BEHIND, (job_ids, known))
        by_job = {job_id: [*own] for job_id, own in groupby(rows, itemgetter(0))}
        there = {*by_job}
        if silent := [one for one in job_ids if one not in there]:  # perhaps they were deleted
            there |= {row[0] for row in await self._database.fetch(_THERE, (silent,))}
        unreadable = dict[str, Exception]()
        for job_id in job_ids:
            for row in by_job.get(job_id, ()):
                try:
                    self._publish(job_id, [self._rows.event(*row)])
                except Exception as error:  # what follows may be all that its clients need
                    unreadable[job_id] = error
            if job_id in there:
                continue
            if job_id in self._submitting:
                asyncio.get_running_loop().call_later(MIN_RETRY_PAUSE_S, self._notified, job_id)
            else:
                self._end(job_id, CancelledChange())
        ended = await self._database.fetch(_ENDED, ([*unreadable],)) if unreadable else ()
        for (job_id,) in ended:
            log_unreadable(job_id, unreadable[job_id])
            self._end(job_id, FailedChange(JobFailure.of(unreadable_error(unreadable[job_id]))))

    def _end(self, job_id: str, change: CancelledChange | FailedChange) -> None:
        """End a job for its clients here, if its end cannot be read."""
        if (published := self.followed.get(job_id)) is not None:
            self._publish(job_id, [JobEvent(published.seq + 1, self._now(), change)])

    def _publish(self, job_id: str, events: Sequence[JobEvent]) -> None:
        for event in events:
            if (published := self.followed.get(job_id)) is None:
                return
            record = apply_event(published, event)
            if record is not published:
                self.followed[job_id] = record
                self.publish(record, event)
            if record.over:
                self.followed.pop(job_id, None)

    async def _read(self, job_id: str) -> tuple[JobRecord, Sequence[JobEvent]]:
        """Return a job and all its events."""
        jobs = await self._database.fetch(_THERE, ([job_id],))
        rows = await self._database.fetch_events(_BEHIND, ([job_id], [0]))
        try:
            events = [self._rows.event(*row) for row in rows]
            return replay_events(self._rows.record(*jobs[0]), events), events
        except (IndexError, UnreadableRecord):
            raise errors.JobNotFound() from None

    def _drop_idle(self, job_id: str) -> None:
        if job_id in self.followed and not self.has_followers(job_id):
            del self.followed[job_id]
