"""Retries of a request: what tells them, what waits for a full queue, and kept jobs.

OpenAI's SDKs send a request again, from its beginning, after a timeout. So a job whose client
disconnected at its timeout is left to the same request (`SubmissionQueue.leave`). A request with an
`Idempotency-Key` does not depend on that: its job is kept like those of `/v1/jobs`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from fastapi import Request

from sidecar.api.http.request_headers import is_peer_gone
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore, counted
from sidecar.errors import JobNotFound, JobsLimited, QueueFull, UploadStalled
from sidecar.jobs.job_event_log import SubscriberTooSlow
from sidecar.jobs.job_queue import SubmissionQueue
from sidecar.jobs.job_record import JobRecord, apply_event
from sidecar.jobs.reservations import Reservation
from sidecar.jobs.submission import JobSubmissions
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service

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
                            if not batch:
                                yield None
                            for event in batch:
                                self.record = apply_event(self.record, event)
                                yield self.record
                except SubscriberTooSlow:
                    continue
            if not self.record.over:  # it was deleted
                raise JobNotFound()


class OpenAIQueueTurns:
    """Queue admission for clients that retry after a rejection (`Retry-After`).

    Their SDKs retry only twice. So a few requests of each owner are not refused at once: they wait
    here, with fair order between owners.
    """

    def __init__(
        self,
        submissions: JobSubmissions,
        queue: SubmissionQueue,
        *,
        held_s: float = HELD_S,
        held_poll_s: float = HELD_POLL_S,
    ) -> None:
        self._submissions, self._queue = submissions, queue
        self._held_s, self._held_poll_s = held_s, held_poll_s
        self._turn = FairOwnerSemaphore(1)
        self._held = Counter[str]()
        """Waiting requests, by owner."""

    async def reserve(
        self, request: Request, identity: Identity, key: str | None
    ) -> Reservation | None:
        """Return a reservation as `JobSubmissions.reserve_unless_known`.

        Return `None` if there is no place for the request, and it may take over a job that its
        owner left, for which it needs none.
        """
        try:
            return await self._submissions.reserve_unless_known(identity, key)
        except (QueueFull, JobsLimited) as error:
            count = retry_count(request)
            may_return = count is not None and key is None
            if may_return and await self._queue.has_left(identity.owner):
                return None
            may_wait = count and self._held[identity.owner] < MAX_HELD_OF_OWNER
            if isinstance(error, JobsLimited) or not may_wait:
                raise
        with counted(self._held, identity.owner), suppress(TimeoutError):
            async with asyncio.timeout(self._held_s), self._turn.held(identity):
                while not is_peer_gone(request):
                    if not self._submissions.full:
                        with suppress(QueueFull):  # another request was faster
                            return await self._submissions.reserve_unless_known(identity, key)
                    await asyncio.sleep(self._held_poll_s)
                raise UploadStalled("The client hung up while it waited for a place.")
        return await self._submissions.reserve_unless_known(identity, key)


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
