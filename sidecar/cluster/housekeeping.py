"""Retention of shared jobs: results and recordings that are kept no longer go."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.audio.ref import Kept
from sidecar.cluster.retrying import patiently, repeatedly
from sidecar.cluster.rows import Rows, StoredJob
from sidecar.database.database import Database
from sidecar.jobs.storage.protocol import Storage
from sidecar.jobs.written import Unreadable
from sidecar.threads import Threads
from sidecar.vault.sealing import SealBroken

log = logging.getLogger(__name__)

SWEEP_S = 10.0
"""Time between two looks for results whose time is over; they may stay so much longer."""
SOON_S = 2.0
"""Time that a request waits for the storage to delete a recording."""
STORAGE_SWEEP_S = 6 * 3600.0
"""Time between two looks for recordings without a job; listing a large bucket takes a while."""
BATCH = 200
"""Jobs or recordings of one call: some tenths of a second at most."""
UNCLAIMED_S = 3600.0
"""Age of a recording without a job before it is deleted: a service may be about to submit it."""

_DOOMED = "SELECT name FROM vibevoice.doomed_recordings ORDER BY random() LIMIT %s"
_DELETED = "DELETE FROM vibevoice.doomed_recordings WHERE name = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept of each owner's ended jobs: for how many seconds, how many, bytes of results
    and bytes of recordings."""

    retention_s: float
    results: int
    result_bytes: int
    recording_bytes: int


class Housekeeping:
    """Deletes from the database and from the storage of recordings."""

    def __init__(
        self, database: Database, storage: Storage, disk: Threads, limits: Limits, rows: Rows
    ) -> None:
        """``disk``: threads that may wait for the storage."""
        self._database, self._storage, self._disk = database, storage, disk
        self._limits, self._rows = limits, rows

    async def settle(self, owner: str) -> None:
        """Delete what is too much of an owner's after one of its jobs ended or was edited. Where
        the database is away the next sweep does it."""
        with suppress(errors.JournalUnreachable):
            await self._purge(owner)
            await self.soon_delete_recordings()

    async def soon_delete_recordings(self) -> None:
        """`delete_recordings`, as long as the storage answers at once; else the next sweep does.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_S):
                await self.delete_recordings()

    async def delete_recordings(self) -> None:
        """Delete recordings that the database has given up. One that cannot be deleted now is tried
        again with the next sweep.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        doomed = await self._fetch(
            "SELECT name FROM vibevoice.doomed_recordings ORDER BY random() LIMIT %s", (BATCH,)
        )
        gone = [name for (name,) in doomed if await self._deleted(name)]
        if gone:
            await self._fetch(
                "DELETE FROM vibevoice.doomed_recordings WHERE name = ANY(%s)", (gone,)
            )

    async def run(self) -> None:
        """Delete what is over, and from time to time what crashes left behind, for ever."""
        await asyncio.gather(repeatedly(self._sweep, SWEEP_S), self._look_after_storage())

    async def _look_after_storage(self) -> None:
        await patiently(self._adopt)
        await repeatedly(self._sweep_storage, STORAGE_SWEEP_S)

    async def _sweep(self) -> None:
        for (owner,) in await self._database.call("owners_with_results_1"):
            with suppress(errors.JournalUnreachable):  # that of one owner costs no other
                await self._purge(owner)
        await self._database.call("tidy_1")
        await self._database.call("forget_able_1")
        await self.delete_recordings()

    async def _purge(self, owner: str) -> None:
        limits = self._limits
        results = (limits.retention_s, limits.results, limits.result_bytes)
        while await self._purged("purge_1", owner, *results) >= BATCH:
            pass
        while await self._purged("forget_recordings_1", owner, limits.recording_bytes) >= BATCH:
            pass

    async def _purged(self, function: str, owner: str, *limits: float) -> int:
        ((count,),) = await self._database.call(function, owner, *limits, BATCH)
        return int(count)

    async def _deleted(self, name: str) -> bool:
        try:
            await self._disk.run(self._storage.delete_now, name)
        except (OSError, errors.SidecarError) as error:
            log.warning("a recording cannot be deleted now (%s)", error)
            return False
        return True

    async def _adopt(self) -> None:
        """Note the recordings of jobs that a release before 0.2 took in, which kept their names in
        encrypted records alone."""
        while found := await self._fetch(
            "SELECT id, submitted FROM vibevoice.jobs WHERE recording = '' LIMIT %s", (BATCH,)
        ):
            for job_id, submitted in found:
                name, size = self._recording_of(job_id, submitted)
                await self._fetch(
                    """UPDATE vibevoice.jobs SET recording = %s, recording_bytes = %s
                        WHERE id = %s AND recording = ''""",
                    (name, size, job_id),
                )

    def _recording_of(self, job_id: str, submitted: bytes) -> tuple[str | None, int | None]:
        try:
            audio = self._rows.record(StoredJob(job_id, submitted)).audio
        except (SealBroken, Unreadable):
            return None, None
        return (audio.name, audio.size) if isinstance(audio, Kept) else (None, None)

    async def _sweep_storage(self) -> None:
        """Delete recordings that no job needs: they were never submitted, or their service died
        before it deleted them."""
        ages = await self._disk.run(self._storage.ages)
        old = [name for name, age_s in ages.items() if age_s > UNCLAIMED_S]
        needed = await self._fetch(
            "SELECT recording FROM vibevoice.jobs WHERE recording = ANY(%s)", (old,)
        )
        for name in {*old} - {name for (name,) in needed}:
            await self._deleted(name)

    async def _fetch(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return await self._database.fetch(sql, values)
