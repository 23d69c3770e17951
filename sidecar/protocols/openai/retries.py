"""A request that its client sends again because it took too long.

OpenAI's SDKs do that, from its beginning. So a job whose client hung up just then is kept for a
moment, and the same request takes it over. A request with an `Idempotency-Key` needs no luck: its
job is kept as those of `/v1/jobs` are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request

from sidecar.api.http.bodies import Fields
from sidecar.api.http.idempotency import digest
from sidecar.audio.source import AudioSource
from sidecar.background import Background
from sidecar.cluster.client_timeouts import ClientTimeouts
from sidecar.jobs.job import Job

GRACE_S = 30.0
"""From a hang-up to the same request: half a second to eight until it is sent, and its upload."""
USUAL_TIMEOUT_S = 600.0
"""Of the SDKs, which name another in a header."""
TIMEOUTS = ("x-stainless-read-timeout", "x-stainless-timeout")
RETRIES = "x-stainless-retry-count"
USUAL_RETRIES = 2
EARLY = 0.95
"""A clock of another process may be a little ahead of ours."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an owner sent: fields, and a digest of all of it where that is needed later."""

    owner: str
    fields: Fields
    digest: str = ""


class Retries(Protocol):
    """Jobs that wait for a request to be sent again."""

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> Sent:
        """What is sent, by a client that may send it again."""
        ...

    def leave(self, sent: Sent, job: Job, cancel: Callable[[], None]) -> None:
        """The client of a job timed out; nobody who comes back within `GRACE_S` ends it."""
        ...

    async def take(self, sent: Sent, source: AudioSource) -> Job | None:
        """The job that the same request began, which has its recording: ``source`` is closed."""
        ...


@dataclass(slots=True)
class _Left:
    """A job whose client may come back; ``fd`` is its recording."""

    owner: str
    fields: Mapping[str, Any]
    fd: int
    job: Job
    timer: asyncio.TimerHandle | None = None


class OwnRetries:
    """`Retries` of one service, which compares what is sent with the recordings that it has."""

    def __init__(self) -> None:
        self._left: list[_Left] = []

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> Sent:
        """As `Retries.sent`; what it is, is only told where one like it was left."""
        return Sent(owner, fields)

    def leave(self, sent: Sent, job: Job, cancel: Callable[[], None]) -> None:
        """As `Retries.leave`."""
        try:
            left = _Left(sent.owner, sent.fields, os.dup(job.source.fd), job)
        except ValueError:  # it has just ended
            if not job.ended:
                cancel()
            return

        def give_up() -> None:
            self._forget(left)
            cancel()

        left.timer = asyncio.get_running_loop().call_later(GRACE_S, give_up)
        self._left.append(left)

    async def take(self, sent: Sent, source: AudioSource) -> Job | None:
        """As `Retries.take`."""
        owner, fields = sent.owner, sent.fields
        alike = [one for one in self._left if one.owner == owner and one.fields == fields]
        if not alike:
            return None
        wanted = await asyncio.to_thread(digest, fields, source.fd)
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
                source.close()
                return left.job
        return None

    def _forget(self, left: _Left) -> None:
        if left.timer is not None:
            left.timer.cancel()
        self._left.remove(left)
        os.close(left.fd)


class SharedRetries:
    """`Retries` where other services may be asked next, and have the same jobs."""

    def __init__(self, timeouts: ClientTimeouts) -> None:
        self._timeouts, self._leaving = timeouts, Background()

    async def sent(self, owner: str, fields: Fields, source: AudioSource) -> Sent:
        """As `Retries.sent`; the recording is in others' hands once there is a job."""
        return Sent(owner, fields, await asyncio.to_thread(digest, fields, source.fd))

    def leave(self, sent: Sent, job: Job, cancel: Callable[[], None]) -> None:
        """As `Retries.leave`; where no other can be told of it, it ends."""
        leaving = self._timeouts.leave(job, sent.digest, GRACE_S)
        self._leaving.spawn("leave a job", leaving)

    async def take(self, sent: Sent, source: AudioSource) -> Job | None:
        """As `Retries.take`."""
        return await self._timeouts.take(sent.owner, sent.digest, source)


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
