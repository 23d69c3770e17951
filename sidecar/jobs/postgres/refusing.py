"""What nodes say of jobs that they cannot do, in the database.

A look is a node's heartbeat, by the database's clock; what follows is decided by `jobs.strays`.
What all nodes refuse is said of the job where its row is locked, by whoever looks first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.database.schema import WAITS
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.events import Change, Failed, Failure, JobEvent, Refused
from sidecar.jobs.postgres.batch import NOTIFY
from sidecar.jobs.postgres.claiming import interrupted, keep, lock, replayed
from sidecar.jobs.postgres.rows import Found, Rows
from sidecar.jobs.record import JobRecord, advance
from sidecar.jobs.strays import ALIVE_S, Verdict, told, verdict
from sidecar.jobs.written import Unreadable
from sidecar.vault.sealing import SealBroken

log = logging.getLogger(__name__)

Known = Callable[[str], JobRecord | None]
"""A job as it was heard of last."""

LOCK = 0x7374726179736A62
"""Who holds this lock says what all refuse."""
_HEARTBEAT = """
    INSERT INTO vibevoice.nodes AS node (id, seen, looked) VALUES (%s, clock_timestamp(), true)
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, looked = true"""
_EXPIRED = "DELETE FROM vibevoice.nodes WHERE NOT vibevoice.there(seen, %(alive_s)s)"
_GONE = """
    DELETE FROM vibevoice.refusals WHERE NOT EXISTS (
        SELECT FROM vibevoice.nodes WHERE id = node AND vibevoice.there(seen, %(alive_s)s))"""
_ALIVE = "SELECT id FROM vibevoice.nodes WHERE looked AND vibevoice.there(seen, %(alive_s)s)"
_SAID = """
    SELECT job, node, failure FROM vibevoice.refusals JOIN vibevoice.jobs ON id = job
    WHERE vibevoice.free(state, claim, leased_until, %(lease_s)s) ORDER BY job, node"""
_STRAYS = """
    INSERT INTO vibevoice.strays AS known (job, since, seen)
    SELECT unnest(%(jobs)s::text[]), clock_timestamp(), clock_timestamp()
    ON CONFLICT (job) DO UPDATE SET seen = excluded.seen, since = CASE
        WHEN known.seen < excluded.seen - make_interval(secs => %(alive_s)s)
        THEN excluded.since ELSE known.since END
    RETURNING job, extract(epoch FROM seen - since)::float8"""


@dataclass(frozen=True, slots=True)
class _Stray:
    """A job that all refuse who are there: what they say, sealed, by their names; for how long."""

    job_id: str
    said: Mapping[str, bytes]
    for_s: float


def look(
    cursor: Any,
    rows: Rows,
    node: str,
    refused: Mapping[str, Failure],
    able: Collection[str],
    known: Known,
    patience_s: float,
) -> list[Found]:
    """Say what a node refuses; what changed by that. ``known``: a job as it was heard of last, so
    that those are left alone of which nothing new is to be said."""
    _say(cursor, rows, node, refused)
    found: list[Found | None] = []
    for stray in _strays(cursor):
        said = _opened(rows, stray)
        if not said:
            continue
        failure, record = Failure.of(told(said)), known(stray.job_id)
        if verdict(stray.said, stray.said, stray.for_s, patience_s) is Verdict.ENDS:
            found.append(_told(cursor, rows, known, stray.job_id, Failed(failure)))
        elif record is None or record.refused != failure:
            found.append(_told(cursor, rows, known, stray.job_id, Refused(failure)))
    for job_id in sorted(able):
        record = known(job_id)
        if record is not None and record.refused is not None:
            found.append(_told(cursor, rows, known, job_id, Refused()))
    return [one for one in found if one is not None]


def _say(cursor: Any, rows: Rows, node: str, refused: Mapping[str, Failure]) -> None:
    """All at once, so that nobody sees a node that has not looked yet."""
    cursor.execute(_HEARTBEAT, (node,))
    cursor.execute(
        "DELETE FROM vibevoice.refusals WHERE node = %s AND NOT job = ANY(%s)", (node, [*refused])
    )
    if refused:
        cursor.executemany(
            """INSERT INTO vibevoice.refusals AS known (job, node, code, failure)
                VALUES (%s, %s, %s, %s) ON CONFLICT (job, node) DO UPDATE
                SET code = excluded.code, failure = excluded.failure
                WHERE known.code <> excluded.code""",
            [
                (job_id, node, one.code, rows.sealed_refusal(job_id, node, one))
                for job_id, one in refused.items()
            ],
        )


def _strays(cursor: Any) -> list[_Stray]:
    """None where another is at it: nodes look often."""
    cursor.execute(
        "SELECT EXISTS (SELECT FROM vibevoice.refusals) AND pg_try_advisory_xact_lock(%s)", (LOCK,)
    )
    if not cursor.fetchone()[0]:
        return []
    values = {"alive_s": ALIVE_S, "lease_s": LEASE_S}
    cursor.execute(_EXPIRED, values)
    cursor.execute(_GONE, values)
    cursor.execute(_ALIVE, values)
    alive = {name for (name,) in cursor.fetchall()}
    cursor.execute(_SAID, values)
    by_job: dict[str, dict[str, bytes]] = {}
    for job_id, node, sealed in cursor.fetchall():
        if node in alive:
            by_job.setdefault(job_id, {})[node] = sealed
    strays = [job_id for job_id, said in by_job.items() if verdict(alive, said) is not Verdict.OPEN]
    cursor.execute("DELETE FROM vibevoice.strays WHERE NOT job = ANY(%s)", (strays,))
    cursor.execute(_STRAYS, {**values, "jobs": strays})
    return [_Stray(job_id, by_job[job_id], for_s) for job_id, for_s in cursor.fetchall()]


def _opened(rows: Rows, stray: _Stray) -> list[Failure]:
    try:
        return [rows.refusal(stray.job_id, node, one) for node, one in stray.said.items()]
    except (SealBroken, Unreadable) as error:
        log.error("what nodes say of job %s cannot be read: %s", stray.job_id, error)
        return []


def _told(cursor: Any, rows: Rows, known: Known, job_id: str, change: Change) -> Found | None:
    """Say something of a job that nobody has, and that who had it died, if so; None where somebody
    does."""
    locked = lock(cursor, rows, job_id)
    if locked is None:
        return None
    now, found, record = locked
    before = known(record.behind)
    waited = bool(record.behind) and not (before is not None and before.over)
    events = interrupted(record, now, waited)
    record = replayed(record, events)
    event = JobEvent(record.seq + 1, now, change)
    after = advance(record, event)
    if after is not record:
        events.append(event)
    if not events:
        return found
    keep(cursor, rows, job_id, events)
    cursor.execute(
        "UPDATE vibevoice.jobs SET state = %s, seq = %s WHERE id = %s",
        (after.state, after.seq, job_id),
    )
    waits = "" if after.over else WAITS
    cursor.execute(NOTIFY, (f"{job_id} {after.seq} {waits}",))
    return replace(found, events=(*found.events, *events), instead=True)
