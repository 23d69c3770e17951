"""Retention of finished jobs.

A result stays for a time from its end, or from its owner's last read or edit. It is deleted earlier
if the results of its owner exceed their limits. A private job is deleted at its end.
"""

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sidecar import clock, errors
from sidecar.concurrency import wait_for_event
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import JobEvent, JobRecord, JobState, ReportedChange
from sidecar.transcripts.transcript import Peaks, Segment, SegmentReady
from sidecar.transcripts.transcript_edits import DiarizeAgain, EditHistory, RewriteSegment

JOB_BYTES = 16 << 10
"""Charged for each job beside its words: its options with a prompt, and an entry of every list."""
SEGMENT_BYTES = 190
WORD_BYTES = 150
"""Memory of a segment and a word beside their text (tracemalloc, CPython 3.11)."""
PEAKS_BYTES = 400
"""Memory of a report of peaks beside its levels."""
EDIT_BYTES = 700
"""Memory of an edit beside its text, in the history and among the events; of an undo, too."""
EMBEDDING_BYTES = 900
"""Memory of the embedding of a segment."""
MIN_RETENTION_S = 2.0
"""Minimum time to fetch a result, also during a shutdown: clients poll once a second."""
READ_NOTE_INTERVAL_S = 60.0
"""Interval in which reads of a job are persisted. When the service ends, the last one is, too."""
CLOCK_SET_WITHIN_S = 600.0
"""Time from the machine's boot in which its clock is set over the network: without a battery, it
may be ahead at first. Until then no result of before the service's start is deleted for its age,
and no shared one."""
MAX_RESULTS_PER_OWNER = 1000
"""Fetchable results of one owner; with more, the oldest are deleted early."""


def retained_bytes(record: JobRecord, events: Sequence[JobEvent] = ()) -> int:
    """Return the bytes of memory that an ended job is charged for, with its events."""
    reported_segments = [
        event.change.event.segment
        for event in events
        if isinstance(event.change, ReportedChange) and isinstance(event.change.event, SegmentReady)
    ]
    content_bytes = _segments_bytes(record.segments) + _segments_bytes(reported_segments)
    content_bytes += len(record.peaks) + sum(
        PEAKS_BYTES + len(event.change.event.levels)
        for event in events
        if isinstance(event.change, ReportedChange) and isinstance(event.change.event, Peaks)
    )
    content_bytes += record.kept_bytes
    if record.transcript is not None:
        content_bytes += EMBEDDING_BYTES * len(record.transcript.prints)
    return JOB_BYTES + content_bytes + _edit_history_bytes(record.history)


def _edit_history_bytes(history: EditHistory) -> int:
    """Return the bytes stored for undo; a segment of which only the speaker
    changed shares its words."""
    size = EDIT_BYTES * history.revision + history.said
    for entry in history.entries:
        replaced = [segment for _, segment in entry.before.segments]
        if any(isinstance(one, RewriteSegment | DiarizeAgain) for one in entry.operations):
            size += _segments_bytes(replaced)
        else:
            size += SEGMENT_BYTES * len(replaced)
    return size


def _segments_bytes(segments: Iterable[Segment]) -> int:
    size = 0
    for segment in segments:
        size += SEGMENT_BYTES + sys.getsizeof(segment.text)
        size += sum(WORD_BYTES + sys.getsizeof(word.text) for word in segment.words)
    return size


@dataclass(slots=True)
class _EndedJob:
    """Ended job with the data of its retention."""

    record: JobRecord
    ended_at: float
    young_at: float
    """Begin of its retention: reads and edits by its owner renew it."""
    weight: int = 0
    noted_at: float = -math.inf
    """Last read that is persisted."""
    fetched: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def awaited(self) -> bool:
        """Return whether a client has not fetched the result yet."""
        failure = self.record.error
        shut_down = failure is not None and failure.code == errors.ShuttingDown.code
        fetchable = self.record.state in (JobState.DONE, JobState.FAILED) and not shut_down
        return fetchable and not self.fetched.is_set()


