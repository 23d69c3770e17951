"""Wait queue: waiting jobs, positions, what runs and for how long.

All dispatchers of an engine take jobs from one queue. A dispatcher is known by its number.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from sidecar import errors
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs import scheduler
from sidecar.jobs.duration_prediction import MIN_JOB_S, DurationPredictor, remaining_s
from sidecar.jobs.faults import RETRY_S, Breakers
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.workers.engine import Engine

POSITIONS_MAX_AGE_S = 1.0
"""Maximum age of cached positions and waits: to compute them takes a moment."""
LONG_AUDIO_S = 900.0
"""Recordings above this length may not take all dispatchers, so that short ones find one: two
minutes of work on a usual card."""


@dataclass(slots=True)
class RunningJob:
    """Running job of one dispatcher, which began at ``begun_at`` (`time.monotonic`). ``beside``:
    whether others ran at the same time. ``passed``: whether a job that needs the engine for itself
    waited then."""

    job: Job | None = None
    begun_at: float = 0.0
    beside: bool = False
    passed: bool = False


class QueuePosition(NamedTuple):
    """Queue position of a waiting job. ``position``: number of jobs before it; ``wait_s``:
    predicted."""

    position: int
    wait_s: float


def is_long(record: JobRecord) -> bool:
    """Return whether a job is long, with all channels; of an unknown length it may be."""
    return (record.audio_info.work_s or math.inf) > LONG_AUDIO_S


GuessJobSeconds = Callable[[Job, Precision], float | None]
"""Estimate of a job's seconds of work before anything was measured; None if unknown."""


