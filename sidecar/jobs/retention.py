"""Retention of finished jobs.

A result stays for a time from its end, or from its owner's last read or edit. It is deleted earlier
if the results of its owner exceed their space, unless it was edited. A private job is deleted at
its end.
"""

import asyncio
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar import clock, errors
from sidecar.concurrency import wait_for_event
from sidecar.gpu_memory.host_memory import read_host_memory
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import JobEvent, JobRecord, JobState, ReportedChange
from sidecar.jobs.job_store import Expiry
from sidecar.observability.metrics import JobMetrics
from sidecar.transcripts.transcript import Peaks, Segment, SegmentReady
from sidecar.transcripts.transcript_edits import DiarizeAgain, EditHistory, RewriteSegment

log = logging.getLogger(__name__)

MIN_SPACE_BYTES = 64 << 20
"""Least default space of an owner's results: a thousand short ones, or a dozen hours with the
times of all words."""
DISK_PARTS, MEMORY_PARTS = 100, 32
"""Parts of the disk and of memory of which an owner's kept results have one by default."""
JOB_BYTES = 64 << 10
"""Charged for each job beside its words: its options with a prompt, and its entry in all lists,
which get slow with tens of thousands."""
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

MIN_WAIT_S = 1e-4
"""Minimum wait: sums of seconds are rounded, and the next look would be at the same moment."""
CLOCK_CHECK_INTERVAL_S = 60.0
"""Interval in which the clock is compared with the time that passed."""
MIN_CLOCK_STEP_S = 60.0
"""Difference from which the clock was set: slewed, it is never so wrong within an interval."""
MAX_ABSENCE_S = 30 * 86400.0
"""Time beyond its retention for which a result may have outlived an absence of the service. If its
age is larger, the clock was set in between, and the result is as young as the service."""


