"""What is in the tables, opened: records and events, sealed one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.jobs.events import Failure, JobEvent, Refused
from sidecar.jobs.record import JobRecord
from sidecar.jobs.written import Unreadable, change_of, change_text, record_of, record_text
from sidecar.vault.sealing import Seal, SealBroken

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What the database has of a job. ``record``: as it was submitted, where that was asked for;
    ``events``: all of them then, else those behind what was asked for. ``gone``: it has nothing.
    ``instead``: it counts in the place of whatever is known of it here."""

    job_id: str
    record: JobRecord | None = None
    events: tuple[JobEvent, ...] = ()
    gone: bool = False
    instead: bool = False


class Rows:
    """Seals what goes there and opens what comes."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    def sealed_record(self, record: JobRecord) -> bytes:
        """A record as it was submitted."""
        return self._seal.seal(record_text(record), record.id)

    def sealed_event(self, job_id: str, event: JobEvent) -> bytes:
        """What happened."""
        return self._seal.seal(change_text(event.change), f"{job_id}/{event.seq}")

    def sealed_refusal(self, job_id: str, node: str, refusal: Failure) -> bytes:
        """Why a node cannot do a job."""
        return self._seal.seal(change_text(Refused(refusal)), f"{job_id}/{node}")

    def refusal(self, job_id: str, node: str, sealed: bytes) -> Failure:
        """What `sealed_refusal` sealed.

        Raises:
            SealBroken, Unreadable: it is none.
        """
        match change_of(self._seal.opened(sealed, f"{job_id}/{node}")):
            case Refused(Failure() as refusal):
                return refusal
        raise Unreadable("no refusal")

    def find(self, cursor: Any, wanted: Mapping[str, int | None]) -> list[Found]:
        """What the database has of these jobs, behind an event or (None) all of it. What cannot be
        read, such as a later version's, is left out, and said."""
        if not wanted:
            return []
        cursor.execute(
            "SELECT id, submitted FROM vibevoice.jobs WHERE id = ANY(%s) ORDER BY place",
            ([*wanted],),
        )
        there = dict(cursor.fetchall())
        cursor.execute(
            """SELECT job, seq, at, change FROM vibevoice.events
                JOIN unnest(%s::text[], %s::bigint[]) AS wanted (id, after) ON job = id
                WHERE seq > after ORDER BY job, seq""",
            ([*there], [wanted[one] or 0 for one in there]),
        )
        gone = [Found(one, gone=True) for one in wanted if one not in there]
        whole = {one for one, after in wanted.items() if after is None}
        return [*gone, *self._opened(there, cursor.fetchall(), whole)]

    def find_instead(self, cursor: Any, job_ids: Iterable[str]) -> list[Found]:
        """All that the database has of these jobs, to count in the place of what is known here."""
        found = self.find(cursor, dict.fromkeys(job_ids))
        return [replace(one, instead=True) for one in found]

    def all(self, cursor: Any) -> list[Found]:
        """All jobs, in the order in which they came."""
        cursor.execute("SELECT id, submitted FROM vibevoice.jobs ORDER BY place")
        there = dict(cursor.fetchall())
        cursor.execute("SELECT job, seq, at, change FROM vibevoice.events ORDER BY job, seq")
        return self._opened(there, cursor.fetchall(), set(there))

    def _opened(
        self, there: Mapping[str, bytes], rows: Iterable[Any], whole: set[str]
    ) -> list[Found]:
        by_job: dict[str, list[Any]] = {one: [] for one in there}
        for job_id, *row in rows:
            if job_id in by_job:
                by_job[job_id].append(row)
        found = []
        for job_id, events in by_job.items():
            try:
                told = tuple(self._event(job_id, *row) for row in events)
                record = self._record(job_id, there[job_id]) if job_id in whole else None
            except (SealBroken, Unreadable) as error:
                log.error("job %s in the database cannot be read: %s", job_id, error)
                continue
            found.append(Found(job_id, record, told))
        return found

    def _event(self, job_id: str, seq: int, at: float, change: bytes) -> JobEvent:
        return JobEvent(seq, at, change_of(self._seal.opened(change, f"{job_id}/{seq}")))

    def _record(self, job_id: str, submitted: bytes) -> JobRecord:
        return record_of(self._seal.opened(submitted, job_id))
