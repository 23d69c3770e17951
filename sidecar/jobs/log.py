"""Where records of jobs and their events are kept: a protocol, and one store in memory.

There is one door: what happens to a job is appended here, kept first and then told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar import clock, errors
from sidecar.jobs.events import Change, JobEvent
from sidecar.jobs.feed import BUFFER, Feed, Listener, Subscription
from sidecar.jobs.record import JobRecord, advance


class JobLog(Protocol):
    """Records by their id, and the events that made them what they are."""

    def add(self, record: JobRecord) -> None:
        """Keep a job that was submitted.

        Raises:
            KeyTaken: its owner has a job with its key.
        """
        ...

    def append(self, job_id: str, change: Change) -> JobRecord:
        """Something happened to a job: keep it, then tell of it; the record after it.

        What changes nothing (`record.advance`) is neither kept nor told.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    def get(self, job_id: str) -> JobRecord:
        """What is known of a job.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    def by_key(self, owner: str, name: str) -> JobRecord | None:
        """The job of an owner whose request the client calls by this name."""
        ...

    def all(self) -> list[JobRecord]:
        """All records, in the order in which they were added."""
        ...

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """What happened to a job behind the event ``after``, in order. Of fleeting events
        (progress) only the last is kept, so numbers may be left out.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    def subscribe(self, job_id: str, after: int = 0) -> Subscription:
        """The same, and then what comes, as it comes.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        ...

    def listen(self, tell: Listener, job_id: str | None = None) -> None:
        """Have ``tell`` called with each event that is kept, of all jobs or of one."""
        ...

    def when_gone(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the id of each job that was forgotten."""
        ...

    def forget(self, job_id: str) -> None:
        """Keep a job no longer; one that is not there is forgotten already."""
        ...

    async def written(self, job_id: str | None = None) -> None:
        """Wait until all that was added and appended so far would outlive what this store is made
        to outlive.

        Raises:
            errors.SidecarError: of the job with this id something could not be kept; without one,
                something that was deleted is still there; why.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class KeyTaken(Exception):
    """Of one owner no two jobs have the same key."""


class Entry:
    """A record and its events."""

    __slots__ = ("fleeting_at", "from_seq", "log", "record")

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.log: list[JobEvent] = []
        self.from_seq = 0
        """The least number of the next event."""
        self.fleeting_at: int | None = None
        """Where the fleeting one stands."""

    def take(self, record: JobRecord, event: JobEvent) -> None:
        """One more event, and the record after it."""
        self.record = record
        if event.fleeting:
            if self.fleeting_at is not None:
                del self.log[self.fleeting_at]
            self.fleeting_at = len(self.log)
        self.log.append(event.worn if record.over else event)
        if record.over and event.ends:
            self.log = [one.worn for one in self.log]


class MemoryLog:
    """Keeps jobs as long as the process lives."""

    def __init__(self, now: clock.Clock = clock.wall, buffer: int = BUFFER) -> None:
        self._now = now
        self._feed = Feed(buffer)
        self._entries: dict[str, Entry] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._tell_gone: list[Callable[[str], None]] = []

    def add(self, record: JobRecord) -> None:
        """Keep a job that was submitted."""
        self._enter(Entry(record))

    def enter(self, record: JobRecord) -> None:
        """Hold a job that was accepted elsewhere, from where it stands; it has no key here."""
        self._entries[record.id] = Entry(record)

    def append(self, job_id: str, change: Change) -> JobRecord:
        """Something happened to a job: keep it, then tell of it."""
        entry = self._entry(job_id)
        event = JobEvent(self._next_seq(entry), self._now(), change)
        record = advance(entry.record, event)
        if record is not entry.record:
            self._keep(entry, record, event)
            self._feed.publish(record, event)
        return record

    def get(self, job_id: str) -> JobRecord:
        """What is known of a job."""
        return self._entry(job_id).record

    def by_key(self, owner: str, name: str) -> JobRecord | None:
        """The job of an owner whose request the client calls by this name."""
        job_id = self._keys.get((owner, name))
        return self._entries[job_id].record if job_id is not None else None

    def all(self) -> list[JobRecord]:
        """All records, in the order in which they were added."""
        return [entry.record for entry in self._entries.values()]

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """What happened to a job behind the event ``after``."""
        log = self._entry(job_id).log
        return log[bisect_right(log, after, key=lambda event: event.seq) :]

    def subscribe(self, job_id: str, after: int = 0) -> Subscription:
        """What happened behind ``after``, and then what comes."""
        return self._feed.subscribe(self.get(job_id), after, self.events(job_id, after))

    def listen(self, tell: Listener, job_id: str | None = None) -> None:
        """Have ``tell`` called with each event."""
        self._feed.listen(tell, job_id)

    def when_gone(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the id of each job that was forgotten."""
        self._tell_gone.append(tell)

    def forget(self, job_id: str) -> None:
        """Keep a job no longer."""
        self._feed.forget(job_id)
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return
        if entry.record.key is not None:
            key = entry.record.owner, entry.record.key.name
            if self._keys.get(key) == job_id:
                del self._keys[key]
        for tell in self._tell_gone:
            tell(job_id)

    async def written(self, job_id: str | None = None) -> None:
        """Memory outlives nothing: there is nothing to wait for."""

    def close(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self._keys.clear()

    def _enter(self, entry: Entry) -> None:
        record = entry.record
        if record.key is not None:
            key = record.owner, record.key.name
            if key in self._keys:
                raise KeyTaken(record.key.name)
            self._keys[key] = record.id
        self._entries[record.id] = entry

    def _next_seq(self, entry: Entry) -> int:
        return max(entry.record.seq + 1, entry.from_seq)

    def _keep(self, entry: Entry, record: JobRecord, event: JobEvent) -> None:
        entry.take(record, event)

    def _entry(self, job_id: str) -> Entry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise errors.JobNotFound() from None
