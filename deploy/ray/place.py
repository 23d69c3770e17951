"""A replica of a Ray Serve deployment as a place where recordings are heard (`workers.place`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import ray
from ray import exceptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.speech.engine import EngineSpec, Precision, TranscribeOptions
from sidecar.speech.transcript import Checkpoint, Event, from_wire, to_wire
from sidecar.workers.place import Unreachable, Wanted, WorkerDied

RESERVED_S = 30.0
"""So long a replica may take to say that it is there for a recording; after that another place, or
this one again, is tried, and no attempt is counted."""


class ReplicaPlace:
    """One of as many places as there are replicas, which take one recording at a time: Ray's router
    gives each call to one that is free. Which one that is stays Ray's."""

    def __init__(self, replicas: DeploymentHandle, spec: EngineSpec, precision: Precision) -> None:
        """``precision``: at which a replica starts, as the settings say it."""
        self._replicas = replicas
        self.spec = spec
        self.precision = spec.resolve_precision(precision)
        self.loaded, self.loading, self.awaited = True, None, False
        self.loaded_at, self.load_s = float("-inf"), 0.0

    @property
    def resolution(self) -> tuple[Precision, float]:
        """As `Place`."""
        return self.precision, self.loaded_at

    def resolve(self, wanted: Precision, since: float) -> Precision:
        """As `Place`."""
        return self.precision if wanted is Precision.AUTO else self.spec.resolve_precision(wanted)

    @asynccontextmanager
    async def lease(
        self, wanted: Precision, since: float, alone: bool
    ) -> AsyncIterator[ReplicaLease]:
        """As `Place`; a replica is reserved by the call itself, before it gets any audio."""
        self.precision = self.resolve(wanted, since)
        yield ReplicaLease(self._replicas, self.precision)


class ReplicaLease:
    """A call to a replica, to come."""

    def __init__(self, replicas: DeploymentHandle, precision: Precision) -> None:
        self._replicas = replicas.options(stream=True)
        self.precision = precision

    async def transcribe(
        self,
        source: AudioSource,
        facts: AudioFacts,
        options: TranscribeOptions,
        max_s: float,
        settled: Sequence[Checkpoint] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """As `Lease`. The recording lies in Ray's store meanwhile; who is free fetches it there."""
        sound = await asyncio.to_thread(_stored, source)
        asked = {
            "facts": facts.to_wire(),
            "options": options.to_wire(),
            "precision": self.precision.value,
            "max_s": max_s,
            "settled": None if settled is None else [to_wire(one) for one in settled],
        }
        stream = self._replicas.hear.remote(asked, [sound])  # in a list Ray does not fetch it
        reserved = False
        try:
            async with asyncio.timeout(RESERVED_S):
                await anext(stream)
            reserved = True
            async for told in stream:
                if "error" in told:
                    raise errors.from_wire(told["error"])
                yield from_wire(told["event"])
        except (exceptions.RayError, RayServeException, TimeoutError, StopAsyncIteration) as error:
            if reserved:
                raise WorkerDied(type(error).__name__) from None
            detail = "No replica has time." if isinstance(error, TimeoutError) else None
            raise Unreachable(errors.UpstreamUnreachable(detail)) from None
        finally:
            stream.cancel()

    async def transcribe_together(
        self, requests: Sequence[Wanted], max_s: float
    ) -> AsyncGenerator[tuple[int, Event | errors.SidecarError], None]:
        """As `Lease`, one after the other: the front has no card, and makes no companies."""
        for number, (source, facts, options) in enumerate(requests):
            async with aclosing(self.transcribe(source, facts, options, max_s)) as events:
                try:
                    async for event in events:
                        yield number, event
                except errors.SidecarError as error:
                    yield number, error

    def leave(self, number: int) -> None:
        """What is still told of it is dropped by who reads."""


def _stored(source: AudioSource) -> Any:
    size, at, parts = os.fstat(source.fd).st_size, 0, []
    while at < size and (part := os.pread(source.fd, min(size - at, 1 << 24), at)):
        parts.append(part)
        at += len(part)
    return ray.put(b"".join(parts))
