"""Rate limits and quotas by address and by owner; semaphore that is fair among owners.

Token buckets and counts. Time is handed in, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.request_origin import RequestOrigin
from sidecar.concurrency import backoff_s

MINUTE_S = 60.0
HOUR_S = 3600.0
ADDRESS_SHARE = 4
"""Owners that one address may stand for: a household has one to the outside, and a proxy too."""
MAX_KEYS = 10_000
"""Addresses or owners that are remembered; beyond it those that were quiet the longest go."""
MAX_SHARE_OF_FREE = 3
"""Share of one owner beside others: at most so many times what it leaves free."""
UNDELAYED_FAILURES = 5
"""Wrong tokens that cost nothing: a client with one that has expired tries a few times."""
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0
FAILURE_MEMORY_S = 600.0
"""After so long without a wrong token an address is as new."""


def is_within_fair_share(
    has: float, more: float, free: float, share: float = MAX_SHARE_OF_FREE
) -> bool:
    """Return whether an owner with ``has`` of something may have ``more`` of the ``free`` rest.

    Afterwards it has at most ``share`` times what is left (dynamic thresholds: Choudhury and Hahne
    1998). So one alone gets three quarters of all there is, the next one three quarters of the
    rest, and an owner that has nothing yet gets what is free.
    """
    return more <= free and (not has or has + more <= share * (free - more))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``amount`` in ``window_s`` seconds, at once or spread."""

    amount: float
    window_s: float

    @property
    def per_s(self) -> float:
        """Return the refill of a bucket in a second."""
        return self.amount / self.window_s


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """State of one bucket: what is left of ``rate``, and when all of it is back."""

    rate: RateLimit
    left: int
    full_in_s: int


@dataclass(slots=True)
class _TokenBucket:
    level: float
    at: float


class TokenBuckets:
    """A bucket for each key, full at first. What it holds may fall below zero where a thing's size
    is known only once it came (`charge`); then nothing is had until it is made good."""

    def __init__(self, rate: RateLimit, most: int = MAX_KEYS) -> None:
        self.rate = rate
        self._most = most
        self._buckets: OrderedDict[str, _TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float, amount: float = 1.0) -> float:
        """Take ``amount`` if it is there: 0; else nothing, and in how many seconds it will be."""
        bucket = self._bucket(key, now)
        if bucket.level >= amount:
            bucket.level -= amount
            return 0.0
        return (amount - bucket.level) / self.rate.per_s

    def charge(self, key: str, now: float, amount: float) -> None:
        """Take ``amount``, whether it is there or not."""
        self._bucket(key, now).level -= amount

    def wait(self, key: str, now: float) -> float:
        """In how many seconds there is anything (1); 0: there is."""
        level = self._bucket(key, now).level
        return 0.0 if level >= 1 else (1.0 - level) / self.rate.per_s

    def standing(self, key: str, now: float) -> RateLimitState:
        """Return the state of a key's limit."""
        level = self._bucket(key, now).level
        full = math.ceil((self.rate.amount - level) / self.rate.per_s)
        return RateLimitState(self.rate, max(0, int(level)), full)

    def _bucket(self, key: str, now: float) -> _TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = _TokenBucket(self.rate.amount, now)
        self._buckets.move_to_end(key)
        back = max(0.0, now - bucket.at) * self.rate.per_s
        bucket.level, bucket.at = min(self.rate.amount, bucket.level + back), now
        return bucket


class SlidingWindowLimit:
    """Sliding window: at most ``rate.amount`` actions in any ``rate.window_s`` seconds, unlike a
    bucket. An amount of 0 is no limit."""

    def __init__(self, rate: RateLimit) -> None:
        self.rate = rate
        self._times: deque[float] = deque()

    def take(self, now: float) -> float:
        """Once more: 0 if that is allowed; else nothing, and in how many seconds it will be."""
        if not self.rate.amount:
            return 0.0
        while self._times and now - self._times[0] >= self.rate.window_s:
            self._times.popleft()
        if len(self._times) >= self.rate.amount:
            return min(self.rate.window_s, self._times[0] + self.rate.window_s - now)
        self._times.append(now)
        return 0.0


