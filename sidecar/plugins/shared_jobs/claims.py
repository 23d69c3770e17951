"""Claims on shared jobs, as one node makes and reports them.

A claim is the right of one node to run one job and to append to its events. It holds until the job
has ended, the node releases it, or the node expires. No other service appends to a claimed job,
except to end it, which ends the claim as well.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.errors import EngineCrashed, SidecarError, Unschedulable
from sidecar.jobs import job_record
from sidecar.jobs.faults import passes
from sidecar.jobs.job_record import JobEvent, JobFailure, JobRecord
from sidecar.jobs.reservations import outlasts_header
from sidecar.jobs.scheduler import MAX_PASSED_OVER_S
from sidecar.jobs.sqlite_event_log import UnreadableRecord
from sidecar.observability.health import outcome_of_error
from sidecar.observability.metrics import JobMetrics
from sidecar.plugins.shared_jobs import job_rows
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities, RefusalOf
from sidecar.plugins.shared_jobs.postgres_database import PostgresDatabase, Row
from sidecar.plugins.shared_jobs.shared_retention import SharedRetention
from sidecar.transcripts.transcript_formats import render_result

log = logging.getLogger(__name__)

UNREADABLE_REST_S = 30.0
"""Seconds for which a node leaves a job that it cannot read to others."""
UNSCHEDULABLE_BATCH = 1000
"""Refused jobs of one call: tenths of a second."""
WAITING, ENDED = "vibevoice_waiting", "vibevoice_ended"
"""Channels: a job may be claimed; a job was ended or deleted."""
PAGE_BYTES, PAGE_EVENTS = 1 << 20, 500
"""Events read at once: a recording of a day has 4,000 resume points with 110 MB of states."""
_PAGE = """
    SELECT job, seq, at, kind, change FROM (
        SELECT *, sum(size) OVER (ORDER BY seq) - size AS before FROM (
            SELECT job, seq, at, kind, coalesce(whole, change) AS change,
                coalesce(octet_length(coalesce(whole, change)), 0) AS size FROM vibevoice.events
            WHERE job = %s AND seq > %s AND seq <= %s ORDER BY seq LIMIT %s) following) sized
    WHERE before < %s ORDER BY seq"""
REFUSED_JOBS = """
    SELECT job, seq, needs, lasts_s, nodes, told, for_s >= %s, (
        SELECT coalesce(jsonb_object_agg(node, encode(failure, 'base64')), '{}')
        FROM vibevoice.put_offs p WHERE p.job = refused.job)
    FROM vibevoice.refused_1 refused WHERE NOT told OR for_s >= %s
    ORDER BY told, random() LIMIT %s"""
"""Jobs that no node can do, whether this was told, and whether they may end for it. In any order:
those that wait for a fault to be over must not hide others."""
_NODES = "SELECT id, can, longest_s FROM vibevoice.services WHERE id = ANY (%s)"


@dataclass(frozen=True, slots=True)
class Claim:
    """Claimed job. ``token``: of this claim, sent with every report. ``record``: the job at
    the claim. ``begins``: whether the claim counts as the start of an attempt. ``tries``: how often
    its node put it off. ``more``: whether other jobs may wait."""

    token: str
    record: JobRecord
    begins: bool = False
    tries: int = 0
    more: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class ClaimPreferences:
    """Preferences of a node: what it can do now, requested precisions that need no load now, and
    for how many seconds the loaded one has been loaded. ``loaded``: values of `Precision` as
    requested, for example ``{"auto", "fp16"}``; empty if nothing is loaded. ``begins``: whether an
    attempt of the job begins at once and alone, so that the claim counts as one if the node
    dies. ``fresh``: only jobs that the node has not left to others."""

    can: NodeCapabilities
    loaded: frozenset[str] = frozenset()
    loaded_for_s: float = 0.0
    begins: bool = False
    fresh: bool = False


class ClaimStore:
    """Shared jobs, as one node sees them.

    All methods but the ``on_*`` may be repeated, and raise `errors.JournalUnreachable` if the
    database does not answer.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        rows: job_rows.JobRows,
        node_id: str,
        retention: SharedRetention,
        metrics: JobMetrics,
        engine_refusal: RefusalOf,
    ) -> None:
        self._database, self._rows, self._node = database, rows, node_id
        self._retention, self._metrics = retention, metrics
        self._engine_refusal = engine_refusal

    async def claim(self, token: str, preferences: ClaimPreferences) -> Claim | None:
        """Claim the next job in fair order that this node can do and does not leave to others now.
        Return None if there is none. If the token has a claim already, return that one."""
        rows = await self._database.call(
            "claim_1",
            self._node,
            token,
            [*preferences.can.words],
            preferences.can.longest_s,
            [*preferences.loaded],
            preferences.loaded_for_s,
            MAX_PASSED_OVER_S,
            preferences.begins,
            preferences.fresh,
        )
        if not rows:
            return None
        job_id, seq, submitted, tries, more = rows[0]
        try:
            record = await self._replayed_to(self._rows.record(job_id, submitted), seq)
            return Claim(token, record, preferences.begins, tries, more)
        except UnreadableRecord as error:  # nodes of a later release may yet start
            job_rows.log_unreadable(job_id, error)
            reason = job_rows.unreadable_error(error)
        except Exception as error:
            log.warning("job %s is left to other nodes", job_id, exc_info=error)
            reason = job_rows.unreadable_error(error)
        await self.put_off(token, job_id, reason, UNREADABLE_REST_S)
        return None

    async def _replayed_to(self, record: JobRecord, last: int) -> JobRecord:
        """Return a job, as it was submitted, after its events up to the number ``last``.

        Raises:
            UnreadableRecord: an event is damaged, or of a later release.
            errors.JournalUnreachable: the database does not answer.
        """
        while record.seq < last:
            values = record.id, record.seq, last, PAGE_EVENTS, PAGE_BYTES
            rows = await self._database.fetch_events(_PAGE, values)
            if not rows:
                break

            def after(record: JobRecord = record, rows: Sequence[Row] = rows) -> JobRecord:
                return job_rows.replay_events(record, [self._rows.event(*row) for row in rows])

            long = sum(len(row[4] or b"") for row in rows) > job_rows.DECRYPT_IN_THREAD_BYTES
            record = await asyncio.to_thread(after) if long else after()
        return replace(record, seq=last)  # also if the last event changed nothing

    async def report(
        self, token: str, base: int, record: JobRecord, events: Sequence[JobEvent]
    ) -> bool:
        """Append events to a claimed job whose last event has the number ``base``.

        The numbers of ``events`` ascend, with gaps. ``record`` is the job after them: its state
        becomes the job's, and its end ends the claim. Return whether all is persisted, also for a
        repeated report; False if the claim is lost.
        """
        encrypted = await render_result(  # a whole transcript in a thread
            record.segments if record.over else (),
            lambda: [self._rows.encrypt_event(record.id, one.worn) for one in events],
        )
        ((persisted,),) = await self._database.call(
            "report_1",
            record.id,
            token,
            base,
            [one.seq for one in events],
            [one.at for one in events],
            [job_rows.event_kind(one.change) for one in events],
            encrypted,
            [
                None if one.worn is one else self._rows.encrypt_event(record.id, one)
                for one in events
            ],
            record.state.value,
            record.progress.fraction or 0.0,
            _worked_s(record),
            outlasts_header(record),
            self._rows.encrypt_summary(record),
            record.alone,
        )
        if persisted and record.over:
            self._retention.settle(record.owner)
        return bool(persisted)

    async def release(self, token: str) -> None:
        """Release a claimed job, in the state of its last report; other
        nodes may claim it at once."""
        await self._database.call("release_1", token)

    async def mine(self) -> frozenset[str]:
        """Return the tokens of all valid claims of this node."""
        rows = await self._database.fetch(
            "SELECT claim FROM vibevoice.jobs WHERE node = %s", (self._node,)
        )
        return frozenset(claim for (claim,) in rows)

    async def put_off(
        self,
        token: str,
        job_id: str,
        error: SidecarError,
        for_s: float,
        *,
        unable: bool = False,
    ) -> None:
        """Release a claimed job, and leave it to other nodes for ``for_s`` seconds because of an
        error; for as long as there are such nodes if it does not pass or this one was ``unable`` to
        do the job, or failed late in it. With 0 s this one can do it, too."""
        failure = JobFailure.of(error)
        refusal = self._rows.encrypt_failure(job_id, self._node, failure) if for_s else None
        last = goes_last(error, unable=unable)
        await self._database.call("put_off_1", token, for_s, last, refusal)

    async def end_unschedulable(
        self, patience_s: float, every_s: float = 0.0, most: int = UNSCHEDULABLE_BATCH
    ) -> None:
        """Mark each waiting job that no live node can do, and end it after ``patience_s``, unless
        one of them leaves it to others for a fault of its own or of the storage, which may be over
        in a moment.
        ``every_s``: not if another node did so in the last seconds. ``most``: jobs of this call."""
        if not await self._database.call("turn_1", "refused", every_s):
            return
        await self._database.call("tell_open_1")
        jobs = await self._database.fetch(REFUSED_JOBS, (patience_s, patience_s, most))
        nodes_there = {node for row in jobs for node in row[4]}
        rows = await self._database.fetch(_NODES, ([*nodes_there],)) if jobs else ()
        known = {node: NodeCapabilities(tuple(can), longest_s) for node, can, longest_s in rows}
        for job_id, seq, needs, lasts_s, nodes, told, late, refusals in jobs:
            try:
                failures = [
                    self._reason(known[node], needs, lasts_s)
                    or self._rows.failure(job_id, node, refusals[node])
                    for node in nodes
                ]
            except KeyError:  # a node has gone, or can do it now
                continue
            except UnreadableRecord as error:
                job_rows.log_unreadable(job_id, error)
                continue
            ends = late and are_final(failures)
            if told and not ends:
                continue
            failure = JobFailure.of(unschedulable_error(failures))
            kind = job_record.FailedChange if ends else job_record.UnschedulableChange
            encrypted_event = self._rows.encrypt_event(
                job_id, JobEvent(seq + 1, 0.0, kind(failure))
            )
            ((lasted_s,),) = await self._database.call(
                "tell_refused_1", job_id, seq, nodes, ends, encrypted_event
            )
            if lasted_s is not None:
                self._metrics.failed(failure.code, lasted_s, outcome_of_error(failure.error()))

    def _reason(
        self, node: NodeCapabilities, needs: Sequence[str], lasts_s: float
    ) -> JobFailure | None:
        error = node.refusal(needs, lasts_s, self._engine_refusal)
        return None if error is None else JobFailure.of(error)

    def on_waiting(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when there may be a job to claim."""
        self._database.listen(WAITING, lambda _: callback())

    def on_ended(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the id of each claimed job that another service ended or deleted;
        with "" if a notification may have been lost."""
        self._database.listen(ENDED, callback)


def _worked_s(record: JobRecord) -> float:
    """Return the seconds of audio that are recognized, in all channels, whatever the header of a
    recording says."""
    known = record.transcript.duration if record.transcript else record.progress.audio_s_done
    return known * record.audio_info.channels if 0 < known < math.inf else 0.0


def goes_last(error: SidecarError, *, unable: bool) -> bool:
    """Return whether a node that left a job to others for an error does it only if there are none.
    After a crash one more attempt there might end the job."""
    return unable or isinstance(error, EngineCrashed) or not passes(error)


def are_final(failures: Sequence[JobFailure]) -> bool:
    """Return whether no passing fault is among the reasons for which all nodes refuse a job."""
    return not any(passes(one.error()) for one in failures)


def unschedulable_error(failures: Sequence[JobFailure]) -> Unschedulable:
    """Return the error of a job that all nodes refuse: each reason once, the most frequent first.
    Its hint is that of the most frequent reason."""
    by_code = Counter(one.code for one in failures)
    one_of: Mapping[str, JobFailure] = {one.code: one for one in reversed(failures)}
    parts = [
        f"{count} × {code} ({one_of[code].detail.rstrip('.')})"
        for code, count in by_code.most_common()
    ]
    single = len(failures) == 1
    nodes = "The only node that is there" if single else f"None of {len(failures)} nodes"
    cannot = "cannot do it" if single else "that are there can do it"
    hint = one_of[by_code.most_common(1)[0][0]].hint
    return Unschedulable(
        f"{nodes} {cannot}: {', '.join(parts)}.",
        hint=f"{hint} Or start a node that can do it.".lstrip(),
    )
