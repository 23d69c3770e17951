"""What a service has to say of jobs, written in one transaction; several jobs' cost one journey."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.database.schema import CHANNEL, GONE, WAITS
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.events import JobEvent
from sidecar.jobs.order import Priority
from sidecar.jobs.postgres.deciding import Said, Standing, after
from sidecar.jobs.postgres.rows import Rows
from sidecar.jobs.record import ENDED, JobRecord, JobState

UNKNOWN_S = 60.0
"""So much work counts where nobody knows how long a recording is."""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', %s)"


@dataclass(frozen=True, slots=True)
class Part:
    """Something of one job. ``done``: called once it is written, and counts."""

    job_id: str
    done: Callable[[], None] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Add(Part):
    """A job that was submitted."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class Tell(Part):
    """What happened to it. ``worn``: events that lose something by it, as they are then;
    ``mark``: which this is, where it may have been written already."""

    said: Said
    worn: Sequence[JobEvent] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(6))


@dataclass(frozen=True, slots=True)
class Release(Part):
    """Whoever claimed it by this has it no more."""

    claim: str


@dataclass(frozen=True, slots=True)
class Forget(Part):
    """Nothing of it is kept."""


@dataclass(slots=True)
class Outcome:
    """What came of a batch. ``reload``: jobs of which the database has something else than was
    said; ``fenced``: claims that are another's now; ``taken``: jobs whose key is that of another,
    which is among those to reload; ``changed``: edits that came behind another's."""

    reload: set[str] = field(default_factory=set)
    fenced: set[tuple[str, str]] = field(default_factory=set)
    taken: dict[str, str] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    done: list[Callable[[], None]] = field(default_factory=list)


def write(cursor: Any, rows: Rows, parts: Sequence[Part], *, again: bool) -> Outcome:
    """Write it all; ``again``: some of it may be there already, nobody knows."""
    batch = _Batch(cursor, rows)
    return batch.written(_lasting(parts), again)


def _lasting(parts: Sequence[Part]) -> list[Part]:
    """Without what is forgotten by the end of it, and progress that is behind more of it."""
    gone = {part.job_id for part in parts if isinstance(part, Forget)}
    last = {part.job_id: part for part in parts if _fleeting(part)}
    return [
        part
        for part in parts
        if isinstance(part, Forget)
        or (part.job_id not in gone and (not _fleeting(part) or last[part.job_id] is part))
    ]


def _fleeting(part: Part) -> bool:
    return isinstance(part, Tell) and part.said.event.fleeting


