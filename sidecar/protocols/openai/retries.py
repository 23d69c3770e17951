"""Retries of a request: takeover of the abandoned job, and requests that wait for a full queue.

OpenAI's SDKs send a request again, from its beginning, after a timeout. So a job whose client
disconnected at its timeout is kept for a moment, and the same request takes it over. A request with
an `Idempotency-Key` does not depend on that: its job is kept like those of `/v1/jobs`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

from fastapi import Request

from sidecar.api.http.request_headers import is_peer_gone, request_digest
from sidecar.api.http.upload import Fields
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore, counted
from sidecar.cluster.front_queue import ClientTimeouts
from sidecar.errors import JobNotFound, QueueFull, UploadStalled
from sidecar.jobs.job_event_log import SubscriberTooSlow
from sidecar.jobs.job_record import JobRecord, JobState, apply_event
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import QueueReservation
from sidecar.jobs.submission import JobSubmissions
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service


class OpenAIKeptJob:
    """Job that is kept by its id, perhaps since an earlier request."""

    def __init__(self, service: Service, caller: Identity, record: JobRecord) -> None:
        self._service = service
        self._caller = caller
        self.record = record

    async def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """Yield the job as `Job.watched`."""
        yield self.record
        while not self.record.over:
            owned = self._service.owned
            with await owned.events(self._caller, self.record, self.record.seq) as events:
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
RETRY_GRACE_S = limit("openai_retry_grace", 30.0)
"""Time from a disconnect to the same request, in seconds: SDKs send it after 0.5 to 8 s, and its
upload follows."""
CROWDED_GRACE_S = limit("openai_crowded_grace", 10.0)
"""The same, in seconds, for a running job while others wait, unless its owner uploads a retry. The
SDKs retry within 8 s; a client that does not loses the engine."""
CROWDED_LOOK_S = 1.0
HELD_S = limit("openai_held", 30.0)
"""Time for which a request waits for a full queue, in seconds: proxies give up after a minute
without an answer."""
HELD_LOOK_S = 0.1
GONE_LOOK_S = 1.0
"""Interval in seconds of checks whether a waiting client has disconnected."""
MAX_HELD_OF_OWNER = 4
"""Maximum requests of one owner that wait for a full queue."""
DEFAULT_CLIENT_TIMEOUT_S = 600.0
"""Default timeout of the SDKs, in seconds; they send another one in a header."""
TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
RETRY_COUNT_HEADER = "x-stainless-retry-count"
DEFAULT_CLIENT_RETRIES = 2
CLOCK_TOLERANCE = 0.95
"""Factor on the client's timeout, because its clock may run slightly fast."""


@dataclass(frozen=True, slots=True)
class OpenAISentRequest:
    """Request of an owner: its fields, and a digest of the whole request if that is needed
    later."""

    owner: str
    fields: Fields
    digest: str = ""


@dataclass(slots=True)
class _OpenAIAbandonedJob:
    """Abandoned job; ``fd`` is its recording."""

    owner: str
    fields: Mapping[str, Any]
    fd: int
    job: Job
    timer: asyncio.TimerHandle | None = None


class OpenAILocalRetries:
    """Abandoned jobs of one service that wait for a retry of their request, which is compared with
    the recordings that the service has."""

    def __init__(self, crowded: Callable[[], bool] = lambda: False) -> None:
        """Create it; ``crowded``: returns whether jobs wait."""
        self._crowded = crowded
        self._left: list[_OpenAIAbandonedJob] = []
        self._coming = Counter[str]()
        """Retries in upload, by owner."""

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> OpenAISentRequest:
        """Return the request of a client that may send it again. A digest is computed only if a
        similar job was abandoned."""
        return OpenAISentRequest(owner, fields)

    def leave(self, sent: OpenAISentRequest, job: Job, cancel: Callable[[], None]) -> None:
        """Keep the job of a client that timed out. ``cancel`` it if the client does not retry
        within `RETRY_GRACE_S`, or sooner if others need the engine."""
        try:
            left = _OpenAIAbandonedJob(sent.owner, sent.fields, os.dup(job.source.fd), job)
        except ValueError:  # the job has just ended
            if not job.ended:
                cancel()
            return

        loop = asyncio.get_running_loop()
        until = loop.time() + RETRY_GRACE_S

        def look() -> None:
            running, coming = job.record.state is JobState.RUNNING, self._coming[sent.owner]
            if (running and not coming and self._crowded()) or loop.time() >= until:
                self._forget(left)
                cancel()
            else:
                left.timer = loop.call_later(CROWDED_LOOK_S, look)

        left.timer = loop.call_later(min(CROWDED_GRACE_S, RETRY_GRACE_S), look)
        self._left.append(left)

    async def take(self, sent: OpenAISentRequest, source: AudioSource) -> Job | None:
        """Return the job of an earlier try of the same request, or `None`. The job has its
        recording: ``source`` is closed."""
        owner, fields = sent.owner, sent.fields
        alike = [one for one in self._left if one.owner == owner and one.fields == fields]
        if not alike:
            return None
        wanted = await asyncio.to_thread(request_digest, fields, source.fd)
        for left in alike:
            if left not in self._left:  # its time has expired
                continue
            copy = os.dup(left.fd)
            try:
                found = await asyncio.to_thread(request_digest, fields, copy)
            finally:
                os.close(copy)
            if found == wanted and left in self._left:
                self._forget(left)
                source.close()
                return left.job
        return None

    def coming(self, owner: str) -> AbstractContextManager[None]:
        """Record for the block that an owner uploads a retry."""
        return counted(self._coming, owner)

    def awaits(self, owner: str) -> bool:
        """Return whether one more retry of an owner may take over an abandoned job."""
        return self._coming[owner] < sum(left.owner == owner for left in self._left)

    def _forget(self, left: _OpenAIAbandonedJob) -> None:
        if left.timer is not None:
            left.timer.cancel()
        self._left.remove(left)
        os.close(left.fd)


