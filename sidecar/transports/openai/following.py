"""The job of a request: followed until it has ended, by whoever asked, or asks again.

A request that times out at its client is sent again by OpenAI's SDKs, from its beginning. So a job
whose client hung up just then is kept for a moment, and the same request takes it over. A request
with an `Idempotency-Key` needs no luck: its job is kept as those of `/v1/jobs` are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from fastapi import Request

from sidecar.access.identity import Identity
from sidecar.errors import JobNotFound
from sidecar.jobs.feed import Behind
from sidecar.jobs.job import Job
from sidecar.jobs.record import JobRecord, advance
from sidecar.service import Service
from sidecar.transports.http.idempotency import digest

GRACE_S = 30.0
"""From a hang-up to the same request: half a second to eight until it is sent, and its upload."""
USUAL_TIMEOUT_S = 600.0
"""Of the SDKs, which name another in a header."""
TIMEOUTS = ("x-stainless-read-timeout", "x-stainless-timeout")
RETRIES = "x-stainless-retry-count"
USUAL_RETRIES = 2
EARLY = 0.95
"""A clock of another process may be a little ahead of ours."""


class Running(Protocol):
    """A job that somebody follows."""

    record: JobRecord

    def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """What is known of it, now and after changes, until it has ended; None each time that
        nothing changed for so long."""
        ...


class Kept:
    """One that can be asked for by its id, perhaps since an earlier request."""

    def __init__(self, service: Service, caller: Identity, record: JobRecord) -> None:
        self._service = service
        self._caller = caller
        self.record = record

    async def watched(self, pause_s: float) -> AsyncGenerator[JobRecord | None, None]:
        """As those of a job that was just submitted."""
        yield self.record
        while not self.record.over:
            with self._service.owned.events(self._caller, self.record, self.record.seq) as events:
                try:
                    async with aclosing(events.batches(pause_s)) as batches:
                        async for batch in batches:
                            self.record = reduce(advance, batch, self.record)
                            yield self.record if batch else None
                except Behind:
                    continue
            if not self.record.over:  # it was forgotten
                raise JobNotFound()


@dataclass(slots=True)
class _Left:
    """A job whose client may come back; ``fd`` is its recording."""

    owner: str
    fields: Mapping[str, Any]
    fd: int
    job: Job
    timer: asyncio.TimerHandle | None = None


class Retries:
    """Jobs that wait for a request to be sent again."""

    def __init__(self) -> None:
        self._left: list[_Left] = []

    def leave(
        self, owner: str, fields: Mapping[str, Any], job: Job, cancel: Callable[[], None]
    ) -> None:
        """The client of a job timed out; nobody who comes back within `GRACE_S` ends it. One whose
        recording others have ends: they may be asked next, and know of no wait here."""
        try:
            left = _Left(owner, fields, os.dup(job.source.fd), job)
        except ValueError:  # it has just ended, or is worked on elsewhere
            if not job.ended:
                cancel()
            return

        def give_up() -> None:
            self._forget(left)
            cancel()

        left.timer = asyncio.get_running_loop().call_later(GRACE_S, give_up)
        self._left.append(left)

    async def take(self, owner: str, fields: Mapping[str, Any], fd: int) -> Job | None:
        """The job that the same request of an owner began."""
        alike = [one for one in self._left if one.owner == owner and one.fields == fields]
        if not alike:
            return None
        wanted = await asyncio.to_thread(digest, fields, fd)
        for left in alike:
            if left not in self._left:  # it was waited for long enough
                continue
            copy = os.dup(left.fd)
            try:
                found = await asyncio.to_thread(digest, fields, copy)
            finally:
                os.close(copy)
            if found == wanted and left in self._left:
                self._forget(left)
                return left.job
        return None

    def _forget(self, left: _Left) -> None:
        if left.timer is not None:
            left.timer.cancel()
        self._left.remove(left)
        os.close(left.fd)


def retries_of(request: Request) -> int | None:
    """How often a request was sent before; None where its client is none that says so."""
    said = request.headers.get(RETRIES, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else None


def timed_out(request: Request, waited_s: float) -> bool:
    """Whether a client that hung up after so long did so because it took too long for it, and is
    one that sends the request again."""
    count = retries_of(request)
    if count is None or count >= USUAL_RETRIES:
        return False
    said = next((value for name in TIMEOUTS if (value := request.headers.get(name))), "")
    try:
        timeout_s = float(said) if said else USUAL_TIMEOUT_S
    except ValueError:
        return False
    return waited_s >= EARLY * timeout_s
