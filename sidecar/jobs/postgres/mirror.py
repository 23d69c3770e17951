"""What the database has of jobs, in memory, where it is read and told of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from sidecar.jobs.events import Cancelled, JobEvent
from sidecar.jobs.log import Entry, MemoryLog
from sidecar.jobs.postgres.rows import Found
from sidecar.jobs.record import JobRecord, advance


class Mirror(MemoryLog):
    """Takes in what the database has, and tells of what was not told."""

    def _take(self, found: Found, *, here: bool = False, tell: bool = True) -> None:
        """Have what was ``found``; ``here``: it is what this service did.

        What was read of a job that was not known may come when it is, and is at work here: then
        only what is new counts.
        """
        entry = self._entries.get(found.job_id)
        if found.gone:
            if entry is not None:
                self._forgotten(entry)
            return
        told = entry.record.seq if entry is not None else 0
        if found.record is not None and (entry is None or found.instead):
            entry = self._anew(found.record)
        if entry is None:
            return  # it was forgotten meanwhile
        for event in found.events:
            record = advance(entry.record, event)
            if record is entry.record:
                continue
            entry.take(record, event)
            if tell and event.seq > told:
                self._feed.publish(record, event, here=here)
                if record.over and event.ends:
                    self._ended(record)
        entry.from_seq = max(entry.from_seq, told + 1)

    def _anew(self, submitted: JobRecord) -> Entry:
        """A job as it was submitted, in the place of what is known of it."""
        entry = Entry(submitted)
        if submitted.id in self._entries:
            self._entries[submitted.id] = entry
            return entry
        if submitted.key is not None:  # whatever has it here never was
            self._keys.pop((submitted.owner, submitted.key.name), None)
        self._enter(entry)
        return entry

    def _at(self, job_id: str) -> int | None:
        """The last event that is known of a job; None of one that is not known. From any thread."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.record.seq

    def _never_was(self, job_id: str) -> None:
        """Another service was first to add a job with its key."""
        entry = self._entries.get(job_id)
        if entry is not None and entry.record.key is not None:
            key = entry.record.owner, entry.record.key.name
            if self._keys.get(key) == job_id:
                del self._keys[key]

    def _drop(self, job_id: str) -> None:
        """It is forgotten, here or elsewhere."""
        super().forget(job_id)

    def _forgotten(self, entry: Entry) -> None:
        """Another service forgot a job. Whoever follows it here is told that it was cancelled,
        unless its end was heard before: it ended and went in one."""
        record = entry.record
        if not record.over:
            event = JobEvent(self._next_seq(entry), self._now(), Cancelled())
            self._feed.publish(advance(record, event), event, here=False)
        self._drop(record.id)
        self._gone(record)

    def _gone(self, record: JobRecord) -> None:
        """Another service forgot a job."""

    def _ended(self, record: JobRecord) -> None:
        """A job ended elsewhere."""


class Crossing:
    """From threads to the loop on which jobs are told of; what comes before that runs waits."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def runs(self) -> bool:
        """Whether there is a loop."""
        return self._loop is not None

    def open(self) -> None:
        """The loop is the one that runs now."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()

    def do(self, work: Callable[[], None]) -> None:
        """Have something done there; from any thread."""
        with self._lock:
            if self._loop is None:
                self._waiting.append(work)
                return
        with suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(work)
