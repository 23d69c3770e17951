"""One engine in its slot, and what each job of it gets: a precision, a memory plan, company.

`gpu_memory.admission` decides on snapshots, which the engine's lodging takes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import islice

from sidecar.config.settings import Settings
from sidecar.gpu_memory.admission import Memory
from sidecar.gpu_memory.forecast import Forecast
from sidecar.interfaces.engine import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs.job import Job
from sidecar.jobs.pace import LEAST_S
from sidecar.jobs.record import JobRecord
from sidecar.workers.engine_host import Lodging
from sidecar.workers.slot import EngineSlot

IN_STEP_S = 120.0
"""Longer recordings take their turns: who waits behind one learns when it begins."""
SENT_TOGETHER_S = 900.0
"""The same where others hear: a few of them keep several servers at work, and memory small."""


class Provision:
    """What each job of the engine in a ``lodging`` gets."""

    def __init__(self, settings: Settings, lodging: Lodging[EngineSpec, EngineSlot]) -> None:
        self._settings = settings
        self._lodging = lodging
        self._admission = lodging.admission
        self.spec, self.slot = lodging.spec, lodging.slot

    @property
    def lead_s(self) -> float:
        """So long before a job is likely to end the next may be handed to the engine (`JobQueue`);
        nobody can tell that more exactly. Never where a plan is made of the memory that is free
        when a job begins, nor where it would not wait there for the one before."""
        return LEAST_S if self._admission is None and self.slot.follows else 0.0

    def admitted(self, options: TranscribeOptions, audio_s: float | None) -> TranscribeOptions:
        """The options with a precision that fits; refuses what does not, before any work."""
        if self._admission is None:
            return options
        now = self._lodging.memory_now()
        precision = self._suited(options, audio_s, now)
        self._admission.planned(precision, audio_s, options, now)
        if options.precision is Precision.AUTO and precision is not self.slot.precision:
            return dataclasses.replace(options, precision=precision)
        return options

    def plan(self, job: Job, precision: Precision) -> TranscribeOptions:
        """The job's options with the plan for the memory that is there when it begins."""
        if self._admission is None:
            return job.options
        now, audio_s = self._lodging.memory_now(), job.facts.total_s
        options = self._admission.planned(precision, audio_s, job.options, now)
        self._lodging.expects(self._admission.peak_bytes(precision, audio_s, options))
        return options

    def guess(self, job: Job, precision: Precision) -> float | None:
        """Seconds of work of a job, as the plan for it says; None where nobody can tell."""
        if self._admission is None:
            return None
        now = self._lodging.memory_now()
        return self._admission.estimate(precision, job.facts.total_s, job.options, now)[0].seconds

    def company(self, waiting: Iterator[Job], precision: Precision) -> Sequence[Job]:
        """The first of the jobs, and those that can be heard in step with it: short ones, as many
        as there is memory for; none that leaves its words to chance.

        The rows of others change the last digits of its own, and a draw hangs on them.
        """
        due = next(waiting)
        most = 1 if precision is Precision.FP16 else self.beside(due)  # that may have to be widened
        if most < 2:
            return [due]
        others = filter(self._is_sociable, waiting)
        jobs = [due, *islice(others, most - 1)]
        if self._admission is not None:
            now = self._lodging.memory_now()
            recordings = [(job.facts.total_s or 0.0, job.options) for job in jobs]
            while len(jobs) > 1 and not self._admission.fits_together(
                precision, recordings[: len(jobs)], now
            ):
                jobs.pop()
        return jobs

    def beside(self, job: Job | JobRecord) -> int:
        """How many at most are heard in step where this job is one of them, by its length and its
        wishes."""
        pays = self._lodging.on_gpu or self.spec.remote
        most = self._settings.batch or (self.spec.together if pays else 1)
        return min(most, self.spec.together) if self._is_sociable(job) else 1

    def _is_sociable(self, job: Job | JobRecord) -> bool:
        length_s = job.facts.total_s or math.inf
        if self.spec.remote:
            return length_s <= SENT_TOGETHER_S
        return length_s <= IN_STEP_S and not job.options.temperature

    def forecast(self, audio_s: float | None, options: TranscribeOptions) -> Forecast:
        """Whether a recording of ``audio_s`` seconds fits, and how long it takes, from memory.

        Where nobody knows how long it is, it is taken for one of usual length.
        """
        if self._admission is None:
            precision = self.spec.resolve_precision(options.precision)
            return Forecast.small(
                self.spec, precision, audio_s, self._settings.max_audio_hours * 3600
            )
        now = self._lodging.memory_now()
        precision = self._suited(options, audio_s, now)
        return Forecast.planned(
            audio_s, *self._admission.estimate(precision, audio_s, options, now)
        )

    def _suited(self, options: TranscribeOptions, audio_s: float | None, now: Memory) -> Precision:
        """The precision for a job that came now: what it asks for, or what fits."""
        assert self._admission is not None
        precision = self.slot.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return self._admission.fitting_precision(precision, audio_s, options, now)
        return precision
