"""The jobs that clients may ask for: those on their way, and results until they are fetched.

A result stays for a time, and as long as those of its owner do not take more than their share.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable

from sidecar import errors
from sidecar.jobs.job import Job, JobState

JOB_BYTES = 16 << 10
"""Charged for each job beside its words: its options with a prompt, and a line of every list."""
SEGMENT_BYTES = 150
WORD_BYTES = 120
"""What a segment and a word take in memory beside their text (tracemalloc, CPython 3.11)."""
FEW_SEGMENTS = 50
"""Whose rendering takes about a millisecond, with words."""
FETCH_S = 2.0
"""How long a result can be fetched at least, also of a service that ends: clients look once a
second or more often."""


def weight(job: Job) -> int:
    """The bytes of memory that an ended job is charged for."""
    segments = job.segments
    words = [word for segment in segments for word in segment.words]
    texts = [*(one.text for one in segments), *(one.text for one in words)]
    text = sum(map(sys.getsizeof, texts))
    answer = len(job.answer) if job.answer is not None else 0
    return JOB_BYTES + SEGMENT_BYTES * len(segments) + WORD_BYTES * len(words) + text + answer


class JobStore:
    """Jobs by their id. Ended ones go after ``retention_s``, the oldest of an owner when all that
    he has weigh more than ``limit_bytes``; the last of each stays its time."""

    def __init__(self, retention_s: float, limit_bytes: int) -> None:
        self._retention_s = retention_s
        self._limit_bytes = limit_bytes
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, int] = {}
        """The weight of each job that has ended, in the order in which they did."""
        self._held: Counter[str] = Counter()
        self._rendering = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, job: Job) -> None:
        """Remember a job that is on its way."""
        self._jobs[job.id] = job
        job.when_ended(self._keep)

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            errors.JobNotFound: there is none, or no longer.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise errors.JobNotFound() from None

    def all(self) -> list[Job]:
        """All that are remembered, oldest first."""
        return list(self._jobs.values())

    async def answer(self, job: Job, render: Callable[[], bytes]) -> bytes:
        """What a wire makes of a job. Once it has ended that is kept, and was fetched."""
        if not job.ended:
            return await self._rendered(job, render)
        if job.answer is None:
            job.answer = await self._rendered(job, render)
            if job.id in self._ended:
                self._charge(job)
        job.fetched.set()
        return job.answer

    async def _rendered(self, job: Job, render: Callable[[], bytes]) -> bytes:
        """Long ones in a thread, and one at a time: a thread takes turns with the loop."""
        if len(job.segments) <= FEW_SEGMENTS:
            return render()
        async with self._rendering:
            if job.answer is not None:  # somebody else's question was first
                return job.answer
            return await asyncio.to_thread(render)

    async def all_fetched(self) -> None:
        """Wait until the results of the last seconds were fetched, `FETCH_S` from their end at
        most. Who was cancelled or put off by the end of the service has no result."""
        now = time.monotonic()

        async def fetched(job: Job) -> None:
            assert job.ended_at is not None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(job.ended_at + FETCH_S - now):
                    await job.fetched.wait()

        await asyncio.gather(*(fetched(self._jobs[one]) for one in self._ended if self._new(one)))

    def close(self) -> None:
        """Remember nothing more for a time."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _new(self, job_id: str) -> bool:
        """Whether somebody may still be on his way to fetch the result."""
        job = self._jobs[job_id]
        result = job.state is JobState.DONE or (
            job.state is JobState.FAILED and not isinstance(job.error, errors.ShuttingDown)
        )
        young = job.ended_at is not None and job.ended_at + FETCH_S > time.monotonic()
        return result and young and not job.fetched.is_set()

    def _keep(self, job: Job) -> None:
        """A job has ended: its time runs from here on."""
        self._ended[job.id] = 0
        self._charge(job)
        self._set_timer()

    def _charge(self, job: Job) -> None:
        """Take a job's weight into account, and make room for it."""
        now = weight(job)
        self._held[job.owner] += now - self._ended[job.id]
        self._ended[job.id] = now
        while self._held[job.owner] > self._limit_bytes:
            oldest = next(one for one in self._ended if self._jobs[one].owner == job.owner)
            if oldest == job.id:
                break
            self._forget(oldest)

    def _forget(self, job_id: str) -> None:
        self._held[self._jobs.pop(job_id).owner] -= self._ended.pop(job_id)

    def _forget_old(self) -> None:
        self._timer = None
        oldest_kept = time.monotonic() - self._retention_s
        for job_id in list(self._ended):
            ended_at = self._jobs[job_id].ended_at
            if ended_at is None or ended_at > oldest_kept:
                break
            self._forget(job_id)
        self._set_timer()

    def _set_timer(self) -> None:
        """Come back when the oldest has had its time."""
        if self._timer is not None or self._closed or not self._ended:
            return
        ended_at = self._jobs[next(iter(self._ended))].ended_at
        assert ended_at is not None
        wait_s = max(0.0, ended_at + self._retention_s - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._forget_old)
