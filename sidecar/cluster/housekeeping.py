"""Retention of shared jobs: results and recordings that are kept no longer go."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
UNCLAIMED_S = 3600.0
"""Age of a recording without a job before it is deleted: a service may be about to submit it."""


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

    async def delete_recordings(self, names: Iterable[str | None]) -> None:
        """Delete recordings whose jobs are gone. One that cannot be deleted now goes with the next
        start of a service."""
        for name in filter(None, names):
            try:
                await self._disk.run(self._storage.delete, name)
            except (OSError, errors.SidecarError) as error:
                log.warning("a recording goes with the next start (%s)", error)

    async def run(self) -> None:
        """Delete what a crash left behind, then every few seconds what is over."""
        await patiently(self._adopt)
        await patiently(self._sweep_storage)
        await repeatedly(partial(self._purge, None), SWEEP_S)

    async def _purge(self, owner: str | None) -> None:
        limits = self._limits
        values = (owner, limits.retention_s, limits.results, limits.result_bytes)
        gone = await self._fetch("SELECT recording FROM vibevoice.purge_1(%s, %s, %s, %s)", values)
        gone += await self._fetch(
            "SELECT recording FROM vibevoice.forget_recordings_1(%s, %s)",
            (owner, limits.recording_bytes),
        )
        await self.delete_recordings(name for (name,) in gone)

    async def _adopt(self) -> None:
        """Note the recordings of jobs that a release before 0.2 took in, which kept their names in
        encrypted records alone."""
        for job_id, submitted in await self._fetch(
            "SELECT id, submitted FROM vibevoice.jobs WHERE recording = ''"
        ):
            try:
                audio = self._rows.record(StoredJob(job_id, submitted)).audio
            except (SealBroken, Unreadable):
                continue  # its recording stays: nobody knows which it is
            name, size = (audio.name, audio.size) if isinstance(audio, Kept) else (None, None)
            await self._fetch(
                """UPDATE vibevoice.jobs SET recording = %s, recording_bytes = %s
                    WHERE id = %s AND recording = '' RETURNING id""",
                (name, size, job_id),
            )

    async def _sweep_storage(self) -> None:
        """Delete recordings that no job needs: they were never submitted, or their service died
        before it deleted them."""
        ages = await self._disk.run(self._storage.ages)
        old = [name for name, age_s in ages.items() if age_s > UNCLAIMED_S]
        needed = await self._fetch(
            "SELECT recording FROM vibevoice.jobs WHERE recording = ANY(%s)", (old,)
        )
        unknown = await self._fetch("SELECT FROM vibevoice.jobs WHERE recording = '' LIMIT 1")
        if not unknown:
            kept = {name for (name,) in needed}
            await self.delete_recordings(name for name in old if name not in kept)

    async def _fetch(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return await self._database.fetch(sql, values)
