"""Retention of shared jobs and recordings."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sidecar import clock, errors
from sidecar.concurrency import ThreadLimiter, cancel_after
from sidecar.jobs.job_store import Expiry
from sidecar.jobs.retention import (
    CLOCK_SET_WITHIN_S,
    MAX_ABSENCE_S,
    expiry,
    report_displaced,
)
from sidecar.observability.metrics import JobMetrics
from sidecar.plugins.shared_jobs import postgres_database
from sidecar.storage.recording_storage import PARTIAL_SUFFIX, RecordingStorage, names_of

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 10.0
"""Interval of the search for expired results, by which they may outlive their retention."""
DELETE_WAIT_S = 2.0
"""Maximum wait of a request until the storage has deleted a recording."""
STORAGE_SWEEP_INTERVAL_S = 6 * 3600.0
"""Interval of the search for recordings without a job; listing a large bucket takes a while."""

RENEWAL_INTERVAL_S, RENEWALS = 30.0, 20
"""The renewal of a job is written at most once in this many seconds, or (shorter) in the 20th part
of the retention: a client that polls costs no write each time."""

_NOW = "least(clock_timestamp(), to_timestamp(%s))"
"""The time, of which one of two clocks may be ahead, the database's and the service's."""
_EXPIRIES = f"""
    SELECT job, extract(epoch FROM {_NOW} - touched)::float8, held
    FROM vibevoice.results_1(%s) WHERE job = ANY(%s)"""  # noqa: S608
_PURGE = f"""
    SELECT * FROM vibevoice.purge_1(%s,
        %s + extract(epoch FROM clock_timestamp() - {_NOW})::float8, %s, %s, %s)"""  # noqa: S608
_REJUVENATE = f"""
    UPDATE vibevoice.jobs SET touched = {_NOW} WHERE id IN (
        SELECT id FROM vibevoice.jobs
        WHERE owner = %s AND ended IS NOT NULL
            AND touched < {_NOW} - make_interval(secs => %s::float8)
        ORDER BY id FOR UPDATE SKIP LOCKED)"""  # noqa: S608
_DISCARD = """
    INSERT INTO vibevoice.doomed_recordings SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"""
_DOOMED = "SELECT name FROM vibevoice.doomed_recordings ORDER BY random() LIMIT %s"
_DELETED = """
    DELETE FROM vibevoice.doomed_recordings WHERE name IN (
        SELECT name FROM vibevoice.doomed_recordings WHERE name = ANY(%s)
        ORDER BY name FOR UPDATE SKIP LOCKED)"""


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """Limits of each owner's ended jobs: seconds (infinite: until deleted), bytes of results and
    bytes of recordings."""

    retention_s: float
    result_bytes: int
    recording_bytes: int


class SharedRetention:
    """Retention in the database and in the storage of recordings."""

    settle_delay_s = 0.5
    """Seconds in which ended jobs of an owner are collected for one purge: fewer statements."""
    turn_renewal_s = 5.0
    """Interval in which a sweep renews its turn, so that no other service joins a long one."""
    max_recordings = 200
    """Recordings that one call deletes, which takes at most some tenths of a second."""
    max_jobs = 20
    """Jobs that one call deletes: the events of 20 recordings of eight hours take a quarter of a
    second (of 200, more than the time limit of a statement)."""
    orphan_age_s = 3600.0
    """Age at which a recording without a job is deleted; a service may be about to submit it."""
    clock_set_within_s = CLOCK_SET_WITHIN_S
    """As of `Retention`."""

    def __init__(
        self,
        database: postgres_database.PostgresDatabase,
        storage: RecordingStorage,
        store: str,
        threads: ThreadLimiter,
        limits: RetentionLimits,
        metrics: JobMetrics,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``store``: code of the store, with which the names of its recordings begin;
        ``threads``: threads that may wait for the storage."""
        self._database, self._storage, self._threads = database, storage, threads
        self._store = store
        self.limits, self._metrics, self._now = limits, metrics, now
        self._unsettled: set[str] = set()
        """Owners of jobs that ended since their last purge."""
        self._unsettle, self._doomed = asyncio.Event(), asyncio.Event()
        self._discarded = set[str]()
        """Names to be marked for deletion."""

    def settle(self, owner: str) -> None:
        """Schedule a purge of an owner, one of whose jobs ended or was edited. If the database does
        not answer, the next sweep does it."""
        self._unsettled.add(owner)
        self._unsettle.set()

    async def renew(self, job_id: str) -> None:
        """Restart the retention of a job that has ended.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        every_s = min(RENEWAL_INTERVAL_S, self.limits.retention_s / RENEWALS)
        await self._database.call("renew_1", job_id, every_s)

    async def expiries(self, owner: str, job_ids: Sequence[str]) -> Mapping[str, Expiry]:
        """Return when ended jobs of an owner are deleted, by id.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        rows = await self._database.fetch(_EXPIRIES, (self._now(), owner, [*job_ids]))
        most_s, space_bytes = self.limits.retention_s, self.limits.result_bytes
        return {job: expiry(most_s - age_s, held, space_bytes) for job, age_s, held in rows}

    def discard(self, name: str) -> None:
        """Schedule the deletion of a recording that no job needs, also an incomplete one; in any
        thread."""
        self._discarded.update((name, f"{name}{PARTIAL_SUFFIX}"))

    def delete_recordings_soon(self) -> None:
        """Schedule the deletion of recordings that the database has marked for it."""
        self._doomed.set()

    async def delete_recordings_now(self) -> None:
        """`delete_recordings`, if the storage answers at once; otherwise the next sweep does it.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        await cancel_after(DELETE_WAIT_S, self.delete_recordings())

    async def delete_recordings(self) -> None:
        """Delete recordings that the database has marked for it. A later call retries those that
        cannot be deleted now; if the storage does not answer, the rest waits for it, too.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        if discarded := [*self._discarded]:
            await self._database.fetch(_DISCARD, (discarded,))
            self._discarded.difference_update(discarded)
        doomed = await self._database.fetch(_DOOMED, (self.max_recordings,))
        gone = list[str]()
        try:
            for (name,) in doomed:
                if await self._deleted(name):
                    gone.append(name)
        except errors.StorageUnreachable as error:
            log.warning("recordings of deleted jobs are deleted later: %s", error)
        if gone:
            await self._database.fetch(_DELETED, (gone,))

    async def run(self) -> None:
        """Delete expired data, and at intervals what crashes left behind, for ever."""
        await asyncio.gather(
            postgres_database.run_periodically(self.sweep_in_turn, SWEEP_INTERVAL_S),
            postgres_database.run_periodically(self._settle_next, 0.0),
            postgres_database.run_periodically(self._delete_next, 0.0),
            postgres_database.run_periodically(self.sweep_storage, STORAGE_SWEEP_INTERVAL_S),
        )

    async def settled(self) -> None:
        """Purge the scheduled owners now.

        Raises:
            errors.JournalUnreachable: the database does not answer; the next sweep does it.
        """
        self._unsettle.clear()
        owners, self._unsettled = self._unsettled, set()
        for owner in owners:
            await self._purge(owner)
        self._doomed.set()

    async def _settle_next(self) -> None:
        await self._unsettle.wait()
        await asyncio.sleep(self.settle_delay_s)  # clients get their answers first
        await self.settled()

    async def _delete_next(self) -> None:
        """Apart from purges, which do not wait for a storage that does not answer."""
        await cancel_after(SWEEP_INTERVAL_S, self._doomed.wait())
        self._doomed.clear()
        await self.delete_recordings()

    async def sweep_in_turn(self) -> None:
        """`sweep`, if it is the turn of this service."""
        if await self._take_turn(SWEEP_INTERVAL_S):
            await self.sweep()

    async def _take_turn(self, every_s: float) -> bool:
        return bool(await self._database.call("turn_1", "retention", every_s))

    async def sweep(self) -> None:
        """Delete what has expired of every owner, and what crashes left in the database."""
        owners = await self._database.fetch("SELECT owner FROM vibevoice.owners")
        parts: list[Callable[[], Awaitable[object]]] = [
            self.delete_overdue,
            *(partial(self._purge, owner) for (owner,) in owners),
            partial(self._database.call, "tidy_1"),
        ]
        turn_at = time.monotonic()
        for part in parts:
            with suppress(errors.JournalUnreachable):  # a failure must not stop the others
                await part()
                if time.monotonic() - turn_at > self.turn_renewal_s:
                    turn_at = time.monotonic()
                    await self._take_turn(0.0)

    async def delete_overdue(self) -> None:
        """Delete jobs whose clients timed out and did not return in time.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        while rows := await self._database.call("delete_overdue_1", self.max_jobs):
            for (lasted_s,) in rows:
                if lasted_s is not None:
                    self._metrics.cancelled(lasted_s)
            self._doomed.set()

    async def _purge(self, owner: str) -> None:
        limits = self.limits
        unknown = limits.retention_s == math.inf or time.monotonic() < self.clock_set_within_s
        age_s = None if unknown else limits.retention_s
        most = limits.result_bytes, limits.recording_bytes, self.max_jobs
        if age_s is not None:
            # so old is none: the clock was set since it ended, and it is as young as that
            now = self._now()
            too_old_s = age_s + MAX_ABSENCE_S
            await self._database.fetch(_REJUVENATE, (now, owner, now, too_old_s))
        full = True  # there may be more than one call deletes
        while full:
            rows = await self._database.fetch(_PURGE, (owner, age_s, self._now(), *most))
            for deleted, size in rows:
                if size is not None:
                    report_displaced(self._metrics, deleted, size, limits.result_bytes)
            full = len(rows) >= self.max_jobs

    async def _deleted(self, name: str) -> bool:
        try:
            await self._threads.run(self._storage.delete, name)
        except errors.StorageUnreachable:
            raise
        except (OSError, errors.SidecarError) as error:
            log.warning(
                "a recording of a deleted job cannot be deleted now and is tried again: %s", error
            )
            return False
        return True

    async def sweep_storage(self) -> None:
        """Delete recordings of this store that no job needs: they were never submitted, or their
        service died before it deleted them. A folder of an earlier release, or a bucket, may have
        those of another."""
        try:
            ages = await self._threads.run(self._storage.ages)
        except (OSError, errors.SidecarError) as error:
            log.warning("recordings without a job are not searched now: %s", error)
            return
        own = names_of(self._store, ages)
        old = [name for name in own if ages[name] > self.orphan_age_s]
        needed = await self._database.fetch(
            "SELECT recording FROM vibevoice.jobs WHERE recording = ANY(%s)", (old,)
        )
        deleted = 0
        with suppress(errors.StorageUnreachable):  # the next search finds the rest
            for name in {*old} - {name for (name,) in needed}:
                deleted += await self._deleted(name)
        if deleted:
            log.info("%d recordings without a job were deleted", deleted)
