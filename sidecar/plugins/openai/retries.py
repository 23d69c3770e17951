"""Retries of a request: takeover of the abandoned job, and requests that wait for a full queue.

OpenAI's SDKs send a request again, from its beginning, after a timeout. So a job whose client
disconnected at its timeout is kept for a moment, and the same request takes it over. A request with
an `Idempotency-Key` does not depend on that: its job is kept like those of `/v1/jobs`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

from fastapi import Request

from sidecar.api.http.request_headers import is_peer_gone
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore, counted
from sidecar.errors import JobNotFound, QueueFull, UploadStalled
from sidecar.jobs.job_event_log import SubscriberTooSlow
from sidecar.jobs.job_record import JobRecord, JobState, apply_event
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import ClientTimeouts
from sidecar.jobs.reservations import Reservation
from sidecar.jobs.submission import JobSubmissions
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service

log = logging.getLogger(__name__)

RETRY_GRACE_S = limit("openai_retry_grace", 30.0)
"""Seconds from a disconnect to the same request: SDKs send it after 0.5 to 8 s."""
CROWDED_GRACE_S = limit("openai_crowded_grace", 10.0)
"""The same for a running job while others wait, unless its owner sends a retry."""
CROWDED_POLL_S = limit("openai_crowded_poll", 1.0)
HELD_S = limit("openai_held", 30.0)
"""Seconds that a request waits for a full queue: proxies give up after a minute."""
HELD_POLL_S = 0.1
MAX_HELD_OF_OWNER = 4
"""Maximum requests of one owner that wait for a full queue."""
DEFAULT_CLIENT_TIMEOUT_S = 600.0
"""Default timeout of the SDKs, in seconds; they send another one in a header."""
TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
RETRY_COUNT_HEADER = "x-stainless-retry-count"
DEFAULT_CLIENT_RETRIES = 2
CLOCK_TOLERANCE = 0.95
"""Factor on the client's timeout, because its clock may run slightly fast."""


@dataclass(eq=False, slots=True)
class OpenAIKeptJob:
    """Job that is kept by its id, perhaps since an earlier request."""

    service: Service
    identity: Identity
    record: JobRecord

    async def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """Yield the job as `Job.watched`."""
        yield self.record
        while not self.record.over:
            owned = self.service.owned
            with await owned.events(self.identity, self.record, self.record.seq) as events:
                try:
                    async with aclosing(events.batches(pause_s)) as batches:
                        async for batch in batches:
                            self.record = reduce(apply_event, batch, self.record)
                            yield self.record if batch else None
                except SubscriberTooSlow:
                    continue
            if not self.record.over:  # it was deleted
                raise JobNotFound()


OpenAIFollowedJob: TypeAlias = Job | OpenAIKeptJob
"""Job that a client follows."""


@dataclass(eq=False, slots=True)
class _OpenAIAbandonedJob:
    """Abandoned job, and the digest of its request. ``returning``: its owner sends a retry."""

    job: Job
    digest: str
    returning: bool = False


