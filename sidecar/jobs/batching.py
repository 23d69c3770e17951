"""Batching: jobs that an engine transcribes together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.workers.engine_host import EngineHost

MAX_BATCHED_AUDIO_S = 120.0
"""Longest recording of a batch. Longer ones run alone, so that a waiting
job's start is predictable."""
MAX_REMOTE_BATCHED_AUDIO_S = 900.0
"""The same for remote engines: a few recordings keep several servers
busy, and memory stays small."""


class JobBatching:
    """Choice of the jobs that the engine of a ``host`` transcribes in one batch."""

    def __init__(self, settings: Settings, host: EngineHost[EngineSpec]) -> None:
        self._settings, self._host = settings, host
        self._spec, self._admission = host.spec, host.admission

    def company(self, waiting: Iterator[Job], precision: Precision) -> Sequence[Job]:
        """Return the first job and those that are transcribed in one batch with it: short
        recordings, as many as fit in memory, none with a temperature on a local engine.

        Other rows of a batch change the last digits of a row's numbers, and these may change
        what is drawn.
        """
        due = next(waiting)
        most = 1 if precision is Precision.FP16 else self.beside(due)  # FP16 may have to be widened
        if most < 2:
            return [due]
        others = filter(self._is_batch_engine, waiting)
        jobs = [due, *islice(others, most - 1)]
        if self._admission is not None:
            now = self._host.memory_now()
            recordings = [(job.facts.total_s or 0.0, job.options) for job in jobs]
            while len(jobs) > 1 and not self._admission.fits_together(
                precision, recordings[: len(jobs)], now
            ):
                jobs.pop()
        return jobs

    def beside(self, job: Job | JobRecord) -> int:
        """Return how many recordings run at most in a batch with this job,
        by its length and options."""
        return self.most_beside if self._is_batch_engine(job) else 1

    @property
    def most_beside(self) -> int:
        """Return the largest batch of this engine."""
        pays = self._host.on_gpu or self._spec.remote
        most = self._settings.batch or (self._spec.together if pays else 1)
        return min(most, self._spec.together)

    def _is_batch_engine(self, job: Job | JobRecord) -> bool:
        length_s = job.facts.total_s or math.inf
        if self._spec.remote:
            return length_s <= MAX_REMOTE_BATCHED_AUDIO_S
        return length_s <= MAX_BATCHED_AUDIO_S and not job.options.temperature