class FailedTokenDelays:
    """Wrong tokens by address: each answer takes longer than the one before. Only wrong ones wait,
    so nobody is locked out by another's mistakes behind the same address."""

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._most = most
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, key: str, now: float) -> float:
        """One more; how many seconds its answer is to wait."""
        count, last = self._seen.pop(key, (0, now))
        count = 1 if now - last > FAILURE_MEMORY_S else count + 1
        if len(self._seen) >= self._most:
            self._seen.popitem(last=False)
        self._seen[key] = (count, now)
        if count <= UNDELAYED_FAILURES:
            return 0.0
        return backoff_s(count - UNDELAYED_FAILURES - 1, FIRST_DELAY_S, MAX_DELAY_S)


def rate_limit_key(peer: str | None) -> str:
    """Return the key by which an address is counted: of IPv6 the network, which is what one
    customer has."""
    try:
        ip = ipaddress.ip_address(peer or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)


MAX_DELAYED_ANSWERS = 64
"""Answers to wrong tokens that wait at once; beyond it they are refused as too many."""


class RateLimiter:
    """Counts requests. ``per_minute`` is an owner's; an address has several owners' worth."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._owners = TokenBuckets(RateLimit(per_minute, MINUTE_S))
        self._addresses = TokenBuckets(RateLimit(ADDRESS_SHARE * per_minute, MINUTE_S))
        self._failures = FailedTokenDelays()
        self.held = 0
        """Answers that wait."""

    def admit_request(self, approach: RequestOrigin) -> None:
        """A request has come from somewhere.

        Raises:
            errors.RateLimited: too many have.
        """
        _raise_rate_limited(self._addresses.take(rate_limit_key(approach.peer), self._now()))

    def enter(self, who: Identity) -> None:
        """It is known who sent it.

        Raises:
            errors.RateLimited: it sent too many.
        """
        _raise_rate_limited(self._owners.take(who.owner, self._now()))

    def standing(self, who: Identity) -> RateLimitState:
        """Return how many more requests the caller may send."""
        return self._owners.standing(who.owner, self._now())

    def fail(self, approach: RequestOrigin) -> float:
        """It brought a wrong token; how many seconds the answer is to wait.

        Raises:
            errors.RateLimited: as many answers wait as may.
        """
        delay = self._failures.note(rate_limit_key(approach.peer), self._now())
        if delay and self.held >= MAX_DELAYED_ANSWERS:
            _raise_rate_limited(delay)
        return delay


def _raise_rate_limited(wait_s: float) -> None:
    if wait_s > 0:
        raise errors.RateLimited(retry_after=math.ceil(wait_s))


class FairOwnerSemaphore:
    """At most ``places`` are held at once. Owners who wait are served round robin, each in the
    order of its own requests; one that shares with others (`Limits.shares`) leaves them places."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._held = Counter[str]()
        self._waiting: dict[str, deque[tuple[Identity, asyncio.Future[None]]]] = {}
        """By owner; the first of the owners is the next."""

    @asynccontextmanager
    async def held(self, caller: Identity) -> AsyncIterator[None]:
        """Hold a place, once it is the caller's turn."""
        await self._acquire(caller)
        try:
            yield
        finally:
            self._release(caller.owner)

    async def _acquire(self, caller: Identity) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._waiting.setdefault(caller.owner, deque())
        line.append((caller, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._leave(caller.owner)
            else:
                self._release(caller.owner)
            raise

    def _release(self, owner: str) -> None:
        self._held[owner] -= 1
        self._held += Counter()  # those without any are forgotten
        self._grant()

    def _grant(self) -> None:
        """Give places to those whose turn it is, as long as there is one for any of them."""
        while (owner := next(filter(self._may, self._waiting), None)) is not None:
            line = self._waiting.pop(owner)
            _, granted = line.popleft()
            if line:
                self._waiting[owner] = line  # behind the others
            if not granted.done():  # else its task was cancelled a moment ago
                self._held[owner] += 1
                granted.set_result(None)

    def _may(self, owner: str) -> bool:
        caller, _ = self._waiting[owner][0]
        has, free = self._held[owner], self._places - self._held.total()
        return is_within_fair_share(has if caller.limits.shares else 0, 1, free)

    def _leave(self, owner: str) -> None:
        """Forget those of an owner who do not wait any more."""
        line = deque(one for one in self._waiting.get(owner, ()) if not one[1].cancelled())
        if line:
            self._waiting[owner] = line
        else:
            self._waiting.pop(owner, None)
