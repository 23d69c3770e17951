"""Jobs that outlive the process, in a SQLite file: what is in memory is written down behind it.

What was told may be lost with the process as long as nobody waited for `written`: a part of what a
running engine said, which it says again. So that nobody takes the new for the old, numbers of
events go on far behind those that may have been told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

from sidecar import clock, errors
from sidecar.jobs.events import JobEvent, Reported
from sidecar.jobs.feed import BUFFER
from sidecar.jobs.log import Entry, MemoryLog
from sidecar.jobs.record import JobRecord, advance
from sidecar.jobs.shelf import Shelf
from sidecar.jobs.written import Unreadable, change_of, change_text, record_of, record_text
from sidecar.storage.folder import Folder
from sidecar.storage.job_journal import UPLOADS, Broken, Journal, open_journal
from sidecar.storage.sealing import SealBroken
from sidecar.storage.writer import Part, Statement, Writer
from sidecar.transcripts.transcript import Checkpoint, SegmentReady

TOLD = 1 << 20
"""More events than a job tells of between two that are written: progress, a few a second."""


class SqliteLog(MemoryLog):
    """Keeps jobs that are to outlive the process in a folder, and the others in memory."""

    def __init__(
        self,
        folder: Path,
        secret: str,
        now: clock.Clock = clock.wall,
        buffer: int = BUFFER,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        """Open it, with all that was kept; this waits for the disk. ``shelf``: who has the
        recordings of jobs that have ended.

        Raises:
            errors.SettingsInvalid: the folder, the file or the key cannot be used.
        """
        super().__init__(now, buffer)
        self._shelf = shelf or Shelf(Folder(folder / UPLOADS))
        self._journal = open_journal(folder, secret, self._read)
        self.seal = self._journal.seal
        self._writer = Writer(self._journal.database)
        self._closed = False

    def add(self, record: JobRecord) -> None:
        """Keep a job that was submitted."""
        super().add(record)
        if record.durable:
            name = record.key.name if record.key is not None else None
            values = record.id, record.owner, self._sealed(record), name
            sql = "INSERT INTO jobs (id, owner, submitted, idempotency_key) VALUES (?, ?, ?, ?)"
            self._writer.put(Part(record.id, [(sql, values)]))

    def forget(self, job_id: str) -> None:
        """Keep a job no longer: nothing of it is left, on the disk neither."""
        entry = self._entries.get(job_id)
        super().forget(job_id)
        if entry is not None and entry.record.durable:
            deleted = ("DELETE FROM jobs WHERE id = ?", (job_id,))
            after = partial(self._shelf.drop, entry.record)
            self._writer.put(Part(job_id, [deleted], after=after, gone=True))

    async def written(self, job_id: str | None = None) -> None:
        """Wait until it is on the disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: errors.SidecarError | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def told(error: errors.SidecarError | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, error)

        self._writer.when_written(job_id, told)
        await done

    def close(self) -> None:
        """Write what is left, and let another have the folder."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self._journal.close()
        super().close()

    def _keep(self, entry: Entry, record: JobRecord, event: JobEvent) -> None:
        super()._keep(entry, record, event)
        if not record.durable or event.fleeting:
            return
        values = (
            record.id,
            event.seq,
            event.at,
            self._sealed(record, event.worn if record.over else event),
        )
        statements: list[Statement] = [("INSERT INTO events VALUES (?, ?, ?, ?)", values)]
        ended = record.over and event.ends
        if ended:
            statements += [
                (
                    "UPDATE events SET change = ? WHERE job = ? AND seq = ?",
                    (self._sealed(record, one), record.id, one.seq),
                )
                for one in entry.log
                if isinstance(one.change, Reported) and isinstance(one.change.event, Checkpoint)
            ]
        change = event.change
        later = isinstance(change, Reported) and isinstance(change.event, SegmentReady)
        after = partial(self._shelf.put, record) if ended else None
        self._writer.put(Part(record.id, statements, soon=not later, after=after))

    def _sealed(self, record: JobRecord, event: JobEvent | None = None) -> bytes:
        if event is None:
            return self.seal.seal(record_text(record), record.id)
        return self.seal.seal(change_text(event.change), f"{record.id}/{event.seq}")

    def _read(self, journal: Journal) -> None:
        """All that was kept, as it was."""
        self._entries.clear()
        self._keys.clear()
        read = journal.database.execute

        def opened(sealed: object, about: str) -> bytes:
            if not isinstance(sealed, bytes):
                raise SealBroken
            return journal.seal.opened(sealed, about)

        try:
            for job_id, text in read("SELECT id, submitted FROM jobs ORDER BY place").fetchall():
                self._enter(Entry(record_of(opened(text, f"{job_id}"))))
            for job_id, seq, at, text in read(
                "SELECT job, seq, at, change FROM events ORDER BY job, seq"
            ):
                entry = self._entries[job_id]
                event = JobEvent(seq, at, change_of(opened(text, f"{job_id}/{seq}")))
                entry.take(advance(entry.record, event), event)
        except (SealBroken, Unreadable, KeyError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from None
        for entry in self._entries.values():
            entry.from_seq = entry.record.seq + TOLD
