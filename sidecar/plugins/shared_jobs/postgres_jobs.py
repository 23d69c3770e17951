"""Job store in PostgreSQL.

No job is held in memory: each call queries the database, each change is one call of a function
(`storage/migrations`), and only new events of a followed job are read.
"""

import asyncio
import logging
import math
import time
import uuid
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

from sidecar import clock, errors
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.jobs.job_event_log import DuplicateRequestKey, JobIdTaken, JobSubscription
from sidecar.jobs.job_queue import RETURN_S
from sidecar.jobs.job_record import (
    EditedChange,
    JobChange,
    JobEvent,
    JobRecord,
    JobState,
    Priority,
    apply_event,
)
from sidecar.jobs.job_store import SAVE_PAUSES_S, Expiry, JobFilter, OwnerLoad, persist_import
from sidecar.jobs.reservations import UNKNOWN_AUDIO_CHARGE_S, charged_audio_s
from sidecar.jobs.retention import edits_full_error
from sidecar.jobs.wait_queue import QueuePosition
from sidecar.observability.metrics import JobMetrics
from sidecar.plugins.shared_jobs import job_rows
from sidecar.plugins.shared_jobs.job_follower import JobFollower
from sidecar.plugins.shared_jobs.job_needs import needs_of_job
from sidecar.plugins.shared_jobs.postgres_database import (
    PostgresDatabase,
    Row,
    retry_while_unavailable,
)
from sidecar.plugins.shared_jobs.shared_retention import SharedRetention

log = logging.getLogger(__name__)

UNKNOWN_WORK_S = 60.0
"""Work that a recording of unknown duration counts as between owners."""
DELETE_PAUSE_S = 0.02
"""Seconds after which an answered job is deleted, so that its answer is sent first."""
CLOSE_TIMEOUT_S = 3.0
"""Limit for the last cancels and deletions of a service that stops."""
PREDICTION_SAMPLE_S = 60.0
"""Duration of the audio for which a service's pace is computed, to turn work into a wait."""

_BY_ID = "SELECT id, submitted, recording IS NOT NULL, seq FROM vibevoice.jobs WHERE id = %s"
_BY_KEY = """
    SELECT id, submitted, recording IS NOT NULL, seq FROM vibevoice.jobs
    WHERE owner = %s AND idempotency_key = %s"""
_LIST = """
    SELECT id, submitted, recording IS NOT NULL, summary FROM vibevoice.jobs
    WHERE owner = %s AND place > %s AND (kept OR %s)
        AND (%s::text[] = '{}' OR state = ANY(%s))
    ORDER BY place LIMIT %s"""
_EVENTS = """
    SELECT job, events.seq, at, kind, change
    FROM vibevoice.events JOIN vibevoice.jobs ON jobs.id = job
    WHERE job = ANY(%s) AND NOT (state = 'done' AND kind = ANY(%s)) ORDER BY job, events.seq"""
_LAST_RESUME_POINT = """
    SELECT job, seq, at, kind, change FROM vibevoice.events
    WHERE job = %s AND kind = 'checkpoint' ORDER BY seq DESC LIMIT 1"""
_LEFT = """
    SELECT id FROM vibevoice.jobs
    WHERE owner = %s AND left_as IS NOT NULL AND awaited_as IS NULL LIMIT 1"""
_SUPERSEDED_KINDS = ["segmentready", "progress", "checkpoint"]
"""Events of a job that is done whose content is in its transcript too."""
_WORK_BETWEEN_STARTS = """
    SELECT (SELECT avg(work_s) FROM vibevoice.jobs WHERE ended IS NULL) / greatest(1, (
        SELECT count(*) FROM vibevoice.jobs WHERE claim IS NOT NULL AND state = 'running'))"""


