"""Pages of a list of jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar import errors
from sidecar.interfaces.options import parse_whole
from sidecar.jobs.record import JobState

USUAL, MOST = 50, 500
"""Jobs on a page: some 400 bytes each."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a client asks for: at most ``limit`` jobs in some ``states`` (empty: in any), behind the
    job with the id ``after``."""

    states: frozenset[JobState]
    limit: int
    after: str | None


def page_of(query: Mapping[str, str]) -> Page:
    """Return the page of a query: ``state`` (one, or several with commas), ``limit``, ``after``.

    Raises:
        errors.FieldInvalid: one of them means nothing.
    """
    states = _states(query.get("state", ""))
    limit = parse_whole("limit", query.get("limit"), 1, MOST) or USUAL
    return Page(states, limit, query.get("after") or None)


def no_such_after() -> errors.FieldInvalid:
    """Return the error of a page behind a job that is not there."""
    return errors.FieldInvalid(
        "'after' is no job of yours, or one that was forgotten.",
        hint="Begin anew, without 'after'.",
    )


def _states(given: str) -> frozenset[JobState]:
    try:
        return frozenset(
            JobState(word.strip().lower()) for word in given.split(",") if word.strip()
        )
    except ValueError:
        raise errors.FieldInvalid(
            "'state' is none that a job can be in.", hint=f"Use some of: {', '.join(JobState)}."
        ) from None
