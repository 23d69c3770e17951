"""One job for a request, however often it is sent: keys that clients choose (`Idempotency-Key`).

A key is its owner's, and counts as long as its job is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from sidecar import errors
from sidecar.jobs.record import JobRecord, RequestKey
from sidecar.jobs.store import JobStore


class Once:
    """Looks jobs up by the key that they came with."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Those of keys that somebody is submitting with."""

    async def knows(self, owner: str, name: str) -> bool:
        """Whether there is a job of this key."""
        return await self._store.by_key(owner, name) is not None

    @asynccontextmanager
    async def turn(self, owner: str, key: RequestKey) -> AsyncGenerator[JobRecord | None, None]:
        """While this lasts nobody else submits with the same key; the job that there is already.

        Raises:
            errors.IdempotencyKeyReused: it is that of another request.
        """
        lock = self._turns.setdefault((owner, key.name), asyncio.Lock())
        async with lock:
            yield await self.known(owner, key)

    async def known(self, owner: str, key: RequestKey) -> JobRecord | None:
        """The job of a request that came before.

        Raises:
            errors.IdempotencyKeyReused: it is that of another request.
        """
        known = await self._store.by_key(owner, key.name)
        if known is not None and known.key != key:
            raise errors.IdempotencyKeyReused()
        return known
