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
from sidecar.auth.request_origin import Approach
from sidecar.concurrency import backoff_s

MINUTE_S = 60.0
HOUR_S = 3600.0
ADDRESS_SHARE = 4
"""Owners that one address may stand for: a household has one to the outside, and a proxy too."""
MOST_KEYS = 10_000
"""Addresses or owners that are remembered; beyond it those that were quiet the longest go."""
SHARE = 3
"""What one owner may have beside others: at most so many times what it leaves free."""
FREE_FAILURES = 5
"""Wrong tokens that cost nothing: a client with one that has expired tries a few times."""
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 8.0
FORGIVEN_S = 600.0
"""After so long without a wrong token an address is as new."""


def leaves_room(has: float, more: float, free: float, share: float = SHARE) -> bool:
    """Whether an owner with ``has`` of something may have ``more`` of the ``free`` rest.

    Afterwards it has at most ``share`` times what is left (dynamic thresholds: Choudhury and Hahne
    1998). So one alone gets three quarters of all there is, the next one three quarters of the
    rest, and whoever has nothing yet gets what is free.
    """
    return more <= free and (not has or has + more <= share * (free - more))


@dataclass(frozen=True, slots=True)
class Rate:
    """``amount`` in ``window_s`` seconds, at once or spread."""

    amount: float
    window_s: float

    @property
    def per_s(self) -> float:
        """What comes back in a second."""
        return self.amount / self.window_s


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands: what is left of ``rate``, and when all of it is back."""

    rate: Rate
    left: int
    full_in_s: int


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Buckets:
    """A bucket for each key, full at first. What it holds may fall below zero where a thing's size
    is known only once it came (`charge`); then nothing is had until it is made good."""

    def __init__(self, rate: Rate, most: int = MOST_KEYS) -> None:
        self.rate = rate
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

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

    def standing(self, key: str, now: float) -> Standing:
        """What is left."""
        level = self._bucket(key, now).level
        full = math.ceil((self.rate.amount - level) / self.rate.per_s)
        return Standing(self.rate, max(0, int(level)), full)

    def _bucket(self, key: str, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = _Bucket(self.rate.amount, now)
        self._buckets.move_to_end(key)
        back = max(0.0, now - bucket.at) * self.rate.per_s
        bucket.level, bucket.at = min(self.rate.amount, bucket.level + back), now
        return bucket


class Window:
    """What one has done in the last ``rate.window_s`` seconds: at most ``rate.amount`` times, in
    any stretch of that length, unlike with a bucket. An amount of 0 is no limit."""

    def __init__(self, rate: Rate) -> None:
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


class Failures:
    """Wrong tokens by address: each answer takes longer than the one before. Only wrong ones wait,
    so nobody is locked out by another's mistakes behind the same address."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, key: str, now: float) -> float:
        """One more; how many seconds its answer is to wait."""
        count, last = self._seen.pop(key, (0, now))
        count = 1 if now - last > FORGIVEN_S else count + 1
        if len(self._seen) >= self._most:
            self._seen.popitem(last=False)
        self._seen[key] = (count, now)
        if count <= FREE_FAILURES:
            return 0.0
        return backoff_s(count - FREE_FAILURES - 1, FIRST_DELAY_S, LONGEST_DELAY_S)


def address_key(peer: str | None) -> str:
    """What an address is counted by: of IPv6 the network, which is what one customer has."""
    try:
        ip = ipaddress.ip_address(peer or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)


MOST_HELD = 64
"""Answers to wrong tokens that wait at once; beyond it they are refused as too many."""


class Turnstile:
    """Counts requests. ``per_minute`` is an owner's; an address has several owners' worth."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._owners = Buckets(Rate(per_minute, MINUTE_S))
        self._addresses = Buckets(Rate(ADDRESS_SHARE * per_minute, MINUTE_S))
        self._failures = Failures()
        self.held = 0
        """Answers that wait."""

    def arrive(self, approach: Approach) -> None:
        """A request has come from somewhere.

        Raises:
            errors.RateLimited: too many have.
        """
        _refuse(self._addresses.take(address_key(approach.peer), self._now()))

    def enter(self, who: Identity) -> None:
        """It is known who sent it.

        Raises:
            errors.RateLimited: it sent too many.
        """
        _refuse(self._owners.take(who.owner, self._now()))

    def standing(self, who: Identity) -> Standing:
        """How many more it may send."""
        return self._owners.standing(who.owner, self._now())

    def fail(self, approach: Approach) -> float:
        """It brought a wrong token; how many seconds the answer is to wait.

        Raises:
            errors.RateLimited: as many answers wait as may.
        """
        delay = self._failures.note(address_key(approach.peer), self._now())
        if delay and self.held >= MOST_HELD:
            _refuse(delay)
        return delay


def _refuse(wait_s: float) -> None:
    if wait_s > 0:
        raise errors.RateLimited(retry_after=math.ceil(wait_s))


class FairSemaphore:
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
        return leaves_room(has if caller.limits.shares else 0, 1, free)

    def _leave(self, owner: str) -> None:
        """Forget those of an owner who do not wait any more."""
        line = deque(one for one in self._waiting.get(owner, ()) if not one[1].cancelled())
        if line:
            self._waiting[owner] = line
        else:
            self._waiting.pop(owner, None)