class OpenAISharedRetries:
    """The same for several services that share jobs: a retry may reach another service."""

    def __init__(self, timeouts: ClientTimeouts) -> None:
        self._timeouts = timeouts

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> OpenAISentRequest:
        """Return the request with its digest, which is computed now, because the recording leaves
        this service with the job."""
        return OpenAISentRequest(
            owner, fields, await asyncio.to_thread(request_digest, fields, source.fd)
        )

    def leave(self, sent: OpenAISentRequest, job: Job, cancel: Callable[[], None]) -> None:
        """Keep a job as `OpenAILocalRetries.leave`."""
        self._timeouts.leave(job, sent.digest, RETRY_GRACE_S)

    async def take(self, sent: OpenAISentRequest, source: AudioSource) -> Job | None:
        """Return a job as `OpenAILocalRetries.take`."""
        return await self._timeouts.take(sent.owner, sent.digest, source)

    def coming(self, owner: str) -> AbstractContextManager[None]:
        """Return a context that does nothing: all jobs are kept for `RETRY_GRACE_S`."""
        return nullcontext()

    def awaits(self, owner: str) -> bool:
        """Return False: abandoned jobs are in the database, and any service can take them over."""
        return False


OpenAIRetries: TypeAlias = OpenAILocalRetries | OpenAISharedRetries


class OpenAIQueueTurns:
    """Queue admission for clients that retry after a rejection (`Retry-After`).

    Their SDKs retry only twice. So a few requests of each owner are not refused at once: they wait
    here, with fair order between owners.
    """

    def __init__(self, submissions: JobSubmissions, retries: OpenAIRetries) -> None:
        self._submissions, self._retries = submissions, retries
        self._turn = FairOwnerSemaphore(1)
        self._held = Counter[str]()
        """Waiting requests, by owner."""

    async def place(
        self, request: Request, caller: Identity, key: str | None
    ) -> QueueReservation | None:
        """Return a reservation as `JobSubmissions.place`.

        Return `None` if the queue is full and the request is a retry that may take over an
        abandoned job, for which it needs no reservation.
        """
        try:
            return await self._submissions.place(caller, key)
        except QueueFull:
            if not retry_count(request):
                raise
            if key is None and self._retries.awaits(caller.owner):
                return None
            if self._held[caller.owner] >= MAX_HELD_OF_OWNER:
                raise
        with counted(self._held, caller.owner):
            waiting = asyncio.ensure_future(self._wait(caller, key))
            try:
                while not (await asyncio.wait([waiting], timeout=GONE_LOOK_S))[0]:
                    if is_peer_gone(request):
                        raise UploadStalled("The client hung up while it waited for a place.")
                return waiting.result()
            except BaseException:
                waiting.cancel()
                waiting.add_done_callback(_give_back)
                raise

    async def _wait(self, caller: Identity, key: str | None) -> QueueReservation:
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_S), self._turn.held(caller):
                while True:
                    if not self._submissions.full:
                        with suppress(QueueFull):  # another request was faster
                            return await self._submissions.place(caller, key)
                    await asyncio.sleep(HELD_LOOK_S)
        return await self._submissions.place(caller, key)


def _give_back(waiting: asyncio.Future[QueueReservation]) -> None:
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().release()


def retry_count(request: Request) -> int | None:
    """Return the number of retries of a request; `None` if its client does not send it."""
    said = request.headers.get(RETRY_COUNT_HEADER, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else None


def timed_out(request: Request, waited_s: float) -> bool:
    """Return whether a client that disconnected after ``waited_s`` did so by its timeout, and will
    send the request again."""
    count = retry_count(request)
    if count is None or count >= DEFAULT_CLIENT_RETRIES:
        return False
    said = next((value for name in TIMEOUT_HEADERS if (value := request.headers.get(name))), "")
    try:
        timeout_s = float(said) if said else DEFAULT_CLIENT_TIMEOUT_S
    except ValueError:
        return False
    return waited_s >= CLOCK_TOLERANCE * timeout_s
