"""Who works on what, in the database: by its clock, and row by row.

Between owners it is `jobs.order`'s: who would have had least by the end of its next job goes first;
of one owner's, those that somebody waits for. Whoever is chosen is locked only then, so that
services that claim at once do not wait for each other and none has what another has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sidecar.jobs import poison
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.events import Failed, Failure, Interrupted, JobEvent
from sidecar.jobs.order import AGED_S
from sidecar.jobs.postgres.batch import NOTIFY
from sidecar.jobs.postgres.rows import Found, Rows
from sidecar.jobs.record import JobRecord, JobState, advance

FIRST = 50
"""So many of those that wait are looked at at once."""
TOLD = 1 << 20
"""More events than a service tells of that are not written yet."""
_CANDIDATES = """
    SELECT id, seq FROM (
        SELECT waiting.*, coalesce(had_s, 0) + sum(work_s - charged_s)
            OVER (PARTITION BY owner ORDER BY soon DESC, place) AS by_then
        FROM (
            SELECT *, urgent OR came < clock_timestamp() - make_interval(secs => %(aged_s)s) AS soon
            FROM vibevoice.jobs WHERE vibevoice.free(state, claim, leased_until, %(lease_s)s)
            AND NOT id = ANY(%(seen)s)
        ) AS waiting LEFT JOIN vibevoice.shares USING (owner)
    ) AS ranked ORDER BY by_then, place LIMIT %(first)s"""


@dataclass(frozen=True, slots=True)
class Grasp:
    """What came of reaching for a job: whether this service has it, and what the database has of
    it."""

    had: bool
    found: Found


def candidates(cursor: Any, seen: Collection[str]) -> dict[str, int]:
    """The next of those that wait and were not ``seen``, in turn, with the last event of each."""
    values = {"aged_s": AGED_S, "lease_s": LEASE_S, "seen": [*seen], "first": FIRST}
    cursor.execute(_CANDIDATES, values)
    return dict(cursor.fetchall())


def grasp(cursor: Any, rows: Rows, job_id: str, claim: str, over: Collection[str]) -> Grasp | None:
    """Have a job, if nobody has it; None where somebody does. A job in which services die that get
    no further ends here. ``over``: jobs that have ended, as far as is known here."""
    locked = lock(cursor, rows, job_id)
    if locked is None:
        return None
    now, found, record = locked
    events = interrupted(record, now, bool(record.behind) and record.behind not in over)
    record = replayed(record, events)
    _write(cursor, rows, record, events, claim)
    told = replace(found, events=(*found.events, *events), instead=True)
    return Grasp(not record.over, told)


def interrupted(record: JobRecord, now: float, waited: bool) -> list[JobEvent]:
    """What is to be said of a job that nobody has before anybody does anything with it: that the
    service died which worked on it, and its end where that is enough (`jobs.poison`). ``waited``:
    it was not at work on it yet."""
    if record.state is not JobState.RUNNING:
        return []
    events = [JobEvent(record.seq + TOLD, now, Interrupted(waited))]
    deaths = record.interruptions + 1
    if not waited and (error := poison.given_up(record.crashes, deaths)) is not None:
        events.append(JobEvent(events[0].seq + 1, now, Failed(Failure.of(error))))
    return events


def lock(cursor: Any, rows: Rows, job_id: str) -> tuple[float, Found, JobRecord] | None:
    """A job that nobody has, for as long as this transaction lasts: what time it is, what the
    database has of it, and its record. None where somebody has it or it cannot be read here."""
    cursor.execute(
        """SELECT extract(epoch FROM clock_timestamp())::float8 FROM vibevoice.jobs
            WHERE id = %s AND vibevoice.free(state, claim, leased_until, %s)
            FOR UPDATE SKIP LOCKED""",
        (job_id, LEASE_S),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    found = next(iter(rows.find(cursor, {job_id: None})), None)
    if found is None or found.record is None:
        return None
    return row[0], found, replayed(found.record, found.events)


def beat(cursor: Any, claims: Sequence[str]) -> set[str]:
    """Have them for longer; those of which that is so."""
    cursor.execute(
        """UPDATE vibevoice.jobs
            SET leased_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id IN (
                SELECT id FROM vibevoice.jobs
                WHERE claim = ANY(%s) AND state IN ('queued', 'running') ORDER BY id FOR UPDATE
            ) RETURNING claim""",
        (LEASE_S, [*claims]),
    )
    return {claim for (claim,) in cursor.fetchall()}


def replayed(record: JobRecord, events: Sequence[JobEvent]) -> JobRecord:
    """A record after its events."""
    for event in events:
        record = advance(record, event)
    return record


def keep(cursor: Any, rows: Rows, job_id: str, events: Sequence[JobEvent]) -> None:
    """Write events of a job whose row is locked."""
    for event in events:
        cursor.execute(
            """INSERT INTO vibevoice.events (job, seq, at, fleeting, mark, change)
                VALUES (%s, %s, %s, false, '', %s)""",
            (job_id, event.seq, event.at, rows.sealed_event(job_id, event)),
        )


def _write(
    cursor: Any, rows: Rows, record: JobRecord, events: Sequence[JobEvent], claim: str
) -> None:
    keep(cursor, rows, record.id, events)
    cursor.execute(
        """WITH before AS (SELECT id, charged_s FROM vibevoice.jobs WHERE id = %(id)s),
            charged AS (UPDATE vibevoice.jobs SET state = %(state)s, seq = %(seq)s,
                claim = %(claim)s, charged_s = work_s,
                leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
                WHERE id = %(id)s RETURNING id, owner, work_s)
        UPDATE vibevoice.shares SET had_s = had_s + charged.work_s - before.charged_s
        FROM before, charged WHERE shares.owner = charged.owner""",
        {
            "id": record.id,
            "state": record.state,
            "seq": record.seq,
            "claim": claim,
            "lease_s": LEASE_S,
        },
    )
    cursor.execute(NOTIFY, (f"{record.id} {record.seq} ",))
