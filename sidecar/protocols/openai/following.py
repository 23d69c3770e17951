"""The job of a request: followed until it has ended, by whoever asked, or asks again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import reduce
from typing import Protocol

from sidecar.auth.identity import Identity
from sidecar.errors import JobNotFound
from sidecar.jobs.feed import Behind
from sidecar.jobs.record import JobRecord, advance
from sidecar.service import Service


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
            owned = self._service.owned
            with await owned.events(self._caller, self.record, self.record.seq) as events:
                try:
                    async with aclosing(events.batches(pause_s)) as batches:
                        async for batch in batches:
                            self.record = reduce(advance, batch, self.record)
                            yield self.record if batch else None
                except Behind:
                    continue
            if not self.record.over:  # it was forgotten
                raise JobNotFound()