class PostgresJobStore:
    """`JobStore` of all services that share a database."""

    positions_interval_s = 1.0
    """Seconds between two computations of the order of all waiting jobs."""
    long_queue = 500
    """Waiting jobs up to which a job that has just come, and one that has just gone, count at once;
    the order of ten thousand takes the database a quarter of a second."""
    close_s, save_pauses_s = CLOSE_TIMEOUT_S, SAVE_PAUSES_S

    def __init__(
        self,
        database: PostgresDatabase,
        rows: job_rows.JobRows,
        service_id: str,
        follower: JobFollower,
        retention: SharedRetention,
        pace_s: Callable[[float], float],
        queue_limit: int,
        metrics: JobMetrics,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``pace_s``: predicts the seconds of work of this service for seconds of audio."""
        self._database, self._rows, self._service_id = database, rows, service_id
        self._follower, self._retention, self._pace_s = follower, retention, pace_s
        self._limit, self._metrics, self._now = queue_limit, metrics, now
        self._waiting_ids, self._waits_s = "", array("d")
        """Ids of all waiting jobs in the order of claims, separated by spaces, and their predicted
        waits, as of `_turns_at`: 40 bytes a job. As objects, ten thousand are some megabytes."""
        self._turns_at, self._turns_moved = -math.inf, False
        self._turning = asyncio.Lock()
        self._each_s: float | None = None
        """Seconds between the starts of two jobs, as of `_each_at`; None if unknown."""
        self._each_at = -math.inf
        self.ending = BackgroundTaskGroup()
        """Cancels and deletions in the background."""

    async def submit(self, record: JobRecord, *, followed: bool = False) -> None:
        """Persist a job that waits. ``followed``: whether this service is notified of its events,
        as it is of those of a job whose client waits here.

        Raises:
            DuplicateRequestKey: its owner has a job with its key.
            errors.QueueFull: as many wait as may.
            errors.JournalUnreachable: the database does not answer; the job is ended if it is
                there after all, unless a repeated request finds it by its key.
        """
        values = (
            record.id,
            record.owner,
            record.key.name if record.key is not None else None,
            self._rows.encrypt_record(record),
            record.kept,
            record.priority is Priority.INTERACTIVE,
            record.options.precision.value,
            *needs_of_job(record),
            charged_audio_s(record.audio_info.work_s, channels=record.audio_info.channels),
            _work_s(record),
            *job_rows.recording_columns(record.audio),
            None if record.kept else self._token(record.id),
            self._service_id if followed or not record.kept else None,
            self._limit,
        )
        retried = self._database.retried
        try:
            ((outcome, job_id),) = await self._database.call("submit_1", *values)
            if outcome == "queue_full" and self._database.retried > retried:
                raise errors.JournalUnreachable()  # the server may yet execute the first attempt
        except BaseException:
            if record.key is None:
                self._soon(self._delete_later, record.id)
            raise
        if outcome == "known":
            raise DuplicateRequestKey(job_id)
        if outcome == "queue_full":
            raise errors.QueueFull("The shared queue of all services is full.")
        if outcome == "deleted":
            raise errors.JournalUnreachable()  # an earlier attempt had no answer, and was undone

    async def import_ended(self, record: JobRecord, changes: Sequence[JobChange]) -> JobRecord:
        """Persist a job that has ended already, with all its events, as `JobStore.import_ended`. If
        the database does not answer, that is raised, but the job stays in memory, as its words may
        be nowhere else, and is persisted once the database is back."""
        events = [JobEvent(1 + at, self._now(), change) for at, change in enumerate(changes)]
        persist = self._importer(record, events)
        try:
            await persist_import(persist, self.save_pauses_s)
        except errors.JournalUnreachable:
            other = replace(record, id=uuid.uuid4().hex)
            self._soon(self._import_later, record.id, persist, self._importer(other, events))
            raise
        return job_rows.replay_events(record, events)

    def _importer(
        self, record: JobRecord, events: Sequence[JobEvent]
    ) -> Callable[[], Awaitable[None]]:
        """Return what persists a job that has ended. It is encrypted once: so the database knows
        its own row again if the answer to a call was lost."""
        ended = job_rows.replay_events(record, events)
        values = (
            record.id,
            record.owner,
            self._rows.encrypt_record(record),
            record.audio_info.total_s,
            *job_rows.recording_columns(record.audio),
            [one.seq for one in events],
            [one.at for one in events],
            [job_rows.event_kind(one.change) for one in events],
            [self._rows.encrypt_event(record.id, one.worn) for one in events],
            ended.state.value,
            self._rows.encrypt_summary(ended),
        )

        async def persist() -> None:
            ((there,),) = await self._database.call("import_1", *values)
            if not there:
                raise JobIdTaken(record.id)
            self._retention.settle(record.owner)

        return persist

    async def _import_later(
        self,
        job_id: str,
        persist: Callable[[], Awaitable[None]],
        persist_by_other_id: Callable[[], Awaitable[None]],
    ) -> None:
        """Persist a job that has ended, by another id if its own is another job's: nobody else has
        its words. One that was deleted meanwhile is not persisted."""
        try:
            await persist()
        except JobIdTaken:
            await self.get(job_id)
            log.warning("job %s has the id of another: it gets another one", job_id)
            await persist_by_other_id()

    async def get(self, job_id: str) -> JobRecord:
        """Return a job as it is now.

        Raises:
            errors.JobNotFound: there is none.
        """
        found = await self._found(_BY_ID, job_id)
        if found is None:
            raise errors.JobNotFound()
        return found

    async def by_key(self, owner: str, name: str) -> JobRecord | None:
        """Return an owner's job with this idempotency key."""
        return await self._found(_BY_KEY, owner, name)

    async def list(self, owner: str, job_filter: JobFilter | None = None) -> Sequence[JobRecord]:
        """Return an owner's jobs, oldest first; jobs that are done have no words. A walk by
        `JobFilter.after` misses a job whose submission was committed after the listing of a later
        one.

        Raises:
            errors.JobNotFound: the owner has no such job with the id `JobFilter.after`.
        """
        job_filter = job_filter or JobFilter()
        place = await self._place(owner, job_filter.after, job_filter.private)
        states = [*job_filter.states]
        rows = await self._database.fetch(
            _LIST, (owner, place, job_filter.private, states, states, job_filter.limit)
        )
        whole = await self._folded([row[:3] for row in rows if row[3] is None])
        brief = [self._rows.summarized(row[:3], row[3]) for row in rows if row[3] is not None]
        known = {one.id: one for one in (*whole, *brief) if one is not None}
        return [known[row[0]] for row in rows if row[0] in known]

    async def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """Follow a job after the event ``after``.

        Raises:
            errors.JobNotFound: there is none.
        """
        return await self._follower.subscribe(job_id, after)

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job, waiting or running anywhere; a job that has ended does not change.

        Raises:
            errors.JobNotFound: there is none.
        """
        ((lasted_s,),) = await self._database.call("cancel_1", job_id)
        self._count_cancelled(lasted_s)
        ended = await self.get(job_id)
        self._retention.settle(ended.owner)
        return ended

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job in the background; retried while the database does not answer."""
        self._soon(self.cancel, job_id)

    async def delete(self, job_id: str, seq: int | None = None) -> None:
        """Delete a job with all its data, as `JobStore.delete`."""
        await self._delete(job_id, seq)
        await self._retention.delete_recordings_now()

    def delete_soon(self, job_id: str) -> None:
        """Delete a job in the background; retried while the database does not answer."""
        self._soon(self._delete_later, job_id)

    def leave_soon(self, name: str, request: str) -> None:
        """Leave the job that is awaited here by this ``name`` (the first request of a job: by its
        id) to the same ``request`` (a digest), in the background; retried while the database does
        not answer."""
        values = self._token(name), self._rows.request_code(request), RETURN_S
        self._soon(partial(self._database.call, "leave_1"), *values)

    async def take(self, owner: str, request: str, name: str) -> JobRecord | None:
        """Return the job that the same ``request`` left, awaited by this ``name`` from now on; None
        if there is none.

        Raises:
            errors.JournalUnreachable: the database does not answer; the job stays left.
        """
        values = owner, self._rows.request_code(request), self._token(name)
        try:
            for (job_id,) in await self._database.call("take_1", *values):
                return await self.get(job_id)
        except errors.JobNotFound:  # it was deleted meanwhile
            pass
        except BaseException:
            self.leave_soon(name, request)
            raise
        return None

    async def has_left(self, owner: str) -> bool:
        """Return whether a client of an owner has left a job to its next request."""
        return bool(await self._database.fetch(_LEFT, (owner,)))

    async def delete_owner(self, owner: str) -> int:
        """Delete all jobs of an owner, and return how many."""
        rows = await self._database.fetch(
            "SELECT id FROM vibevoice.jobs WHERE owner = %s", (owner,)
        )
        for (job_id,) in rows:
            await self._delete(job_id)
        await self._retention.delete_recordings_now()
        return len(rows)

    async def edit(self, record: JobRecord, change: EditedChange) -> JobRecord:
        """Edit the transcript of a job, if the job is still as in ``record``.

        Raises:
            errors.EditsFull: the edited transcripts of its owner fill the owner's space.
            errors.JobNotFound: there is no such job.
            errors.TranscriptChanged: the job has changed.
        """
        event = JobEvent(record.seq + 1, self._now(), change)
        after = apply_event(record, event)
        if after is record:
            return await self.get(record.id)
        space_bytes = self._retention.limits.result_bytes
        ((edited,),) = await self._database.call(
            "edit_1",
            record.id,
            record.seq,
            self._rows.encrypt_event(record.id, event.worn),
            event.at,
            self._rows.encrypt_summary(after),
            space_bytes,
        )
        if edited is None:
            raise edits_full_error(space_bytes)
        if not edited:
            await self.get(record.id)
            raise errors.TranscriptChanged()
        self._retention.settle(record.owner)
        return after

    async def kept_diarization(self, record: JobRecord) -> str | None:
        """Return what the engine kept of a job's diarization; None if it kept nothing. It is the
        last of the job's resume points."""
        rows = await self._database.fetch_events(_LAST_RESUME_POINT, (record.id,))
        if not rows:
            return None
        event = await asyncio.to_thread(self._rows.event, *rows[0])  # of up to 11 MB
        return event.kept_diarization

    async def positions(self, records: Sequence[JobRecord]) -> Mapping[str, QueuePosition]:
        """Return the queue positions of those that wait, at most a second old. In a long queue a
        job has none in its first second."""
        ids = [one.id for one in records if one.state is JobState.QUEUED]
        async with self._turning:
            age_s = time.monotonic() - self._turns_at
            if age_s > self.positions_interval_s or (
                len(self._waits_s) <= self.long_queue
                and (self._turns_moved or not all(one in self._waiting_ids for one in ids))
            ):
                self._turns_at, self._turns_moved = time.monotonic(), False
                await self._work_out_turns()
        found = ((one, self._turn(one)) for one in ids)
        return {one: turn for one, turn in found if turn is not None}

    async def renew(self, record: JobRecord) -> None:
        """Restart the retention of a job that has ended."""
        await self._retention.renew(record.id)

    async def expiries(self, records: Sequence[JobRecord]) -> Mapping[str, Expiry]:
        """Return when ended jobs of one owner are deleted, by id."""
        return await self._retention.expiries(records[0].owner, [one.id for one in records])

    async def load(self, owner: str) -> OwnerLoad:
        """Return the present load of an owner."""
        ((jobs, waiting, waiting_s, least_s),) = await self._database.fetch(
            """SELECT count(id), count(*) FILTER (WHERE state = 'queued'),
                coalesce(sum(greatest(audio_s, least_s))
                    FILTER (WHERE state = 'queued'), 0), max(least_s)
                FROM (SELECT %s * count(*) AS least_s FROM vibevoice.owners
                    WHERE owner = %s AND outlasted > clock_timestamp() - interval '1 hour') known
                LEFT JOIN vibevoice.jobs ON owner = %s AND ended IS NULL""",
            (UNKNOWN_AUDIO_CHARGE_S, owner, owner),
        )
        return OwnerLoad(jobs, waiting, waiting_s, least_s)

    def note_fetched(self, record: JobRecord) -> None:
        """Do nothing: a result outlives this process."""

    def begun_in_s(self, count: int) -> float | None:
        """Return the seconds until ``count`` of the waiting jobs have started, all taken to be
        alike; None if unknown. The value is that of the last call: each call refreshes it in the
        background, at most once in `positions_interval_s`."""
        if time.monotonic() - self._each_at >= self.positions_interval_s:
            self._each_at = time.monotonic()
            self.ending.spawn("how fast jobs begin", self._measure_starts())
        return None if self._each_s is None else count * self._each_s

    async def close(self) -> None:
        """Wait a moment for the background tasks."""
        await self.ending.close(self.close_s)

    async def _delete(self, job_id: str, seq: int | None = None) -> None:
        ((deleted, lasted_s),) = await self._database.call("delete_1", job_id, seq)
        if not deleted:
            raise errors.TranscriptChanged()
        self._count_cancelled(lasted_s)

    async def _delete_later(self, job_id: str) -> None:
        await asyncio.sleep(DELETE_PAUSE_S)
        await self._delete(job_id)
        self._retention.delete_recordings_soon()

    def _count_cancelled(self, lasted_s: float | None) -> None:
        """Count a job that this call cancelled, after ``lasted_s``; None: it had ended before."""
        self._turns_moved = True
        if lasted_s is not None:
            self._metrics.cancelled(lasted_s)

    async def _found(self, sql: str, *values: str) -> JobRecord | None:
        if any("\0" in value for value in values):  # no text in the database contains it
            return None
        rows = await self._database.fetch(sql, values)
        found = await self._folded([row[:3] for row in rows])
        # otherwise it was deleted between two statements
        there = found and found[0].seq >= rows[0][3]
        return found[0] if there else None

    async def _folded(self, jobs: Sequence[Row]) -> Sequence[JobRecord]:
        """Return jobs after their events, without those that cannot be read here. ``jobs``:
        values of `JobRows.record`."""
        if not jobs:
            return []
        rows = await self._database.fetch_events(
            _EVENTS, ([job[0] for job in jobs], _SUPERSEDED_KINDS)
        )
        by_job = {job_id: [*own] for job_id, own in groupby(rows, itemgetter(0))}

        def folded() -> Sequence[JobRecord]:
            found = (self._rows.folded(job, by_job.get(job[0], ())) for job in jobs)
            return [one for one in found if one is not None]

        long = sum(len(row[4] or b"") for row in rows) > job_rows.DECRYPT_IN_THREAD_BYTES
        return await asyncio.to_thread(folded) if long else folded()

    async def _place(self, owner: str, after: str | None, private: bool) -> int:
        if after is None:
            return 0
        if "\0" in after:
            raise errors.JobNotFound()
        rows = await self._database.fetch(
            "SELECT place FROM vibevoice.jobs WHERE owner = %s AND id = %s AND (kept OR %s)",
            (owner, after, private),
        )
        if not rows:
            raise errors.JobNotFound()
        return int(rows[0][0])

    async def _measure_starts(self) -> None:
        with suppress(errors.JournalUnreachable):
            ((work_s,),) = await self._database.fetch(_WORK_BETWEEN_STARTS)
            self._each_s = None if work_s is None else work_s * self._pace()

    def _pace(self) -> float:
        """Return the seconds of work for one of audio."""
        return self._pace_s(PREDICTION_SAMPLE_S) / PREDICTION_SAMPLE_S

    def _turn(self, job_id: str) -> QueuePosition | None:
        at = self._waiting_ids.find(job_id)
        position = at // (len(job_id) + 1)  # all ids have the same length
        return None if at < 0 else QueuePosition(position, self._waits_s[position])

    async def _work_out_turns(self) -> None:
        """Compute the positions of all jobs that wait."""
        rows = await self._database.call("line_1")
        self._waiting_ids, self._waits_s = " ".join(row[0] for row in rows), array("d")
        ahead_s = 0.0
        for _, works_s, running, left_s in rows:
            rate = self._pace() / max(1, running)
            for work_s in works_s:
                self._waits_s.append((left_s + ahead_s) * rate)
                ahead_s += work_s

    def _token(self, name: str) -> str:
        return f"{self._service_id}/{name}"

    def _soon(self, call: Callable[..., Awaitable[object]], about: str, *more: object) -> None:
        async def end() -> None:
            with suppress(errors.JobNotFound):  # it was deleted meanwhile: no fault
                await call(about, *more)

        self.ending.spawn(f"end {about}", retry_while_unavailable(end))


def _work_s(record: JobRecord) -> float:
    length_s = record.audio_info.work_s
    return (
        length_s
        if length_s and 0 < length_s < math.inf
        else UNKNOWN_WORK_S * record.audio_info.channels
    )
