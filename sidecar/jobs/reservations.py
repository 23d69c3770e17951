"""Reservations of queue capacity before a body is read; quotas of an owner.

Capacity is reserved before a body is read, and released when the body has become a job or failed.
So a client is refused before it sends its body, and memory does not grow with the number of
uploads.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import HOUR_S, RateLimit, TokenBuckets, counted, is_within_fair_share
from sidecar.jobs.job_record import JobRecord

UNKNOWN_AUDIO_CHARGE_S = 3600.0


class Reservation(ExitStack):
    """Reservation that is released once, at the end of a ``with`` or before by `close`."""


@dataclass(slots=True)
class OwnerUploads:
    """Uploads of one owner in progress: number of bodies, received bytes, and reserved bytes
    (declared, or received beyond that)."""

    bodies: int = 0
    bytes: int = 0
    reserved: int = 0


class UploadReservation(Reservation):
    """Upload in progress."""

    def __init__(
        self,
        reservations: Reservations,
        owner: str,
        declared: int,
        quota_buckets: TokenBuckets | None,
    ) -> None:
        super().__init__()
        self._reservations, self._owner, self._quota_buckets = reservations, owner, quota_buckets
        self._size, self._reserved = 0, declared
        self._uploads = reservations.uploads.setdefault(owner, OwnerUploads())
        self._uploads.bodies += 1
        self._uploads.reserved += declared
        self.callback(self._release_upload)

    def grow(self, size: int) -> None:
        """Count ``size`` more received bytes.

        Raises:
            errors.UploadsFull: with those of other uploads, they are too many.
        """
        if self._quota_buckets is not None:
            self._quota_buckets.charge(self._owner, self._reservations.now(), size)
        self._size += size
        self._uploads.bytes += size
        beyond = max(0, self._size - self._reserved)
        self._reserved += beyond
        self._uploads.reserved += beyond
        self._reservations.check_share(self._uploads)

    def _release_upload(self) -> None:
        self._uploads.bodies -= 1
        self._uploads.bytes -= self._size
        self._uploads.reserved -= self._reserved
        if not self._uploads.bodies:
            del self._reservations.uploads[self._owner]


class Reservations:
    """Counters of uploads and queue reservations. The declared length of a body counts against its
    owner only: declaring much and sending little must not keep other owners out. The quota of an
    owner and hour counts bytes as they arrive."""

    def __init__(
        self, most_bodies: int, most_body_bytes: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = now
        self.max_bodies = most_bodies
        self.max_body_bytes = most_body_bytes
        self.owners = Counter[str]()
        """Reserved queue positions by owner."""
        self.uploads: dict[str, OwnerUploads] = {}
        self._quota_buckets: dict[int, TokenBuckets] = {}
        """Quotas of bytes per hour by their limit; one in practice."""

    @property
    def reserved(self) -> int:
        """Return the number of reserved queue positions."""
        return self.owners.total()

    @property
    def bodies(self) -> int:
        """Return the number of uploads in progress."""
        return sum(one.bodies for one in self.uploads.values())

    @property
    def body_bytes(self) -> int:
        """Return the received bytes of bodies in progress."""
        return sum(one.bytes for one in self.uploads.values())

    def reserve_position(self, owner: str = "") -> Reservation:
        """Reserve a queue position; the caller checks with the queue that one is free."""
        reserved = Reservation()
        reserved.enter_context(counted(self.owners, owner))
        return reserved

    def reserve_upload(self, identity: Identity, declared: int = 0) -> UploadReservation:
        """Reserve an upload of ``declared`` bytes (0: unknown). A single upload is always accepted.

        Raises:
            errors.UploadsFull: too many uploads or bytes are in progress, of this owner or of all.
            errors.UploadsLimited: the quota is used up; Retry-After says when some is free again.
        """
        quota_buckets, most = None, identity.limits.upload_bytes
        if most is not None:
            quota_buckets = self._quota_buckets.setdefault(
                most, TokenBuckets(RateLimit(most, HOUR_S))
            )
            if wait_s := quota_buckets.wait(identity.owner, self.now()):
                raise errors.UploadsLimited(retry_after=math.ceil(wait_s))
        uploads = self.uploads.get(identity.owner, OwnerUploads())
        owners = len(self.uploads) + (not uploads.bodies)
        many = self.bodies >= self.max_bodies and (uploads.bodies + 1) * owners > self.max_bodies
        much = (
            self.body_bytes >= self.max_body_bytes and uploads.bytes * owners >= self.max_body_bytes
        )
        if self.uploads and (many or much):
            raise errors.UploadsFull()
        declared = declared if identity.limits.shares else 0
        if identity.limits.shares and uploads.bodies:
            self._check_others(uploads, declared)
        return UploadReservation(self, identity.owner, declared, quota_buckets)

    def check_share(self, uploads: OwnerUploads) -> None:
        """Refuse more data of an owner with more than an equal share of a full resource.

        Raises:
            errors.UploadsFull: the owner has more than its share.
        """
        bodies, size, owners = self.bodies, self.body_bytes, len(self.uploads)
        many = bodies > self.max_bodies and uploads.bodies * owners > self.max_bodies
        much = size > self.max_body_bytes and uploads.bytes * owners > self.max_body_bytes
        if many or (bodies > 1 and much):
            raise errors.UploadsFull()

    def _check_others(self, uploads: OwnerUploads, declared: int) -> None:
        """Refuse an upload beside the owner's ``uploads`` that would leave too little to others.
        One owner gets at most three quarters of the free bodies, and half of the bytes."""
        fits = 2 * (uploads.reserved + declared) <= self.max_body_bytes
        if not fits or not is_within_fair_share(uploads.bodies, 1, self.max_bodies - self.bodies):
            raise errors.UploadsFull(
                "You have reached the limit of concurrent uploads for one owner.",
                hint="Try again when one of your uploads has finished.",
            )


def check_jobs(identity: Identity, has: int) -> None:
    """Refuse one more job to an owner that ``has`` so many.

    Raises:
        errors.JobsLimited: the owner has as many as it may have at once.
    """
    most = identity.limits.jobs
    if most is not None and has >= most:
        raise errors.JobsLimited(f"Your jobs that wait or run: {has}; the limit is {most}.")


def check_queue(identity: Identity, waiting: int, free: int) -> None:
    """Refuse one more job to an owner with this many ``waiting`` if too few of the queue's ``free``
    positions would remain for other owners.

    Raises:
        errors.JobsLimited: too few would remain.
    """
    if identity.limits.shares and waiting and not is_within_fair_share(waiting, 1, free):
        raise errors.JobsLimited(
            f"Your jobs that wait: {waiting}; the rest of the queue is reserved for other owners."
        )


def check_audio(
    identity: Identity,
    more_s: float | None,
    waiting_s: float,
    least_s: float = 0.0,
    channels: int = 1,
) -> None:
    """Refuse a recording of ``more_s`` seconds in all its ``channels`` (None: unknown), which
    counts ``least_s`` at least, behind ``waiting_s`` seconds that wait. A single recording
    may have any length.

    Raises:
        errors.AudioLimited: with it, more audio would wait than the limit.
    """
    most = identity.limits.queued_audio_s
    if (
        most is not None
        and waiting_s
        and (waiting_s + charged_audio_s(more_s, least_s, channels) > most)
    ):
        raise errors.AudioLimited(
            f"{waiting_s / HOUR_S:.1f} hours of your audio are waiting; the limit is "
            f"{most / HOUR_S:.1f}."
        )


def charged_audio_s(work_s: float | None, least_s: float = 0.0, channels: int = 1) -> float:
    """Return the seconds that a recording counts for: those of its header in all its ``channels``
    (None: unknown), and ``least_s`` at least."""
    return UNKNOWN_AUDIO_CHARGE_S * channels if work_s is None else max(work_s, least_s)


def outlasts_header(record: JobRecord) -> bool:
    """Return whether so far far more of a recording was decoded than its header says: more than
    twice that, and a minute. Lengths that are only estimated are nearer."""
    done = record.transcript
    done_s = record.progress.audio_s_done if done is None else done.duration
    return record.audio_info.total_s is not None and done_s > 2 * record.audio_info.total_s + 60
