"""Retries of a request: the job that its client left, taken over; requests that wait for room.

OpenAI's SDKs send a request again, from its beginning, after a time. So a job whose client hung up
just then is kept for a moment, and the same request takes it over. A request with an
`Idempotency-Key` needs no luck: its job is kept as those of `/v1/jobs` are.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from fastapi import Request

from sidecar.api.http.request_headers import is_peer_gone, request_digest
from sidecar.api.http.responses import Fields
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore
from sidecar.cluster.front_queue import ClientTimeouts
from sidecar.errors import JobNotFound, QueueFull, UploadStalled
from sidecar.jobs.job_event_log import SubscriberTooSlow
from sidecar.jobs.job_record import JobRecord, JobState, apply_event
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import QueueReservation
from sidecar.jobs.submission import JobSubmissions
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service


class OpenAIFollowedJob(Protocol):
    """Job with a client that follows it."""

    record: JobRecord

    def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """Yield the job, now and after changes, until it has ended; None each time that nothing
        changed for so long."""
        ...


class OpenAIKeptJob:
    """One that can be asked for by its id, perhaps since an earlier request."""

    def __init__(self, service: Service, caller: Identity, record: JobRecord) -> None:
        self._service = service
        self._caller = caller
        self.record = record

    async def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """As those of a job that was just submitted."""
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
            if not self.record.over:  # it was forgotten
                raise JobNotFound()


RETRY_GRACE_S = limit("openai_retry_grace", 30.0)
"""From a hang-up to the same request: half a second to eight until it is sent, and its upload."""
CROWDED_GRACE_S = limit("openai_crowded_grace", 10.0)
"""The same for a job that runs while others wait, unless a retry of its owner is being uploaded:
the SDKs are back within eight seconds, and that of a client which is not has the engine no
longer."""
CROWDED_LOOK_S = 1.0
HELD_S = limit("openai_held", 30.0)
"""Proxies give up after a minute without an answer."""
HELD_LOOK_S = 0.1
GONE_LOOK_S = 1.0
"""Interval of looks whether a client that waits for a place has hung up."""
MAX_HELD_OF_OWNER = 4
"""Requests of one owner that wait for a place."""
DEFAULT_CLIENT_TIMEOUT_S = 600.0
"""Of the SDKs, which name another in a header."""
TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
RETRY_COUNT_HEADER = "x-stainless-retry-count"
DEFAULT_CLIENT_RETRIES = 2
CLOCK_TOLERANCE = 0.95
"""A clock of another process may be a little ahead of ours."""


@dataclass(frozen=True, slots=True)
class OpenAISentRequest:
    """Request of an owner: fields, and a digest of all of it if that is needed later."""

    owner: str
    fields: Fields
    digest: str = ""


class OpenAIRetries(Protocol):
    """Jobs that wait for a request to be sent again."""

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> OpenAISentRequest:
        """Return the request, of a client that may send it again."""
        ...

    def leave(self, sent: OpenAISentRequest, job: Job, cancel: Callable[[], None]) -> None:
        """The client of a job timed out; nobody who comes back within `RETRY_GRACE_S` ends it, or
        sooner if others need the engine."""
        ...

    async def take(self, sent: OpenAISentRequest, source: AudioSource) -> Job | None:
        """The job that the same request began, which has its recording: ``source`` is closed."""
        ...

    def coming(self, owner: str) -> AbstractContextManager[None]:
        """Note, as long as this lasts, that a retry of an owner is being uploaded."""
        ...

    def awaits(self, owner: str) -> bool:
        """Return whether one more retry of an owner may take over a job that was left here."""
        ...


@dataclass(slots=True)
class _OpenAIAbandonedJob:
    """A job whose client may come back; ``fd`` is its recording."""

    owner: str
    fields: Mapping[str, Any]
    fd: int
    job: Job
    timer: asyncio.TimerHandle | None = None


class OpenAILocalRetries:
    """`OpenAIRetries` of one service, which compares what is sent with the recordings that it
    has."""

    def __init__(self, crowded: Callable[[], bool] = lambda: False) -> None:
        """``crowded``: whether jobs wait."""
        self._crowded = crowded
        self._left: list[_OpenAIAbandonedJob] = []
        self._coming = Counter[str]()
        """Retries that are being uploaded, by owner."""

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> OpenAISentRequest:
        """As `OpenAIRetries.sent`; what it is, is only told where one like it was left."""
        return OpenAISentRequest(owner, fields)

    def leave(self, sent: OpenAISentRequest, job: Job, cancel: Callable[[], None]) -> None:
        """As `OpenAIRetries.leave`."""
        try:
            left = _OpenAIAbandonedJob(sent.owner, sent.fields, os.dup(job.source.fd), job)
        except ValueError:  # it has just ended
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
        """As `OpenAIRetries.take`."""
        owner, fields = sent.owner, sent.fields
        alike = [one for one in self._left if one.owner == owner and one.fields == fields]
        if not alike:
            return None
        wanted = await asyncio.to_thread(request_digest, fields, source.fd)
        for left in alike:
            if left not in self._left:  # it was waited for long enough
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

    @contextmanager
    def coming(self, owner: str) -> Iterator[None]:
        """As `OpenAIRetries.coming`."""
        self._coming[owner] += 1
        try:
            yield
        finally:
            self._coming[owner] -= 1
            self._coming += Counter()  # owners without any are forgotten

    def awaits(self, owner: str) -> bool:
        """As `OpenAIRetries.awaits`."""
        return self._coming[owner] < sum(left.owner == owner for left in self._left)

    def _forget(self, left: _OpenAIAbandonedJob) -> None:
        if left.timer is not None:
            left.timer.cancel()
        self._left.remove(left)
        os.close(left.fd)


class OpenAIQueueTurns:
    """Queue capacity for clients that retry after a rejection (`Retry-After`). Their SDKs do so
    twice; so a few of each owner are not refused at once, but wait here, owner by owner."""

    def __init__(self, submissions: JobSubmissions, retries: OpenAIRetries) -> None:
        self._submissions, self._retries = submissions, retries
        self._turn = FairOwnerSemaphore(1)
        self._held = Counter[str]()
        """Requests that wait, by owner."""

    async def place(
        self, request: Request, caller: Identity, key: str | None
    ) -> QueueReservation | None:
        """As `JobSubmissions.place`; None in a full queue for a retry that may take over a job that
        was left: if it does, it needs no place."""
        try:
            return await self._submissions.place(caller, key)
        except QueueFull:
            if not retry_count(request):
                raise
            if key is None and self._retries.awaits(caller.owner):
                return None
            if self._held[caller.owner] >= MAX_HELD_OF_OWNER:
                raise
        self._held[caller.owner] += 1
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
        finally:
            self._held[caller.owner] -= 1
            self._held += Counter()  # owners without any are forgotten

    async def _wait(self, caller: Identity, key: str | None) -> QueueReservation:
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_S), self._turn.held(caller):
                while True:
                    if not self._submissions.full:
                        with suppress(QueueFull):  # it was taken a moment ago
                            return await self._submissions.place(caller, key)
                    await asyncio.sleep(HELD_LOOK_S)
        return await self._submissions.place(caller, key)


def _give_back(waiting: asyncio.Future[QueueReservation]) -> None:
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().release()


class OpenAISharedRetries:
    """`OpenAIRetries` where other services may be asked next, and have the same jobs."""

    def __init__(self, timeouts: ClientTimeouts) -> None:
        self._timeouts = timeouts

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> OpenAISentRequest:
        """As `OpenAIRetries.sent`; the recording is in others' hands once there is a job."""
        return OpenAISentRequest(
            owner, fields, await asyncio.to_thread(request_digest, fields, source.fd)
        )

    def leave(self, sent: OpenAISentRequest, job: Job, cancel: Callable[[], None]) -> None:
        """As `OpenAIRetries.leave`."""
        self._timeouts.leave(job, sent.digest, RETRY_GRACE_S)

    async def take(self, sent: OpenAISentRequest, source: AudioSource) -> Job | None:
        """As `OpenAIRetries.take`."""
        return await self._timeouts.take(sent.owner, sent.digest, source)

    def coming(self, owner: str) -> AbstractContextManager[None]:
        """Return one that does nothing: all jobs are kept for `RETRY_GRACE_S`."""
        return nullcontext()

    def awaits(self, owner: str) -> bool:
        """Return False: jobs were left in the database, for any service's clients."""
        return False


def retry_count(request: Request) -> int | None:
    """Return the number of retries of a request; None if its client does not send it."""
    said = request.headers.get(RETRY_COUNT_HEADER, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else None


def timed_out(request: Request, waited_s: float) -> bool:
    """Return whether a client that hung up after so long did so because of its timeout, and is one
    that sends the request again."""
    count = retry_count(request)
    if count is None or count >= DEFAULT_CLIENT_RETRIES:
        return False
    said = next((value for name in TIMEOUT_HEADERS if (value := request.headers.get(name))), "")
    try:
        timeout_s = float(said) if said else DEFAULT_CLIENT_TIMEOUT_S
    except ValueError:
        return False
    return waited_s >= CLOCK_TOLERANCE * timeout_s