class Retention:
    """Ended jobs, deleted after ``retention_s``. If those of an owner take more than
    ``limit_bytes`` or number more than ``limit``, the ones that were not read or edited for longest
    are deleted early. The last one of each owner stays for its time."""

    fetch_s = MIN_RETENTION_S
    """Seconds in which a client may still fetch a result as the service ends."""
    clock_set_within_s = CLOCK_SET_WITHIN_S
    """Seconds from the machine's boot in which its clock may be ahead."""

    def __init__(
        self,
        event_log: JobEventLog,
        retention_s: float,
        limit_bytes: int,
        limit: int = MAX_RESULTS_PER_OWNER,
        *,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        self._event_log, self._now, self._retention_s = event_log, now, retention_s
        self._limit_bytes, self._limit = limit_bytes, limit
        self._count: Counter[str] = Counter()
        self._ended: dict[str, _EndedJob] = {}
        """In the order of their ends, last reads or last edits."""
        self._used_at = dict[str, float]()
        """Last uses of jobs of before the start, as long as their ages are not final."""
        self._held: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        event_log.listen(self._on_event)
        event_log.on_delete(self._remove)

    def note_fetched(self, job_id: str) -> None:
        """Note that a client has a result."""
        if job_id in self._ended:
            self._ended[job_id].fetched.set()

    def renew(self, job_id: str) -> None:
        """Restart the retention of a result, because its owner has read it."""
        self._used_at.pop(job_id, None)
        if (ended_job := self._ended.pop(job_id, None)) is not None:
            ended_job.young_at = time.monotonic()
            self._ended[job_id] = ended_job
            if ended_job.young_at - ended_job.noted_at > READ_NOTE_INTERVAL_S:
                self._note_read(ended_job)
            if ended_job.record.state is JobState.FAILED:  # it has no result that is yet to come
                ended_job.fetched.set()

    def expires_in_s(self, job_id: str) -> float | None:
        """Return the seconds until a result is deleted for its age; None if it is not."""
        ended_job = self._ended.get(job_id)
        if ended_job is None or self._retention_s == math.inf:
            return None
        age_s = time.monotonic() - ended_job.young_at  # first: the other way round it rounds up
        return max(0.0, self._retention_s - age_s)

    async def all_fetched(self) -> None:
        """Wait until the results of the last seconds were fetched, at most ``fetch_s`` from their
        ends. A job that was cancelled or put off by the shutdown has no result."""
        now = time.monotonic()
        await asyncio.gather(
            *(
                wait_for_event(one.fetched, one.ended_at + self.fetch_s - now)
                for one in self._ended.values()
                if one.awaited and one.ended_at + self.fetch_s > now
            )
        )

    def close(self) -> None:
        """Delete no more results for their age, and persist their last reads."""
        self._closed = True
        for ended_job in self._ended.values():
            if ended_job.young_at > max(ended_job.noted_at, ended_job.ended_at):
                self._note_read(ended_job)
        if self._timer is not None:
            self._timer.cancel()

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        """Start the retention of a job that ended, or restart it after an edit."""
        if not record.over:
            return
        if not record.kept:
            self._event_log.delete(record.id)
            return
        now = time.monotonic()
        if event.ends:
            self._add(_EndedJob(record, now, now))
        elif (ended_job := self._ended.pop(record.id, None)) is not None:
            self._used_at.pop(record.id, None)
            ended_job.record, ended_job.young_at = record, now
            self._ended[record.id] = ended_job
            self._charge(ended_job)

    def remember(self, record: JobRecord, used_at: float) -> None:
        """Add a job of before the service's start that ended, or was last read or edited, at
        ``used_at`` (seconds since 1970); the oldest first."""
        self._used_at[record.id] = used_at
        at = self._to_monotonic(used_at)
        self._add(_EndedJob(record, at, at))

    def _to_monotonic(self, wall_time: float) -> float:
        return time.monotonic() - max(0.0, self._now() - wall_time)

    def _add(self, ended_job: _EndedJob) -> None:
        self._ended[ended_job.record.id] = ended_job
        self._count[ended_job.record.owner] += 1
        self._charge(ended_job)
        self._set_timer()

    def _charge(self, ended_job: _EndedJob) -> None:
        """Charge a job's memory, and delete older ones of its owner if a limit is exceeded."""
        record = ended_job.record
        now = retained_bytes(record, self._event_log.events(record.id))
        self._held[record.owner] += now - ended_job.weight
        ended_job.weight = now
        while (
            self._held[record.owner] > self._limit_bytes or self._count[record.owner] > self._limit
        ):
            oldest = next(
                one for one, each in self._ended.items() if each.record.owner == record.owner
            )
            if oldest == record.id:
                break
            self._delete(oldest)

    def _note_read(self, ended_job: _EndedJob) -> None:
        if ended_job.record.durable:
            ended_job.noted_at = ended_job.young_at
            age_s = time.monotonic() - ended_job.young_at
            self._event_log.note_read(ended_job.record.id, self._now() - age_s)

    def _delete(self, job_id: str) -> None:
        self._remove(job_id)
        self._event_log.delete(job_id)

    def _remove(self, job_id: str) -> None:
        self._used_at.pop(job_id, None)
        ended_job = self._ended.pop(job_id, None)
        if ended_job is None:
            return
        owner = ended_job.record.owner
        self._held[owner] -= ended_job.weight
        self._count[owner] -= 1
        if not self._count[owner]:
            del self._held[owner], self._count[owner]

    def _delete_expired(self) -> None:
        self._timer = None
        for job_id, used_at in self._used_at.items():  # the clock may have been set meanwhile
            ended_job = self._ended[job_id]
            ended_job.ended_at = ended_job.young_at = self._to_monotonic(used_at)
        self._used_at.clear()
        oldest_kept = time.monotonic() - self._retention_s
        for job_id, ended_job in list(self._ended.items()):
            if ended_job.young_at > oldest_kept:
                break
            self._delete(job_id)
        self._set_timer()

    def _set_timer(self) -> None:
        """Schedule the next deletion for the expiry of the oldest result."""
        if self._timer is not None or self._closed or not self._ended:
            return
        if self._retention_s == math.inf:
            return
        young_at = next(iter(self._ended.values())).young_at
        due_at = self.clock_set_within_s if self._used_at else young_at + self._retention_s
        wait_s = max(0.0, due_at - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._delete_expired)