RefuseJob = Callable[[TranscribeOptions], errors.SidecarError | None]
"""Return why the model of the moment cannot do what a job asks for; None if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """Options of a queue.

    ``plan``: completes the options of a job at its begin. ``max_s``: longest recording. ``limit``:
    jobs that may wait. ``concurrency``: jobs that run at once, each in a dispatcher;
    ``long_concurrency``: how many of them may be `is_long`. ``refusal``: why the model of the
    moment cannot do a job, which then waits for another. ``next_job_wait_s``: wait for a client's
    next recording before the engine is reloaded. ``fault_retry_s``: first pause after an error of
    what jobs need, such as a full disk.
    """

    plan: OptionsPlanner
    max_s: float
    limit: int
    concurrency: int = 1
    long_concurrency: int = 1
    guess: GuessJobSeconds = lambda job, precision: None
    predictor: DurationPredictor = field(default_factory=DurationPredictor)
    refusal: RefuseJob = lambda options: None
    next_job_wait_s: float = scheduler.NEXT_JOB_WAIT_S
    fault_retry_s: float = RETRY_S


class WaitQueue:
    """Jobs that wait for an engine, and the work that each owner has had."""

    def __init__(self, engine: Engine[EngineSpec], options: QueueOptions) -> None:
        self._engine, self._options = engine, options
        self._predictor = options.predictor
        self.breakers = Breakers(options.fault_retry_s)
        """Of what the jobs need."""
        self._loaded_at = engine.loader.loaded_at
        """End of the last load whose duration was learned, or of one before the queue."""
        self._running_jobs = [RunningJob() for _ in range(options.concurrency)]
        self._shares = scheduler.OwnerShares()
        self._jobs: dict[str, Job] = {}
        """By id, in order of arrival."""
        self._values: dict[str, scheduler.WaitingJob] = {}
        """Scheduling values of jobs, as precisions resolve now."""
        self._resolution = engine.resolution
        self._predicted: dict[str, float] = {}
        """Predicted seconds of work of each job that waits or runs."""
        self._positions: dict[str, QueuePosition] = {}
        self._positions_until = 0.0
        self._halted = False
        self._callbacks: dict[Callable[[], None], None] = {}
        self.breakers.on_close = self.changed

        engine.watch(self._model_changed)

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter([*self._jobs.values()])

    def __contains__(self, job: Job) -> bool:
        return job.id in self._jobs

    def get(self, job_id: str) -> Job | None:
        """Return the job with this id, if it waits."""
        return self._jobs.get(job_id)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when a job was added, removed, started or put back."""
        self._callbacks[callback] = None

    def wanted(self, job: Job) -> Precision:
        """Return the precision at which a job would run now."""
        return self._engine.resolve(job.record.options.precision, job.arrived_at)

    def join(self, job: Job) -> None:
        """Add a job."""
        if job.record.owner not in (one.record.owner for one in self._all()):
            self._shares = self._shares.joined(job.record.owner)
        wanted = self.wanted(job)
        guess_s = None if self._predictor.knows(wanted) else self._options.guess(job, wanted)
        self._predicted[job.id] = self._predictor.seconds(
            wanted, job.record.audio_info.work_s, guess_s
        )
        self._jobs[job.id] = job
        self.changed()

    def leave(self, job: Job) -> None:
        """Remove a waiting job that has ended."""
        self._remove(job)
        del self._predicted[job.id]
        self.changed()

    def begin(self, job: Job, at: int) -> None:
        """Move a job from the queue to a dispatcher, and charge its work to the owner."""
        active = {one.record.owner for one in self._all()}
        self._remove(job)
        if self.breakers.open:
            self.breakers.begin_try(kept=job.record.kept)
        work_s = self._predicted[job.id]
        self._shares = self._shares.charged(job.record.owner, work_s, active)
        others = [one for one in self._running_jobs if one.job is not None]
        for one in others:
            one.beside = True
        passed = any(self.alone(one.record) for one in self._jobs.values())
        self._running_jobs[at] = RunningJob(
            job, time.monotonic(), beside=bool(others), passed=passed
        )
        self.changed()

    def finish(self, job: Job, at: int) -> None:
        """Remove a job that runs no more, and settle what its owner was charged with the time for
        which it had the engine: predictions trust headers. A job that has not ended is queued
        again, and its owner has had what its attempt took. The duration of a load is learned."""
        if self._engine.loaded and self._engine.loader.loaded_at != self._loaded_at:
            self._loaded_at = self._engine.loader.loaded_at
            self._predictor.learn_load(self._engine.model.precision, self._engine.loader.load_s)
        self._running_jobs[at].job = None
        back_s = self._predicted[job.id] - job.worked_s
        if job.ended:
            # servers of others have their own speed; jobs that share a model slow each other down
            if self._engine.model.spec.remote or not self._running_jobs[at].beside:
                self._learn(job)
            del self._predicted[job.id]
        else:
            waiting = [job, *self._jobs.values()]
            self._jobs = {one.id: one for one in sorted(waiting, key=lambda one: one.arrived_at)}
            self.check_model(job)  # it was changed meanwhile
        self._shares = self._shares.refunded(job.record.owner, back_s)
        self.changed()

    def hold(self, job: Job, error: errors.SidecarError, vain_s: float) -> None:
        """Hold jobs after an attempt that met an error; the job itself for longer, at least for
        twice the time for which it kept the engine from others (``vain_s``)."""
        self.breakers.failed(error, kept=job.record.kept)
        job.vain_attempts += 1
        rest_s = max(self.breakers.rest_s(error, job.vain_attempts), 2 * vain_s)
        job.not_before = time.monotonic() + rest_s
        self.changed()

    def next_start_in_s(self, since: float) -> float | None:
        """Return the seconds until a job may start that was held ``since`` (`time.monotonic`, when
        the caller began to look); None if none was. One whose time has come meanwhile is due."""
        now = time.monotonic()
        times = (self._held_until(job) for job in self._jobs.values())
        known = (max(0.0, until - now) for until in times if since < until < math.inf)
        return min(known, default=None)

    def _held_until(self, job: Job) -> float:
        if not self.breakers.open:
            return job.not_before
        return max(job.not_before, self.breakers.held_until(kept=job.record.kept))

    def halt(self) -> None:
        """Start no more jobs: those that wait are left to the next start of the service."""
        self._halted = True

    def free(self) -> int:
        """Return the number of dispatchers at which a job could start now."""
        return sum(one.job is None for one in self._running_jobs)

    def due(self, at: int) -> Job | None:
        """Return the next job of a dispatcher, after free ones before it have taken theirs; None if
        they take all, the queue is halted, or one that needs the engine for itself runs or waits.
        While it waits, others pass it that end before those for which it waits."""
        before = sum(one.job is None for one in self._running_jobs[:at])
        long = self._options.long_concurrency - sum(is_long(job.record) for job in self._running())
        due = (
            job
            for job in self.in_order(before + 1)
            if job.source is not None and (not is_long(job.record) or (long := long - 1) >= 0)
        )
        first = [*islice(due, before + 1)]
        if len(first) <= before:
            return None
        running = [*self._running()]
        if not any(self.alone(one.record) for one in (*first, *running)):
            return first[before]
        if not (before or running):
            return first[0]
        if any(self.alone(one.record) for one in running):
            return None
        now, awaited = time.monotonic(), (one for one in self._running_jobs if not one.passed)
        left_s = max((self._open_in_s(one, now) for one in awaited if one.job), default=0.0)
        passing = (
            one
            for one in chain(first, due)
            if not self.alone(one.record) and self._takes_s(one) < left_s
        )
        return next(islice(passing, before, None), None)

    def alone(self, record: JobRecord) -> bool:
        """Return whether a job runs beside no other."""
        return record.ends_worker if self._engine.model.spec.remote else record.alone

    def in_order(self, dispatchers: int = 1, *, opened: bool = True) -> Iterator[Job]:
        """Yield waiting jobs in the order in which so many free ``dispatchers`` would run them, but
        not those that are held; each is computed as it is taken. Recordings that are not ``opened``
        wait for no breaker. While jobs are tried one by one, those come first that were tried in
        vain least often: they may not meet the fault."""
        jobs = [] if self._halted else [*self._jobs.values()]
        ordered: Iterable[Job] = jobs
        if len(jobs) > 1:
            schedule = self._schedule(time.monotonic(), [0.0] * dispatchers)
            ordered = (jobs[scheduled.index] for scheduled in schedule)
        if (self.breakers.open or self.breakers.crashes) and self.breakers.fresh_first:
            ordered = sorted(ordered, key=lambda job: job.vain_attempts)
        now = time.monotonic()
        return (
            job
            for job in ordered
            if (self._held_until(job) if opened else job.not_before) <= now
            and self._options.refusal(job.record.options) is None
        )

    def _model_changed(self) -> None:
        for job in self._jobs.values():
            self.check_model(job)
        self.changed()

    def check_model(self, job: Job) -> None:
        """Note whether a waiting job can run with the model of the moment."""
        error = self._options.refusal(job.record.options)
        if error is not None or job.record.refused is not None:
            job.refuse(error)

    def position(self, job_id: str) -> QueuePosition | None:
        """Return the position of a job; None if it does not wait."""
        return self._all_positions().get(job_id)

    def begun_in_s(self, count: int) -> float:
        """Predict the seconds until ``count`` jobs have started. Jobs beyond those that wait count
        with the mean work of the waiting ones."""
        waits_s = sorted(wait_s for _, wait_s in self._all_positions().values())
        if count <= len(waits_s):
            return waits_s[count - 1]
        takes_s = [self._takes_s(job) for job in self._jobs.values()]
        each_s = sum(takes_s) / len(takes_s) if takes_s else MIN_JOB_S
        last_s = waits_s[-1] if waits_s else 0.0
        return last_s + (count - len(waits_s)) * each_s / len(self._running_jobs)

    def _all_positions(self) -> Mapping[str, QueuePosition]:
        """Return the `position` of all waiting jobs, by id."""
        now = time.monotonic()
        if now >= self._positions_until:
            jobs = [*self._jobs.values()]
            takes_s = [self._takes_s(job) for job in jobs]
            busy_s = [self._open_in_s(one, now) for one in self._running_jobs]
            load_s = self._predictor.load_s(self._engine.coming.precision)
            found = self._schedule(now, busy_s, takes_s=takes_s, load_s=load_s)
            self._positions = {
                jobs[one.index].id: QueuePosition(n, one.wait_s) for n, one in enumerate(found)
            }
            self._positions_until = now + POSITIONS_MAX_AGE_S
        return self._positions

    def _open_in_s(self, running: RunningJob, now: float) -> float:
        """Return the seconds until a dispatcher could start a job, with the engine's load."""
        engine, job = self._engine, running.job
        if job is None or job.ended:
            return 0.0
        if not engine.loaded:
            load_s = self._predictor.load_s(engine.coming.precision)
            return load_s * (1.0 - (engine.loader.loading or 0.0)) + self._takes_s(job)
        elapsed_s = now - max(running.begun_at, engine.loader.loaded_at)
        return remaining_s(
            self._takes_s(job),
            elapsed_s,
            job.record.progress.fraction,
            job.record.progress.fraction_at(job.record.resumed_s) or 0.0,
        )

    def _schedule(
        self,
        now: float,
        busy_s: Sequence[float],
        *,
        takes_s: Sequence[float] | None = None,
        load_s: float = 0.0,
    ) -> Iterator[scheduler.ScheduledJob]:
        """Schedule all waiting jobs (`scheduler.schedule_jobs`)."""
        loaded = self._engine.model.precision if self._engine.loaded else None
        moment = scheduler.SchedulerMoment(now, loaded, self._engine.loader.loaded_at)
        values = self._waiting_jobs()
        return scheduler.schedule_jobs(
            values, self._shares, moment, takes_s=takes_s, busy_s=busy_s, load_s=load_s
        )

    def _waiting_jobs(self) -> list[scheduler.WaitingJob]:
        """Return the scheduling values of all waiting jobs; they are cached,
        since a position needs all."""
        if self._resolution != self._engine.resolution:
            self._resolution = self._engine.resolution
            self._values.clear()
        for job_id in self._jobs.keys() - self._values.keys():
            job, work_s = self._jobs[job_id], self._predicted[job_id]
            record, wanted = job.record, self.wanted(job)
            self._values[job_id] = scheduler.WaitingJob(
                record.owner, wanted, work_s, job.arrived_at, record.priority
            )
        return [self._values[job_id] for job_id in self._jobs]

    def _all(self) -> Iterator[Job]:
        return chain(self._jobs.values(), self._running())

    def _running(self) -> Iterator[Job]:
        return (one.job for one in self._running_jobs if one.job is not None)

    def _takes_s(self, job: Job) -> float:
        """Predict a job's seconds of work by what is known now. Shares of owners use the prediction
        at its arrival instead: a new one would change what an owner has had."""
        wanted, predicted_s = self.wanted(job), self._predicted[job.id]
        return self._predictor.seconds(wanted, job.record.audio_info.work_s, guess_s=predicted_s)

    def _learn(self, job: Job) -> None:
        record = job.record
        whole = not record.resumed_s  # not the end of another attempt's work
        # Nor of a recording some of whose channels needed no work.
        whole &= record.audio_info.channels == 1
        if whole and record.state is JobState.DONE and record.transcript is not None:
            done = record.transcript
            self._predictor.learn(done.precision, done.duration, record.processing_s)

    def _remove(self, job: Job) -> None:
        del self._jobs[job.id]
        self._values.pop(job.id, None)

    def changed(self) -> None:
        """Look at the queue anew."""
        self._positions_until = 0.0
        for callback in self._callbacks:
            callback()
