"""Opener of recordings: of jobs that wait, before their turn and beside the jobs that run.

Jobs of before the start come without an open recording, and after a fault of the storage a job's
own is closed: a disk or share that was away answers by the name again, but not by a descriptor of
before. Only those of the next jobs are opened: each takes a descriptor and, decrypted, space. One
that cannot be opened keeps no other job waiting.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.jobs.faults import LONGEST_PAUSES, fault_of, known_error
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.jobs.persistent_recordings import opening_timeout_s
from sidecar.jobs.wait_queue import QueueOptions, WaitQueue

log = logging.getLogger(__name__)


class RecordingOpener:
    """Opener of the recordings of the next jobs of a queue, as many as run at once."""

    def __init__(self, wait_queue: WaitQueue, options: QueueOptions) -> None:
        self._wait_queue, self._ahead = wait_queue, options.concurrency
        self._retry_s = options.fault_retry_s
        self.timeout_s: Callable[[JobRecord], float] = opening_timeout_s
        """Seconds for a recording, from which on others are opened beside it."""
        self._closed = set[Job]()
        """Jobs whose recordings are to be opened."""
        self._work: dict[Job, asyncio.Task[None]] = {}
        """Those whose recordings are being opened, or could not be a moment ago."""
        self._met: dict[Job, errors.SidecarError] = {}
        """Why the recordings of some of both cannot be opened now."""
        self._followed = set[Job]()
        """Those of all of them that have not ended."""

    @property
    def faults(self) -> Mapping[errors.Fault, errors.SidecarError]:
        """Return what keeps recordings from being opened now, and an error of each."""
        return {fault_of(error): error for error in self._met.values()}

    def add(self, job: Job) -> None:
        """Open the recording of a waiting job as soon as it is one of the next."""
        self._follow(job)
        self._closed.add(job)

    def renew(self, job: Job) -> None:
        """Close the recording of a waiting job, and open it anew when the job may be tried again,
        if it can be."""
        if job.ended or not job.reopens:
            return
        if (source := job.put_down()) is not None:
            source.close()
        self._follow(job)
        rest_s, job.not_before = job.not_before - time.monotonic(), math.inf
        self._work[job] = asyncio.get_running_loop().create_task(self._rest(job, rest_s))

    def remove(self, job: Job) -> None:
        """Leave the recording of a job closed."""
        self._followed.discard(job)
        self._closed.discard(job)
        self._met.pop(job, None)
        if (task := self._work.pop(job, None)) is not None:
            task.cancel()
        if job in self._wait_queue:
            self._wait_queue.leave(job)

    def _follow(self, job: Job) -> None:
        self._wait_queue.watch(self._open_next)
        if job not in self._followed:
            self._followed.add(job)
            job.when_over(partial(self.remove, job))

    def _open_next(self) -> None:
        opening = sum(job.not_before < math.inf for job in self._work)
        if not self._closed or opening >= self._ahead:
            return  # at once: a start adds thousands of jobs
        for job in [*islice(self._wait_queue.in_order(opened=False), self._ahead)]:
            if job in self._closed:
                self._closed.remove(job)
                self._work[job] = asyncio.get_running_loop().create_task(self._open(job))

    async def _open(self, job: Job) -> None:
        late = asyncio.get_running_loop().call_later(
            self.timeout_s(job.record), self._put_aside, job, errors.StorageUnreachable()
        )
        try:
            await job.open()
            del self._work[job]
            self._met.pop(job, None)
        except Exception as error:
            late.cancel()
            if (known := known_error(error)) is not error:
                log.exception("internal error while the recording of job %s was opened", job.id)
            self._put_aside(job, known)
            pause_s = backoff_s(job.vain_attempts, self._retry_s, LONGEST_PAUSES * self._retry_s)
            job.vain_attempts += 1
            await self._rest(job, pause_s)
        finally:
            late.cancel()
            job.not_before = 0.0
            self._wait_queue.changed()

    async def _rest(self, job: Job, pause_s: float) -> None:
        """Have the recording of a job opened after a pause."""
        await asyncio.sleep(pause_s)  # it ends here if the job has ended
        del self._work[job]
        self._closed.add(job)
        job.not_before = 0.0
        self._wait_queue.changed()

    def _put_aside(self, job: Job, error: errors.SidecarError) -> None:
        """Have a job wait, or end, because its recording cannot be opened."""
        told = error.code in (one.code for one in self._met.values())
        log.log(
            logging.DEBUG if told else logging.WARNING, "jobs wait until this is over: %s", error
        )
        self._met[job], job.not_before = error, math.inf
        job.not_opened(error)
        self._wait_queue.changed()