def default_space_bytes(folder: Path | None) -> int:
    """Return the space of an owner's results if no setting says it. ``folder``: of kept jobs, which
    are in memory, too; None: they are only there."""
    if folder is None:
        return MIN_SPACE_BYTES
    disk_part = shutil.disk_usage(folder).total // DISK_PARTS
    return max(MIN_SPACE_BYTES, min(disk_part, read_host_memory().total_bytes // MEMORY_PARTS))


def expiry(left_s: float, held_bytes: int | None, space_bytes: int) -> Expiry:
    """Return when a result is deleted. ``held_bytes``: held as long as it is; None: it is not
    deleted for newer ones."""
    return Expiry(
        None if left_s == math.inf else max(0.0, left_s),
        None if held_bytes is None else max(0.0, 1 - held_bytes / space_bytes),
    )


def edits_full_error(space_bytes: int) -> errors.EditsFull:
    """Return the error of an owner whose edited transcripts have filled ``space_bytes``."""
    return errors.EditsFull(
        f"Your edited transcripts take all of the {space_bytes >> 20} MB for your results.",
        hint="Delete some that are not needed, or have VIBEVOICE_JOB_RETENTION_MB raised.",
    )


def report_displaced(metrics: JobMetrics, job_id: str, size: int, space_bytes: int) -> None:
    """Log and count a result of ``size`` bytes that was deleted for newer ones."""
    metrics.displaced.add()
    log.warning(
        "The result of job %s (%d KB), which nobody edited, is deleted: those of its owner exceed "
        "%d MB. A larger VIBEVOICE_JOB_RETENTION_MB keeps more.",
        *(job_id, size >> 10, space_bytes >> 20),
    )


def retained_bytes(record: JobRecord, events: Sequence[JobEvent] = ()) -> int:
    """Return the bytes of memory that an ended job is charged for, with its events."""
    size = JOB_BYTES + len(record.peaks) + _segments_bytes(record.segments)
    size += _edit_history_bytes(record.history)
    if record.transcript is not None:
        size += EMBEDDING_BYTES * len(record.transcript.prints)
    words = {id(segment.words) for segment in record.segments}
    for event in events:
        match event.change:
            case ReportedChange(SegmentReady(segment=segment)):
                shared = id(segment.words) in words
                size += _segments_bytes([replace(segment, words=()) if shared else segment])
            case ReportedChange(Peaks(levels=levels)):
                size += PEAKS_BYTES + len(levels)
        size += len(event.kept_diarization or "")
    return size


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
    used_at: float | None = None
    """Last use of a job of before the start, in seconds since 1970, until its age is final."""
    weight: int = 0
    edited: bool = False
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
    ``space_bytes``, the ones that nobody edited are deleted early, the longest unread first. The
    one of each owner that ended last stays for its time."""

    fetch_s = MIN_RETENTION_S
    """Seconds in which a client may still fetch a result as the service ends."""
    clock_set_within_s = CLOCK_SET_WITHIN_S
    """Seconds from the machine's boot in which its clock may be ahead."""

    def __init__(
        self,
        event_log: JobEventLog,
        retention_s: float,
        space_bytes: int,
        metrics: JobMetrics,
        *,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        self._event_log, self._now, self._retention_s = event_log, now, retention_s
        self._space_bytes, self._metrics = space_bytes, metrics
        self._ended: dict[str, _EndedJob] = {}
        """In the order of their ends, last reads or last edits."""
        self._timer: asyncio.TimerHandle | None = None
        self._clock_ahead_s = now() - clock.lasting_time()
        self._closed = False
        event_log.listen(self._on_event)
        event_log.on_delete(lambda job_id: self._ended.pop(job_id, None))

    def note_fetched(self, job_id: str) -> None:
        """Note that a client has a result."""
        if job_id in self._ended:
            self._ended[job_id].fetched.set()

    def renew(self, job_id: str) -> None:
        """Restart the retention of a result, because its owner has read it."""
        if (ended_job := self._ended.pop(job_id, None)) is not None:
            ended_job.young_at, ended_job.used_at = clock.lasting_time(), None
            self._ended[job_id] = ended_job
            if ended_job.young_at - ended_job.noted_at > READ_NOTE_INTERVAL_S:
                self._note_read(ended_job)
            if ended_job.record.state is JobState.FAILED:  # it has no result that is yet to come
                ended_job.fetched.set()

    def expiries(self, records: Sequence[JobRecord]) -> Mapping[str, Expiry]:
        """Return when results of one owner are deleted, by id."""
        now, ids = clock.lasting_time(), {one.id for one in records}
        return {
            # The age first: the other way round it rounds up.
            one.record.id: expiry(self._retention_s - (now - one.young_at), held, self._space_bytes)
            for one, held in self._held_bytes(records[0].owner)
            if one.record.id in ids
        }

    def check_edit(self, owner: str) -> None:
        """Raise `errors.EditsFull` if the edited transcripts of an owner fill its space."""
        own = (one for one in self._ended.values() if one.record.owner == owner and one.edited)
        if sum(one.weight for one in own) >= self._space_bytes:
            raise edits_full_error(self._space_bytes)

    async def all_fetched(self) -> None:
        """Wait until the results of the last seconds were fetched, at most ``fetch_s`` from their
        ends. A job that was cancelled or put off by the shutdown has no result."""
        now = clock.lasting_time()
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
        self._follow_clock()
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
        now = clock.lasting_time()
        if event.ends:
            self._add(_EndedJob(record, now, now))
        elif (ended_job := self._ended.pop(record.id, None)) is not None:
            ended_job.record, ended_job.young_at, ended_job.used_at = record, now, None
            self._add(ended_job)
        held = [*self._held_bytes(record.owner)]
        last = max((one for one, _ in held), key=lambda one: one.ended_at, default=None)
        for one, held_bytes in held:
            if (held_bytes or 0) > self._space_bytes and one is not last:
                self._event_log.delete(one.record.id)
                report_displaced(self._metrics, one.record.id, one.weight, self._space_bytes)

    def remember(self, record: JobRecord, used_at: float) -> None:
        """Add a job of before the service's start that ended, or was last read or edited, at
        ``used_at`` (seconds since 1970); the oldest first."""
        at = self._to_monotonic(used_at)
        self._add(_EndedJob(record, at, at, used_at))

    def _to_monotonic(self, wall_time: float) -> float:
        return clock.lasting_time() - max(0.0, self._now() - wall_time)

    def _add(self, ended_job: _EndedJob) -> None:
        record = ended_job.record
        ended_job.weight = retained_bytes(record, self._event_log.events(record.id))
        ended_job.edited = record.history.revision > 0
        self._ended[record.id] = ended_job
        self._set_timer()

    def _held_bytes(self, owner: str) -> Iterator[tuple[_EndedJob, int | None]]:
        """Yield an owner's results from the one used last, each with the bytes that are held as
        long as it is, since edited ones stay and the others go by their last use; None: edited."""
        own = [one for one in reversed(self._ended.values()) if one.record.owner == owner]
        held_bytes = sum(one.weight for one in own if one.edited)
        for one in own:
            held_bytes += 0 if one.edited else one.weight
            yield one, None if one.edited else held_bytes

    def _note_read(self, ended_job: _EndedJob) -> None:
        if ended_job.record.durable:
            ended_job.noted_at = ended_job.young_at
            age_s = clock.lasting_time() - ended_job.young_at
            self._event_log.note_read(ended_job.record.id, self._now() - age_s)

    def _follow_clock(self) -> None:
        """If the clock was set, persist the last uses by it: the next start computes ages from
        them."""
        ahead_s = self._now() - clock.lasting_time()
        if abs(ahead_s - self._clock_ahead_s) < MIN_CLOCK_STEP_S:
            return
        self._clock_ahead_s = ahead_s
        for one in self._ended.values():
            if one.used_at is None:
                self._note_read(one)

    def _find_ages(self) -> None:
        """Find the final ages of results of before the start."""
        unsure = [one for one in self._ended.values() if one.used_at is not None]
        for one in unsure:
            used_at, one.used_at = one.used_at or 0.0, None
            doubtful = self._now() - used_at > self._retention_s + MAX_ABSENCE_S
            one.ended_at = one.young_at = self._to_monotonic(self._now() if doubtful else used_at)
            if doubtful:
                self._note_read(one)
        if unsure:
            in_order = sorted(self._ended.items(), key=lambda item: item[1].young_at)
            self._ended = dict(in_order)

    def _delete_expired(self) -> None:
        """Delete what has expired."""
        self._timer = None
        self._follow_clock()
        if time.monotonic() >= self.clock_set_within_s:
            self._find_ages()
        oldest_kept = clock.lasting_time() - self._retention_s
        for job_id, ended_job in list(self._ended.items()):
            if ended_job.used_at is not None or ended_job.young_at > oldest_kept:
                break
            self._event_log.delete(job_id)
        self._set_timer()

    def _set_timer(self) -> None:
        """Schedule the next deletion for the expiry of the oldest result."""
        if self._timer or self._closed or not self._ended or self._retention_s == math.inf:
            return
        oldest = next(iter(self._ended.values()))  # those of before the start come first
        clock_unsure = oldest.used_at is not None
        due_in_s = (
            self.clock_set_within_s - time.monotonic()
            if clock_unsure
            else oldest.young_at + self._retention_s - clock.lasting_time()
        )
        wait_s = min(max(MIN_WAIT_S, due_in_s), CLOCK_CHECK_INTERVAL_S)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._delete_expired)
