"""Job log in memory, subscriptions to job events.

All changes of jobs are appended here: an event is stored first and then published.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Self

from sidecar import clock, errors
from sidecar.jobs.job_record import JobChange, JobEvent, JobRecord, ReportedChange, apply_event
from sidecar.transcripts.transcript import SegmentReady

SUBSCRIBER_BUFFER_EVENTS = 256
"""Events that a subscriber may lag behind: some minutes of a recording that is transcribed fast."""

MAX_EVENT_BATCH = 64
"""Events of one batch of a subscription."""

JobListener = Callable[[JobRecord, JobEvent], None]
"""Callback that gets each event at once, with the record after it. It must not block or raise."""


class SubscriberTooSlow(Exception):
    """Error of a subscriber that takes its events too slowly. It has all up to
    ``seq`` and can resume there."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"too slow: all events up to {seq} were taken")
        self.seq = seq


class JobSubscription:
    """Events of one job, each once and in order, until the job has ended.

    A subscriber that more events wait for than the buffer holds is cut off: publishers do not wait.
    """

    def __init__(
        self,
        feed: JobEventFeed,
        job_id: str,
        after: int,
        past_events: Sequence[JobEvent],
        over: bool,
    ) -> None:
        self._feed = feed
        self._job_id = job_id
        self._seq = after
        self._waiting = deque(past_events)
        self._most = len(past_events) + feed.buffer
        self._over = over
        self._behind = False
        self._news = asyncio.Event()
        self.end_settled: Callable[[], Awaitable[None]] | None = None
        """Waits until the end of the job may be told."""

    def push(self, event: JobEvent, over: bool) -> None:
        """Add an event."""
        if len(self._waiting) >= self._most:
            self._behind = True
            self.close()
            return
        self._waiting.append(event)
        self._over = over
        self._news.set()

    def close(self) -> None:
        """Close the subscription; buffered events can still be taken."""
        self._over = True
        self._feed.leave(self._job_id, self)
        self._news.set()

    async def batches(self, pause_s: float) -> AsyncGenerator[Sequence[JobEvent], None]:
        """Yield all buffered events at once, and an empty batch each time that ``pause_s`` pass
        without one. The end waits for `end_settled`.

        Raises:
            SubscriberTooSlow: more events wait than the buffer holds.
        """
        while self._waiting or not self._over:
            if not self._waiting:
                self._news.clear()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
                except TimeoutError:
                    yield ()
                continue
            if self._behind:
                raise SubscriberTooSlow(self._seq)
            batch = min(len(self._waiting), MAX_EVENT_BATCH)
            events = [self._waiting.popleft() for _ in range(batch)]
            self._seq = events[-1].seq
            if self._over and not self._waiting and self.end_settled is not None:
                end = max((at for at, event in enumerate(events) if event.ends), default=0)
                if end:  # what was before need not wait
                    yield events[:end]
                await self.end_settled()
                events = events[end:]
            yield events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JobEventFeed:
    """Publisher of stored job events to listeners and subscribers."""

    buffer = SUBSCRIBER_BUFFER_EVENTS

    def __init__(self) -> None:
        self._all: list[JobListener] = []
        self._of_one: defaultdict[str, list[JobListener]] = defaultdict(list)
        self._subscriptions: defaultdict[str, set[JobSubscription]] = defaultdict(set)

    def listen(self, listener: JobListener, job_id: str | None = None) -> None:
        """Call ``listener`` with all events, or with those of one job until it has ended."""
        if job_id is not None:
            self._of_one[job_id].append(listener)
        else:
            self._all.append(listener)

    def unlisten(self, listener: JobListener, job_id: str) -> None:
        """Remove a listener of one job."""
        if listener in self._of_one.get(job_id, ()):
            self._of_one[job_id].remove(listener)
            if not self._of_one[job_id]:
                del self._of_one[job_id]

    def open_subscription(
        self, record: JobRecord, after: int, past_events: Sequence[JobEvent]
    ) -> JobSubscription:
        """Return a subscription to later events, behind ``past_events``, which came after
        ``after``."""
        subscription = JobSubscription(self, record.id, after, past_events, record.over)
        if not record.over:
            self._subscriptions[record.id].add(subscription)
        return subscription

    def leave(self, job_id: str, subscription: JobSubscription) -> None:
        """End a subscription."""
        if job_id in self._subscriptions:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]

    def has_followers(self, job_id: str) -> bool:
        """Return whether a job has listeners of its own or subscriptions."""
        return job_id in self._of_one or job_id in self._subscriptions

    def publish(self, record: JobRecord, event: JobEvent) -> None:
        """Publish an event; ``record`` is the job after the event."""
        for listener in [*self._of_one.get(record.id, ()), *self._all]:
            listener(record, event)
        for subscription in list(self._subscriptions.get(record.id, ())):
            subscription.push(event, record.over)
        if record.over:
            self._of_one.pop(record.id, None)
            self._subscriptions.pop(record.id, None)


class DuplicateRequestKey(Exception):
    """Error of a second job with an idempotency key of the same owner."""


class JobIdTaken(Exception):
    """Error of a second job with the id of another."""


