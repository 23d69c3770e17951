"""Pages of a list of jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar import errors
from sidecar.jobs.record import JobRecord, JobState
from sidecar.speech.options import parse_whole

USUAL, MOST = 50, 500
"""Jobs on a page: some 400 bytes each."""


def page_of(
    jobs: Sequence[JobRecord], query: Mapping[str, str]
) -> tuple[Sequence[JobRecord], str | None]:
    """Those that a client asks for, oldest first, and the id to go on after; None at the end.

    ``query``: ``state`` (one, or several with commas), ``limit``, ``after`` (a job's id).

    Raises:
        errors.FieldInvalid: one of them means nothing.
    """
    states = _states(query.get("state", ""))
    limit = parse_whole("limit", query.get("limit"), 1, MOST) or USUAL
    if after := query.get("after"):
        ids = [job.id for job in jobs]
        if after not in ids:
            raise errors.FieldInvalid(
                "'after' is no job of yours, or one that was forgotten.",
                hint="Begin anew, without 'after'.",
            )
        jobs = jobs[ids.index(after) + 1 :]
    found = [job for job in jobs if not states or job.state in states]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def _states(given: str) -> set[JobState]:
    try:
        return {JobState(word.strip().lower()) for word in given.split(",") if word.strip()}
    except ValueError:
        raise errors.FieldInvalid(
            "'state' is none that a job can be in.", hint=f"Use some of: {', '.join(JobState)}."
        ) from None