class OpenAIAbandonedJobs:
    """Jobs of clients that timed out, until the same request comes."""

    def __init__(
        self,
        timeouts: ClientTimeouts | None,
        crowded: Callable[[], bool],
        *,
        grace_s: float,
        crowded_grace_s: float,
        crowded_poll_s: float,
    ) -> None:
        """Create it; ``timeouts``: keeps them instead, if the retry may reach another service;
        ``crowded``: returns whether jobs wait. The times: as `RETRY_GRACE_S`, `CROWDED_GRACE_S` and
        `CROWDED_POLL_S`."""
        self._timeouts, self._crowded = timeouts, crowded
        self._grace_s = grace_s
        self._crowded_grace_s, self._crowded_poll_s = crowded_grace_s, crowded_poll_s
        self._jobs: list[_OpenAIAbandonedJob] = []

    def leave(self, job: Job, digest: str, cancel: Callable[[], None]) -> None:
        """Keep a job for the same request (``digest``). ``cancel`` it if that does not come within
        the time for it, or sooner if others need the engine and the owner sends no retry."""
        if self._timeouts is not None:
            self._timeouts.leave(job, digest, self._grace_s)
            return
        abandoned, loop = _OpenAIAbandonedJob(job, digest), asyncio.get_running_loop()
        until = loop.time() + self._grace_s

        def check() -> None:
            if abandoned not in self._jobs:  # its client has come back
                return
            running = job.state is JobState.RUNNING
            if (running and self._crowded() and not abandoned.returning) or loop.time() >= until:
                self._jobs.remove(abandoned)
                cancel()
            else:
                loop.call_later(self._crowded_poll_s, check)

        loop.call_later(min(self._crowded_grace_s, self._grace_s), check)
        self._jobs.append(abandoned)

    async def take(self, owner: str, digest: str, source: AudioSource) -> Job | None:
        """Return the job that the same request left, or `None`. The job has its own recording;
        ``source`` is closed then."""
        if self._timeouts is not None:
            return await self._timeouts.take(owner, digest, source)
        for abandoned in self._jobs:
            if (abandoned.job.record.owner, abandoned.digest) == (owner, digest):
                self._jobs.remove(abandoned)
                source.close()
                log.info("job %s is the answer to a retry of its request", abandoned.job.id)
                return abandoned.job
        return None

    def expect(self, owner: str) -> bool:
        """Record that an owner sends a retry. Return whether it may take over an abandoned job."""
        own_jobs = [abandoned for abandoned in self._jobs if abandoned.job.record.owner == owner]
        for abandoned in own_jobs:
            abandoned.returning = True
        return bool(own_jobs)


class OpenAIQueueTurns:
    """Queue admission for clients that retry after a rejection (`Retry-After`).

    Their SDKs retry only twice. So a few requests of each owner are not refused at once: they wait
    here, with fair order between owners.
    """

    def __init__(
        self,
        submissions: JobSubmissions,
        abandoned: OpenAIAbandonedJobs,
        *,
        held_s: float,
        held_poll_s: float = HELD_POLL_S,
    ) -> None:
        """Create it; the times: as `HELD_S` and `HELD_POLL_S`."""
        self._submissions, self._abandoned = submissions, abandoned
        self._held_s, self._held_poll_s = held_s, held_poll_s
        self._turn = FairOwnerSemaphore(1)
        self._held = Counter[str]()
        """Waiting requests, by owner."""

    async def reserve(
        self, request: Request, identity: Identity, key: str | None
    ) -> Reservation | None:
        """Return a reservation as `JobSubmissions.reserve_position`.

        Return `None` if the queue is full and the request is a retry that may take over an
        abandoned job, for which it needs no reservation.
        """
        again = bool(retry_count(request))
        returns = again and key is None and self._abandoned.expect(identity.owner)
        try:
            return await self._submissions.reserve_position(identity, key)
        except QueueFull:
            if returns:
                return None
            if not again or self._held[identity.owner] >= MAX_HELD_OF_OWNER:
                raise
        with counted(self._held, identity.owner), suppress(TimeoutError):
            async with asyncio.timeout(self._held_s), self._turn.held(identity):
                while not is_peer_gone(request):
                    if not self._submissions.full:
                        with suppress(QueueFull):  # another request was faster
                            return await self._submissions.reserve_position(identity, key)
                    await asyncio.sleep(self._held_poll_s)
                raise UploadStalled("The client hung up while it waited for a place.")
        return await self._submissions.reserve_position(identity, key)


def retry_count(request: Request) -> int | None:
    """Return the number of retries of a request; `None` if its client does not send it."""
    header = request.headers.get(RETRY_COUNT_HEADER, "")
    return int(header) if header.isascii() and header.isdigit() and len(header) < 4 else None


def timed_out(request: Request, waited_s: float) -> bool:
    """Return whether a client that disconnected after ``waited_s`` did so by its timeout, and will
    send the request again."""
    count = retry_count(request)
    if count is None or count >= DEFAULT_CLIENT_RETRIES:
        return False
    header = next((value for name in TIMEOUT_HEADERS if (value := request.headers.get(name))), "")
    try:
        timeout_s = float(header) if header else DEFAULT_CLIENT_TIMEOUT_S
    except ValueError:
        return False
    return timeout_s > 0 and waited_s >= CLOCK_TOLERANCE * timeout_s