class JobEventLogEntry:
    """Record of a job and its events."""

    __slots__ = ("events", "fleeting_at", "from_seq", "record")

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.events: list[JobEvent] = []
        self.from_seq = 0
        """Lowest number of the next event."""
        self.fleeting_at: int | None = None
        """Index of the fleeting event."""

    def take(self, record: JobRecord, event: JobEvent) -> None:
        """Add an event and the record after it."""
        self.record = record
        if event.superseded_by_next:
            if self.fleeting_at is not None:
                del self.events[self.fleeting_at]
            self.fleeting_at = len(self.events)
        self.events.append(event.worn if record.over else event)
        if record.over and event.ends:
            self.events = [_with_words_of(record, one.worn) for one in self.events]


def _with_words_of(record: JobRecord, event: JobEvent) -> JobEvent:
    """Return an event of an ended job; a segment has its words in common with the transcript, if
    they are equal, as these are most of what is held."""
    match event.change:
        case ReportedChange(SegmentReady(index, segment), processing_s) if (
            index < len(record.segments) and segment.words == record.segments[index].words
        ):
            shared = SegmentReady(index, replace(segment, words=record.segments[index].words))
            return replace(event, change=ReportedChange(shared, processing_s))
    return event


class JobEventLog(JobEventFeed):
    """Job log that holds records by id, and their events, as long as the process lives, and
    publishes what it stores."""

    def __init__(self, now: clock.Clock = clock.wall_time) -> None:
        super().__init__()
        self._now = now
        self._entries: dict[str, JobEventLogEntry] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._delete_callbacks: list[Callable[[str], object]] = []

    def add(self, record: JobRecord) -> None:
        """Store a submitted job.

        Raises:
            DuplicateRequestKey: its owner has a job with its key.
            JobIdTaken: there is a job with its id.
        """
        self._add_entry(JobEventLogEntry(record))

    def enter(self, record: JobRecord) -> None:
        """Store a job that another service accepted, from its present state; it has no key here."""
        self._entries[record.id] = JobEventLogEntry(record)

    def append(self, job_id: str, change: JobChange) -> JobRecord:
        """Append an event of a job and publish it; return the record after it.

        A change without effect (`apply_event`) is neither stored nor published.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        entry = self._entry(job_id)
        event = JobEvent(max(entry.record.seq + 1, entry.from_seq), self._now(), change)
        record = apply_event(entry.record, event)
        if record is not entry.record:
            self._append_event(entry, record, event)
            self.publish(record, event)
        return record

    def get(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        return self._entry(job_id).record

    def by_key(self, owner: str, name: str) -> JobRecord | None:
        """Return the owner's job with this idempotency key."""
        job_id = self._keys.get((owner, name))
        return self._entries[job_id].record if job_id is not None else None

    def all(self) -> list[JobRecord]:
        """Return all records, in the order in which they were added."""
        return [entry.record for entry in self._entries.values()]

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """Return the events of a job after the number ``after``, in order. Of fleeting events
        (progress) only the last is stored, so numbers may be missing.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        log = self._entry(job_id).events
        return log[bisect_right(log, after, key=lambda event: event.seq) :]

    def subscribe(self, job_id: str, after: int = 0) -> JobSubscription:
        """Return a subscription to the events of a job after ``after``, stored and future.

        Raises:
            errors.JobNotFound: there is no such job.
        """
        return self.open_subscription(self.get(job_id), after, self.events(job_id, after))

    def on_delete(self, callback: Callable[[str], object]) -> None:
        """Call ``callback`` with the id of each deleted job."""
        self._delete_callbacks.append(callback)

    def last_read(self, job_id: str) -> float:
        """Return when its owner last read a job of before the start, in seconds since 1970; 0 if it
        is not known."""
        return 0.0

    def note_read(self, job_id: str, at: float) -> None:
        """Persist that a job was read, as far as this store persists; ``at``: as `last_read`."""

    def delete(self, job_id: str) -> None:
        """Delete a job; an unknown id does nothing."""
        self._of_one.pop(job_id, None)
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return
        if entry.record.key is not None:
            key = entry.record.owner, entry.record.key.name
            if self._keys.get(key) == job_id:
                del self._keys[key]
        for callback in self._delete_callbacks:
            callback(job_id)

    def note_stop(self) -> None:
        """Persist, as far as this store persists, that the service was told to stop: if it is
        killed before it has, that is no death in a job."""

    async def written(self, job_id: str | None = None) -> None:
        """Wait until all that was added and appended so far is persisted, as far as this store
        persists.

        Raises:
            errors.SidecarError: data of the job with this id could not be persisted; without an id,
                deleted data is still there. The error says why.
        """

    def close(self) -> None:
        """Drop all jobs."""
        self._entries.clear()
        self._keys.clear()

    def _add_entry(self, entry: JobEventLogEntry) -> None:
        record = entry.record
        if record.id in self._entries:
            raise JobIdTaken(record.id)
        if record.key is not None:
            key = record.owner, record.key.name
            if key in self._keys:
                raise DuplicateRequestKey(record.key.name)
            self._keys[key] = record.id
        self._entries[record.id] = entry

    def _append_event(self, entry: JobEventLogEntry, record: JobRecord, event: JobEvent) -> None:
        entry.take(record, event)

    def _entry(self, job_id: str) -> JobEventLogEntry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise errors.JobNotFound() from None
