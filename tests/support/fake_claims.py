"""Shared jobs in memory, and claims of several nodes of one process on them: what a database does,
without one."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

from service_process import PATIENCE_S

from sidecar import clock, errors
from sidecar.jobs.job_engine import engine_refusal, unmet_needs
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    FailedChange,
    JobChange,
    JobEvent,
    JobFailure,
    JobRecord,
    JobState,
    ReportedChange,
    RequeuedChange,
    apply_event,
)
from sidecar.jobs.job_record import UnschedulableChange as Told
from sidecar.plugins.shared_jobs import claims
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities, needs_of_job

ANYTHING = NodeCapabilities(
    (
        *("engine:scripted", "language:*", "translate"),
        *("storage:folder", "storage:bucket", "long"),
    ),
    1e6,
)


def refusal_of(needs: Iterable[str], can: Collection[str]) -> errors.SidecarError | None:
    """Why an engine cannot do a job, with a hint."""
    return engine_refusal(needs, can, lambda tag: f"Nobody knows '{tag}'.")


def can_do(can: NodeCapabilities, job: JobRecord) -> bool:
    """Whether a node has what a job needs."""
    needs, lasts_s = needs_of_job(job)
    return not unmet_needs(needs, can.words) and lasts_s <= can.longest_s


@dataclass(frozen=True)
class PutOff:
    """Why a node left a job to others, when and for how long, and how often it did; ``final``: for
    as long as there are others."""

    failure: JobFailure
    at_s: float
    for_s: float
    tries: int
    final: bool


@dataclass
class Stored:
    """A job, all its events, and the claim on it."""

    submitted: JobRecord
    record: JobRecord
    events: list[JobEvent] = field(default_factory=list)
    node: FakeClaims | None = None
    token: str = ""
    reported: tuple[str, int] = ("", 0)
    """Token and last number of the last report."""
    refused_since: float = math.inf


class SharedJobs:
    """The jobs that all services share. ``lost``: what was reported without a claim."""

    def __init__(self) -> None:
        self.jobs: dict[str, Stored] = {}
        self.nodes: list[FakeClaims] = []
        self.lost: list[JobEvent] = []
        self.now_s = 0.0

    def now(self) -> float:
        """The time, which a test may set forward."""
        return self.now_s + time.monotonic()  # real time: rests are long, or the time is virtual

    def add(self, record: JobRecord) -> None:
        self.jobs[record.id] = Stored(record, record)
        self.tell_waiting()

    def get(self, job_id: str) -> JobRecord:
        return self.jobs[job_id].record

    def events(self, job_id: str) -> Sequence[JobEvent]:
        return self.jobs[job_id].events

    def all(self) -> list[JobRecord]:
        return [job.record for job in self.jobs.values()]

    @property
    def claimed(self) -> set[str]:
        return {job_id for job_id, job in self.jobs.items() if job.node is not None}

    def append(self, job_id: str, change: JobChange) -> JobRecord:
        """As a front or the expiry does it; what ends a job ends its claim."""
        job = self.jobs[job_id]
        event = JobEvent(job.record.seq + 1, clock.wall_time(), change)
        record = apply_event(job.record, event)
        if record is not job.record:
            job.record = record
            job.events.append(event)
        if record.over:
            self._tell_ended(job)
        return record

    def cancel(self, job_id: str) -> None:
        self.append(job_id, CancelledChange())

    def delete(self, job_id: str) -> None:
        self._tell_ended(self.jobs.pop(job_id))

    def lose(self, job_id: str) -> None:
        """Have a claim expire, without a word to its node."""
        job = self.jobs[job_id]
        job.node, job.token = None, ""
        self.append(job_id, RequeuedChange(CountsAs.DEATH))
        self.tell_waiting()

    def tell_waiting(self) -> None:
        for node in self.nodes:
            asyncio.get_running_loop().call_soon(node.tell_waiting)

    def _tell_ended(self, job: Stored) -> None:
        node, job.node, job.token = job.node, None, ""
        if node is not None and not node.deaf:
            asyncio.get_running_loop().call_soon(node.tell_ended, job.record.id)


class FakeClaims(claims.ClaimStore):
    """The jobs as one node sees them. ``can``: what it tells the others that it can do. ``down``:
    the database is away, and ``missed`` has the calls meanwhile. ``unanswered``: so many calls are
    carried out without an answer. ``deaf``: it is told of no end."""

    def __init__(self, shared: SharedJobs, *, works: bool = True) -> None:
        self.shared = shared
        self.down = self.deaf = False
        self.unanswered = 0
        self.calls: list[str] = []
        self.missed: list[str] = []
        self.claimed: list[str] = []
        self._claimed = asyncio.Event()
        self.reports: list[tuple[int, Sequence[JobEvent]]] = []
        self.put_offs: dict[str, PutOff] = {}
        self.can, self.asides, self.since_s = ANYTHING, 0, shared.now()
        self.tell_waiting: Callable[[], None] = lambda: None
        self.tell_ended: Callable[[str], None] = lambda job_id: None
        if works:
            shared.nodes.append(self)

    def leave(self) -> None:
        """This node is there no more."""
        self.shared.nodes.remove(self)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Give this node no job within this context."""
        self.asides += 1
        try:
            yield
        finally:
            self.asides -= 1
            self.tell_waiting()

    async def claim(self, token: str, offer: claims.ClaimPreferences) -> claims.Claim | None:
        self._reach("claim")
        job = self._of(token) or self._next(offer)
        if job is not None and job.token != token:
            job.node, job.token = self, token
            self.claimed.append(job.record.id)
            self._claimed.set()
        self._answer()
        if job is None:
            return None
        before = self.put_offs.get(job.record.id)
        tries = before.tries if before is not None else 0
        return claims.Claim(token, job.record, tries=tries, more=bool(self._waiting()))

    async def claims_until(self, condition: Callable[[], bool]) -> None:
        """Wait, from claim to claim, until ``condition`` is true: hours of virtual time are a few
        steps."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._claimed.clear()
                await self._claimed.wait()

    async def report(
        self, token: str, base: int, record: JobRecord, events: Sequence[JobEvent]
    ) -> bool:
        self._reach("report")
        self.reports.append((base, events))
        job = self.shared.jobs.get(record.id)
        if job is None or job.reported != (token, events[-1].seq):
            if job is None or job.token != token or job.record.seq != base:
                self.shared.lost += events
                if job is not None and job.token == token:
                    self.shared.lose(record.id)
                return False
            self._persist(job, record, events)
        self._answer()
        return True

    async def release(self, token: str) -> None:
        self._reach("release")
        if (job := self._of(token)) is not None:
            assert job.record.state is JobState.QUEUED, "it was not put back"
            job.node, job.token = None, ""
            self.shared.tell_waiting()
        self._answer()

    async def mine(self) -> frozenset[str]:
        self._reach("mine")
        return frozenset(job.token for job in self.shared.jobs.values() if job.node is self)

    async def put_off(
        self,
        token: str,
        job_id: str,
        error: errors.SidecarError,
        for_s: float,
        *,
        unable: bool = False,
    ) -> None:
        before = self.put_offs.get(job_id)
        tries = before.tries if before is not None else 0
        if self._of(token) is not None:
            final = claims.goes_last(error, unable=unable)
            self.put_offs[job_id] = PutOff(
                JobFailure.of(error), self.shared.now(), for_s, tries + 1, final
            )
        await self.release(token)

    async def end_unschedulable(
        self, patience_s: float, every_s: float = 0.0, most: int = claims.UNSCHEDULABLE_BATCH
    ) -> None:
        self._reach("end_unschedulable")
        for record in self._waiting():
            said = [node.why_not(record) for node in self.shared.nodes]
            refusals = [one for one in said if one is not None]
            all_refuse = bool(said) and len(refusals) == len(said)
            self._tell(self.shared.jobs[record.id], refusals if all_refuse else [], patience_s)

    def why_not(self, record: JobRecord) -> JobFailure | None:
        """Why this node cannot do a job now; None if it can."""
        if (error := self.can.refusal(*needs_of_job(record), refusal_of)) is not None:
            return JobFailure.of(error)
        put_off = self.put_offs.get(record.id)
        if put_off is None or not (put_off.for_s and (put_off.final or self.rests(record.id))):
            return None
        return put_off.failure

    def on_waiting(self, tell: Callable[[], None]) -> None:
        self.tell_waiting = tell

    def on_ended(self, tell: Callable[[str], None]) -> None:
        self.tell_ended = tell

    def _persist(self, job: Stored, record: JobRecord, events: Sequence[JobEvent]) -> None:
        assert reduce(apply_event, events, job.record) == record, (
            "it is not what its events make it"
        )
        job.events += events
        job.record, job.reported = record, (job.token, record.seq)
        if any(isinstance(one.change, ReportedChange) for one in events) and record.resume_points:
            for node in self.shared.nodes:
                node.put_offs.pop(record.id, None)
        if record.over:
            job.node, job.token = None, ""

    def _tell(self, job: Stored, refusals: Sequence[JobFailure], patience_s: float) -> None:
        if not refusals:
            job.refused_since = math.inf
            self.shared.append(job.record.id, Told(None))
            return
        job.refused_since = min(job.refused_since, self.shared.now())
        came_s = max(node.since_s for node in self.shared.nodes)
        failure = JobFailure.of(claims.unschedulable_error(refusals))
        ends = self.shared.now() - max(
            came_s, job.refused_since
        ) >= patience_s and claims.are_final(refusals)
        self.shared.append(job.record.id, FailedChange(failure) if ends else Told(failure))

    def _of(self, token: str) -> Stored | None:
        jobs = self.shared.jobs.values()
        return next((job for job in jobs if token and job.token == token), None)

    def _next(self, offer: claims.ClaimPreferences) -> Stored | None:
        """The oldest job of the owner that has the fewest claimed."""
        busy = Counter(self.shared.get(job_id).owner for job_id in self.shared.claimed)
        fit = [
            one
            for one in self._waiting()
            if can_do(offer.can, one)
            and not (offer.fresh and one.id in self.put_offs)
            and not self.rests(one.id)
            and not (self.final(one.id) and self._others(one))
            and not self.asides
        ]
        records = sorted(fit, key=lambda one: busy[one.owner])
        return self.shared.jobs[records[0].id] if records else None

    def _waiting(self) -> Sequence[JobRecord]:
        jobs = self.shared.jobs.values()
        return [
            job.record for job in jobs if job.record.state is JobState.QUEUED and job.node is None
        ]

    def rests(self, job_id: str) -> bool:
        """Whether this node leaves a job to others now."""
        put_off = self.put_offs.get(job_id)
        return put_off is not None and self.shared.now() < put_off.at_s + put_off.for_s

    def final(self, job_id: str) -> bool:
        return job_id in self.put_offs and self.put_offs[job_id].final

    def _others(self, job: JobRecord) -> bool:
        """Whether a node that is there may yet do a job; now, if this one can, too."""
        unable = self.put_offs[job.id].for_s > 0
        return any(
            can_do(node.can, job) and not node.final(job.id) and (unable or not node.rests(job.id))
            for node in self.shared.nodes
        )

    def _reach(self, call: str) -> None:
        if self.down:
            self.missed.append(call)
            raise errors.JournalUnreachable()
        self.calls.append(call)

    def _answer(self) -> None:
        if self.unanswered:
            self.unanswered -= 1
            raise errors.JournalUnreachable()