class _Batch:
    """One transaction."""

    def __init__(self, cursor: Any, rows: Rows) -> None:
        self._cursor, self._rows = cursor, rows
        self._outcome = Outcome()
        self._events: list[tuple[object, ...]] = []
        self._worn: list[tuple[object, ...]] = []
        self._passed: set[str] = set()
        """Jobs with progress that is newer than what is kept of it."""

    def written(self, parts: Sequence[Part], again: bool) -> Outcome:
        """All of them."""
        self._forget([part for part in parts if isinstance(part, Forget)])
        self._add([part for part in parts if isinstance(part, Add)])
        had = self._had(parts) if again else set()
        more = [part for part in parts if isinstance(part, Tell | Release)]
        more = [part for part in more if part.job_id not in self._outcome.taken]
        before = self._standings({part.job_id for part in more})
        standings = dict(before)
        taking: set[str] = set()
        for part in more:
            standing = standings.get(part.job_id)
            if standing is None:
                continue
            if isinstance(part, Release):
                standings[part.job_id] = self._released(part, standing)
            elif part.mark not in had:
                standings[part.job_id] = self._told(part, standing)
                if part.said.takes and standings[part.job_id].claim == part.said.claim:
                    taking.add(part.job_id)
        self._keep(before, standings, taking)
        return self._outcome

    def _forget(self, parts: Sequence[Forget]) -> None:
        for part in parts:
            self._cursor.execute("DELETE FROM vibevoice.jobs WHERE id = %s", (part.job_id,))
            self._cursor.execute(NOTIFY, (f"{part.job_id} {GONE}",))
            self._done(part)

    def _add(self, parts: Sequence[Add]) -> None:
        for owner in sorted({part.record.owner for part in parts}):
            self._cursor.execute("SELECT vibevoice.joined(%s)", (owner,))
        for part in parts:
            self._added(part)

    def _added(self, part: Add) -> None:
        record = part.record
        name = record.key.name if record.key is not None else None
        self._cursor.execute(
            """INSERT INTO vibevoice.jobs (id, owner, submitted, idempotency_key, urgent, work_s)
                VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id""",
            (
                record.id,
                record.owner,
                self._rows.sealed_record(record),
                name,
                record.priority is Priority.INTERACTIVE,
                record.facts.total_s or UNKNOWN_S,
            ),
        )
        if self._cursor.fetchone() is not None:
            self._cursor.execute(NOTIFY, (f"{record.id} 0 {WAITS}",))
            self._done(part)
            return
        self._cursor.execute(
            """SELECT id FROM vibevoice.jobs
                WHERE id = %s OR (owner = %s AND idempotency_key = %s) ORDER BY id = %s DESC""",
            (record.id, record.owner, name, record.id),
        )
        (other,) = self._cursor.fetchone() or (None,)
        if other != record.id:
            self._outcome.taken[record.id] = other or ""
            self._outcome.reload |= {other} if other else set()

    def _had(self, parts: Iterable[Part]) -> set[str]:
        marks = {part.mark: part.job_id for part in parts if isinstance(part, Tell)}
        self._cursor.execute(
            "SELECT mark FROM vibevoice.events WHERE job = ANY(%s) AND mark = ANY(%s)",
            ([*set(marks.values())], [*marks]),
        )
        return {mark for (mark,) in self._cursor.fetchall()}

    def _standings(self, job_ids: Iterable[str]) -> dict[str, Standing]:
        """In one order for everybody, so that no two wait for each other."""
        self._cursor.execute(
            """SELECT id, state, seq, claim FROM vibevoice.jobs
                WHERE id = ANY(%s) ORDER BY id FOR UPDATE""",
            ([*job_ids],),
        )
        found = self._cursor.fetchall()
        return {one: Standing(JobState(state), seq, claim) for one, state, seq, claim in found}

    def _told(self, part: Tell, standing: Standing) -> Standing:
        said = part.said
        then = after(standing, said)
        if then is None:
            self._outcome.reload.add(part.job_id)
            if said.claim is not None:
                self._outcome.fenced.add((part.job_id, said.claim))
            elif not said.event.ends:
                self._outcome.changed.add(part.job_id)
            return standing
        if then.seq != said.event.seq or (said.claim is None and standing.seq != said.base):
            self._outcome.reload.add(part.job_id)  # there is more of it than was known here
        event = replace(said.event, seq=then.seq)
        sealed = self._rows.sealed_event(part.job_id, event)
        self._events.append((part.job_id, event.seq, event.at, event.fleeting, part.mark, sealed))
        for one in part.worn:
            self._worn.append((self._rows.sealed_event(part.job_id, one), part.job_id, one.seq))
        if event.fleeting:
            self._passed.add(part.job_id)
        self._done(part)
        return then

    def _released(self, part: Release, standing: Standing) -> Standing:
        if standing.claim != part.claim:
            return standing
        self._cursor.execute(
            """UPDATE vibevoice.shares SET had_s = had_s - charged_s FROM vibevoice.jobs
                WHERE shares.owner = jobs.owner AND id = %s""",
            (part.job_id,),
        )
        self._cursor.execute(
            "UPDATE vibevoice.jobs SET charged_s = 0 WHERE id = %s", (part.job_id,)
        )
        return replace(standing, claim=None)

    def _keep(
        self, before: dict[str, Standing], standings: dict[str, Standing], taking: set[str]
    ) -> None:
        if self._passed:
            self._cursor.execute(
                "DELETE FROM vibevoice.events WHERE job = ANY(%s) AND fleeting",
                ([*self._passed],),
            )
        if self._events:
            self._cursor.executemany(
                """INSERT INTO vibevoice.events (job, seq, at, fleeting, mark, change)
                    VALUES (%s, %s, %s, %s, %s, %s)""",
                self._events,
            )
        if self._worn:
            self._cursor.executemany(
                "UPDATE vibevoice.events SET change = %s WHERE job = %s AND seq = %s", self._worn
            )
        changed = {one: then for one, then in standings.items() if then != before[one]}
        for job_id, then in changed.items():
            self._cursor.execute(
                """UPDATE vibevoice.jobs SET state = %s, seq = %s, claim = %s,
                    leased_until = CASE WHEN %s THEN clock_timestamp() + make_interval(secs => %s)
                    ELSE leased_until END WHERE id = %s""",
                (then.state, then.seq, then.claim, job_id in taking, LEASE_S, job_id),
            )
            waits = WAITS if then.claim is None and then.state not in ENDED else ""
            self._cursor.execute(NOTIFY, (f"{job_id} {then.seq} {waits}",))

    def _done(self, part: Part) -> None:
        if part.done is not None:
            self._outcome.done.append(part.done)
