"""Jobs that several services share: who takes one in need not be who works on it.

A service that works claims a job when it is free for one, and has it as long as it says in time
that it is still there (a *lease*). Where it does not, another claims the job and goes on from what
is settled; what the first says of it from then on is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from sidecar.jobs.events import Failure
from sidecar.jobs.record import JobRecord

LEASE_S = 3.0
"""So long a job is a service's after it last said that it is there."""
BEAT_S = 1.0
"""So often it says so."""
TRIES = 2
"""So many services try a job that cannot be done where it was: the machine may be at fault."""


class Claims(Protocol):
    """The jobs of a shared store that wait, as a service sees them that works on some."""

    async def claim(self, takes: Callable[[JobRecord], bool]) -> JobRecord | None:
        """Have the job that is next of those that ``takes`` says yes to; None where there is none.
        Between owners it is fair over all services that claim. It is this service's until it ends,
        is given back, or its lease is over.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        ...

    async def beat(self) -> Collection[str]:
        """Say that this service is there; the ids of the jobs that it has no more, though it
        neither ended them nor gave them back: what runs of them is to stop, untold.

        Raises:
            errors.JournalUnreachable: nobody can be told. Who cannot say so for `LEASE_S` has no
                job any more.
        """
        ...

    async def give_back(self, job_id: str) -> None:
        """Let another have a job, from what is settled, and at once."""
        ...

    async def look(
        self,
        node_id: str,
        refused: Mapping[str, Failure],
        able: Collection[str],
        patience_s: float,
    ) -> None:
        """Say of this service, whose id as a node that is, which of the jobs that wait it cannot
        do, and why, and which it can. What all refuse who looked in the last `strays.ALIVE_S`, for
        ``patience_s``, ends (`jobs.strays`).

        Raises:
            errors.JournalUnreachable: nobody can be told.
        """
        ...

    async def leave(self, node_id: str) -> None:
        """Say that this service is no node any more: what it refused counts no longer.

        Raises:
            errors.JournalUnreachable: nobody can be told; it counts for `strays.ALIVE_S` more.
        """
        ...

    async def news(self) -> None:
        """Wait until there may be something to claim that was not there at the last claim."""
        ...
