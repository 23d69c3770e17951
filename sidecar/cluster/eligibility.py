"""Eligibility of nodes for jobs, and unschedulable jobs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from sidecar import errors
from sidecar.jobs.job_backend import EngineProvisioning
from sidecar.jobs.job_record import JobFailure, JobRecord
from sidecar.storage.postgres_database import retry_while_unavailable
from sidecar.workers.engine_slot import EngineState

log = logging.getLogger(__name__)

LIVE_DECODER = "live"
"""Decoder of a recording that was transcribed in a live session: it cannot be opened again."""


def ineligibility(
    record: JobRecord, provision: EngineProvisioning, max_s: float
) -> errors.SidecarError | None:
    """Return why this node cannot do a job now; None if it can. ``max_s``: the longest recording
    that it accepts, in seconds."""
    spec, language, length_s = provision.spec, record.options.language, record.facts.total_s
    if provision.slot.state is EngineState.STUCK:
        return errors.EngineStuck()
    if record.facts.decoder == LIVE_DECODER:
        return errors.AudioLost("The live session of this job did not end.")
    if not spec.speaks(language):
        return errors.LanguageUnsupported(
            f"The engine '{spec.name}' does not support '{language}'.",
            hint=f"It supports: {', '.join(spec.languages)}.",
        )
    if length_s is not None and length_s > max_s:
        return errors.AudioTooLong(
            f"The recording has {length_s / 3600:.1f} h; the limit is {max_s / 3600:.1f} h."
        )
    try:
        provision.admitted(record.options, length_s)
    except errors.SidecarError as error:
        return error
    return None


def unschedulable_error(refusals: Sequence[JobFailure]) -> errors.Unschedulable:
    """Return the error of a job that all nodes refuse: each reason once, the most frequent first.
    Its hint is that of the most frequent reason."""
    by_code = Counter(one.code for one in refusals)
    one_of: Mapping[str, JobFailure] = {one.code: one for one in reversed(refusals)}
    parts = [
        f"{count} × {code} ({one_of[code].detail.rstrip('.')})"
        for code, count in by_code.most_common()
    ]
    single = len(refusals) == 1
    nodes = "The only node that is there" if single else f"None of {len(refusals)} nodes"
    cannot = "cannot do it" if single else "that are there can do it"
    hint = one_of[by_code.most_common(1)[0][0]].hint
    return errors.Unschedulable(
        f"{nodes} {cannot}: {', '.join(parts)}.",
        hint=f"{hint} Or start a node that can do it.".lstrip(),
    )


# A memory plan takes milliseconds of the event loop.
UNSCHEDULABLE_AFTER_S = 600.0
"""Seconds that a job waits while every available node refuses it. Time without any node does not
count. All services that share jobs must use the same value."""
UNSCHEDULABLE_CHECK_INTERVAL_S = 3.0
"""Seconds between two searches for unschedulable jobs, which read all refusals, by one node for
all."""
ELIGIBILITY_BATCH = 20
"""Jobs that are judged at once."""


class EligibilityStore(Protocol):
    """Verdicts of all nodes (`claims.ClaimStore`)."""

    async def judge(self, verdicts: Mapping[str, JobFailure | None]) -> None:
        """Persist this node's verdict on each job."""

    async def unjudged(self, most: int) -> Sequence[JobRecord]:
        """Return waiting jobs that no node is known to be able to run."""
        ...

    async def end_unschedulable(self, patience_s: float, every_s: float) -> None:
        """End the jobs that all nodes have refused for ``patience_s``."""


class EligibilityJudge:
    """Judge of the eligibility of one node for jobs."""

    def __init__(
        self,
        claims: EligibilityStore,
        refusal: Callable[[JobRecord], errors.SidecarError | None],
        patience_s: float = UNSCHEDULABLE_AFTER_S,
    ) -> None:
        """``refusal``: why this node cannot do a job now; None if it can. ``patience_s``: seconds
        that a job waits that all nodes refuse."""
        self._claims, self._refusal, self._patience_s = claims, refusal, patience_s

    def failure(self, record: JobRecord) -> JobFailure | None:
        """Return why this node cannot do a job; None if it can."""
        try:
            error = self._refusal(record)
        except Exception:
            log.exception(
                "internal error while the eligibility of job %s was determined", record.id
            )
            error = errors.SidecarError()
        return None if error is None else JobFailure.of(error)

    async def refuse(self, job_id: str, failure: JobFailure) -> None:
        """Persist that this node cannot do a job; retried while the database does not answer."""
        await retry_while_unavailable(partial(self._claims.judge, {job_id: failure}))

    async def judge_waiting(self) -> None:
        """Judge the next jobs that no node is known to be able to do.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        verdicts = dict[str, JobFailure | None]()
        for record in await self._claims.unjudged(ELIGIBILITY_BATCH):
            verdicts[record.id] = self.failure(record)
            await asyncio.sleep(0)  # each verdict may take a while
        if verdicts:
            await self._claims.judge(verdicts)

    async def end_unschedulable(self) -> None:
        """End jobs that all nodes have refused for ``patience_s``.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        await self._claims.end_unschedulable(self._patience_s, UNSCHEDULABLE_CHECK_INTERVAL_S)
