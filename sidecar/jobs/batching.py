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
"""Longer recordings take their turns: who waits behind one learns when it begins."""
MAX_REMOTE_BATCHED_AUDIO_S = 900.0
"""The same where others hear: a few of them keep several servers at work, and memory small."""


class JobBatching:
    """Choice of the jobs that the engine of a ``host`` transcribes in one batch."""

    def __init__(self, settings: Settings, host: EngineHost[EngineSpec]) -> None:
        self._settings, self._lodging = settings, host
        self._spec, self._admission = host.spec, host.admission

    def company(self, waiting: Iterator[Job], precision: Precision) -> Sequence[Job]:
        """The first of the jobs, and those that can be heard in step with it: short ones, as many
        as there is memory for; none that leaves its words to chance.

        The rows of others change the last digits of its own, and a draw hangs on them.
        """
        due = next(waiting)
        most = 1 if precision is Precision.FP16 else self.beside(due)  # that may have to be widened
        if most < 2:
            return [due]
        others = filter(self._is_batch_engine, waiting)
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
        """Return how many recordings at most run in step with this job, by its length and its
        options."""
        return self.most_beside if self._is_batch_engine(job) else 1

    @property
    def most_beside(self) -> int:
        """Return how many jobs at most are heard in step."""
        pays = self._lodging.on_gpu or self._spec.remote
        most = self._settings.batch or (self._spec.together if pays else 1)
        return min(most, self._spec.together)

    def _is_batch_engine(self, job: Job | JobRecord) -> bool:
        length_s = job.facts.total_s or math.inf
        if self._spec.remote:
            return length_s <= MAX_REMOTE_BATCHED_AUDIO_S
        return length_s <= MAX_BATCHED_AUDIO_S and not job.options.temperature
