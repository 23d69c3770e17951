"""Verdicts of a node about waiting jobs: which it cannot do, and why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sidecar import errors
from sidecar.cluster.claims import Claims
from sidecar.jobs.events import Failure
from sidecar.jobs.record import JobRecord
from sidecar.storage.retrying import patiently

log = logging.getLogger(__name__)

# a memory plan takes milliseconds of the event loop
AT_ONCE = 20
"""Jobs that are judged at once."""


class Judging:
    """Judges jobs for one node."""

    def __init__(
        self,
        claims: Claims,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float,
    ) -> None:
        """``refusal``: why this node cannot do a job now; None if it can. ``patience_s``: seconds
        that a job waits which all nodes refuse."""
        self._claims, self._refusal, self._patience_s = claims, refusal, patience_s

    def failure(self, record: JobRecord) -> Failure | None:
        """Return why this node cannot do a job; None if it can."""
        try:
            error = self._refusal(record)
        except Exception:
            log.exception("job %s could not be judged", record.id)
            error = errors.SidecarError()
        return None if error is None else Failure.of(error)

    async def refuse(self, job_id: str, failure: Failure) -> None:
        """Persist that this node cannot do a job, however long the database is away."""
        await patiently(partial(self._claims.judge, {job_id: failure}))

    async def judge_waiting(self) -> None:
        """Judge the next jobs that no node is known to be able to do.

        Raises:
            errors.JournalUnreachable: the database is away.
        """
        if verdicts := await self._verdicts(await self._claims.unjudged(AT_ONCE)):
            await self._claims.judge(verdicts)

    async def end_unschedulable(self) -> None:
        """End jobs that all nodes have refused for long.

        Raises:
            errors.JournalUnreachable: the database is away.
        """
        await self._claims.end_unschedulable(self._patience_s)

    async def _verdicts(self, records: Sequence[JobRecord]) -> Mapping[str, Failure | None]:
        verdicts = dict[str, Failure | None]()
        for record in records:
            verdicts[record.id] = self.failure(record)
            await asyncio.sleep(0)  # each may take a while
        return verdicts
