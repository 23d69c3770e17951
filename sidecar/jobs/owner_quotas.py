"""Quotas of an owner: jobs, share of the queue, hours of audio, uploaded bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import HOUR_S, RateLimit, TokenBuckets, is_within_fair_share

UNKNOWN_AUDIO_CHARGE_S = 3600.0
"""Duration that counts for a recording of unknown duration."""


def check_jobs(who: Identity, has: int) -> None:
    """Refuse one more job to an owner that ``has`` so many.

    Raises:
        errors.JobsLimited: the owner has as many as it may have at once.
    """
    most = who.limits.jobs
    if most is not None and has >= most:
        raise errors.JobsLimited(f"Your jobs that wait or run: {has}; the limit is {most}.")


def check_queue(who: Identity, waiting: int, free: int) -> None:
    """Refuse one more job to an owner with this many ``waiting`` if too few of the queue's ``free``
    positions would remain for other owners.

    Raises:
        errors.JobsLimited: too few would remain.
    """
    if who.limits.shares and waiting and not is_within_fair_share(waiting, 1, free):
        raise errors.JobsLimited(
            f"Your jobs that wait: {waiting}; the rest of the queue is reserved for other owners."
        )


def check_audio(who: Identity, more_s: float | None, waiting_s: float) -> None:
    """Refuse a recording of ``more_s`` seconds (None: unknown) behind ``waiting_s`` seconds that
    wait. A single recording may have any length.

    Raises:
        errors.AudioLimited: with it, more audio would wait than the limit.
    """
    most = who.limits.queued_audio_s
    if most is not None and waiting_s and waiting_s + charged_audio_s(more_s) > most:
        raise errors.AudioLimited(
            f"{waiting_s / HOUR_S:.1f} hours of your audio are waiting; the limit is "
            f"{most / HOUR_S:.1f}."
        )


class UploadQuotas:
    """Quotas of uploaded bytes per owner and hour. Bytes count as they arrive, not as declared."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[int, TokenBuckets] = {}
        """Buckets by their limit in bytes; one in practice."""

    def begin(self, who: Identity) -> Callable[[int], None] | None:
        """Begin an upload. Return the callback that charges its bytes; None if the owner has no
        limit.

        Raises:
            errors.UploadsLimited: the quota is used up; Retry-After says when some is free again.
        """
        most = who.limits.upload_bytes
        if most is None:
            return None
        buckets = self._buckets.setdefault(most, TokenBuckets(RateLimit(most, HOUR_S)))
        if wait_s := buckets.wait(who.owner, self._now()):
            raise errors.UploadsLimited(retry_after=math.ceil(wait_s))
        return lambda size: buckets.charge(who.owner, self._now(), size)


def charged_audio_s(total_s: float | None) -> float:
    """Return the seconds that a recording counts for; None: its duration is unknown."""
    return UNKNOWN_AUDIO_CHARGE_S if total_s is None else total_s
