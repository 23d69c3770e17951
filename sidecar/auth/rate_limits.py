"""Rate limits and quotas by address and by owner; fair semaphore; open streams.

Token buckets and counts. Times are arguments, in seconds of any monotonic clock.

Streams end when their token is revoked: a client is identified once, when its request arrives, but
the events of a job may be streamed for hours after that. All open requests are counted here, by
owner: uploads, waiting responses, event streams, connections.
"""

import asyncio
import ipaddress
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sidecar import errors
from sidecar.auth.identity import Identity, RequestOrigin, SignedCredential
from sidecar.bounded_dict import BoundedDict
from sidecar.concurrency import backoff_s
from sidecar.file_watcher import WATCH_INTERVAL_S

log = logging.getLogger(__name__)

MINUTE_S = 60.0
HOUR_S = 3600.0
ADDRESS_SHARE = 4
"""Number of owners that one address may stand for: that of a household, or of a proxy."""
MAX_KEYS = 10_000
"""Maximum of remembered addresses or owners; those that were idle the longest are dropped."""
MAX_SHARE_OF_FREE = 3
"""Maximum ratio of what one owner has to what it leaves free."""
UNDELAYED_FAILURES = 5
"""Wrong tokens that are answered without a delay: an expired one is tried a few times."""
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0
FAILURE_MEMORY_S = 600.0
"""After so long without a wrong token, an address has no delay any more."""
MAX_DELAYED_ANSWERS = 64
"""Maximum of delayed answers to wrong tokens; beyond it further ones are refused at once."""
MAX_OPEN_STREAMS = 512
"""Maximum of open requests and connections of all owners that share, beside jobs and sessions."""


def is_within_fair_share(has: float, more: float, free: float) -> bool:
    """Return whether an owner with ``has`` units may have ``more`` of the ``free`` units.

    It then has at most `MAX_SHARE_OF_FREE` times what is left (dynamic thresholds: Choudhury and
    Hahne 1998). So a single owner gets three quarters of the total, the next one three quarters of
    the rest. An owner that has nothing yet gets what is free.
    """
    return more <= free and (not has or has + more <= MAX_SHARE_OF_FREE * (free - more))


@contextmanager
def counted(counter: Counter[str], owner: str, amount: int = 1) -> Iterator[None]:
    """Count ``amount`` units of an owner within this context; owners without any are dropped."""
    counter[owner] += amount
    try:
        yield
    finally:
        counter[owner] -= amount
        if counter[owner] <= 0:
            del counter[owner]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Rate limit: ``amount`` in ``window_s`` seconds, at once or spread."""

    amount: float
    window_s: float

    @property
    def per_s(self) -> float:
        """Return the refill of a bucket per second."""
        return self.amount / self.window_s


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """State of a bucket: what is left of ``rate``, and the seconds until it is full."""

    rate: RateLimit
    left: int
    full_in_s: int


@dataclass(slots=True)
class _TokenBucket:
    level: float
    at: float


class TokenBuckets:
    """Token buckets by key, full at first. If the size of an item is known only afterwards
    (`charge`), its bucket may fall below zero; then nothing can be taken until it is refilled."""

    def __init__(self, rate: RateLimit, most: int = MAX_KEYS) -> None:
        self.rate = rate
        self._buckets = BoundedDict[str, _TokenBucket](most)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float, amount: float = 1.0) -> float:
        """Take ``amount`` and return 0, or take nothing and return the seconds until it is
        available."""
        bucket = self._bucket(key, now)
        if bucket.level >= amount:
            bucket.level -= amount
            return 0.0
        return (amount - bucket.level) / self.rate.per_s

    def charge(self, key: str, now: float, amount: float) -> None:
        """Take ``amount``, whether it is available or not."""
        self._bucket(key, now).level -= amount

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until 1 unit is available; 0: it is available."""
        return max(0.0, 1.0 - self._bucket(key, now).level) / self.rate.per_s

    def state(self, key: str, now: float) -> RateLimitState:
        """Return the state of a key's limit."""
        level = self._bucket(key, now).level
        full = math.ceil((self.rate.amount - level) / self.rate.per_s)
        return RateLimitState(self.rate, max(0, int(level)), full)

    def _bucket(self, key: str, now: float) -> _TokenBucket:
        bucket = self._buckets.get(key) or _TokenBucket(self.rate.amount, now)
        self._buckets[key] = bucket  # it is the newest then
        back = max(0.0, now - bucket.at) * self.rate.per_s
        bucket.level, bucket.at = min(self.rate.amount, bucket.level + back), now
        return bucket


class SlidingWindowLimit:
    """Sliding window: at most ``rate.amount`` actions in any ``rate.window_s`` seconds, which a
    bucket does not guarantee. An amount of 0 means no limit."""

    def __init__(self, rate: RateLimit) -> None:
        self.rate = rate
        self._times: deque[float] = deque()

    def take(self, now: float) -> float:
        """Count an action and return 0, or count nothing and return the seconds until it is
        allowed."""
        if not self.rate.amount:
            return 0.0
        while self._times and now - self._times[0] >= self.rate.window_s:
            self._times.popleft()
        if len(self._times) >= self.rate.amount:
            return min(self.rate.window_s, self._times[0] + self.rate.window_s - now)
        self._times.append(now)
        return 0.0


class FailedTokenDelays:
    """Delays for wrong tokens by address: each answer takes longer than the one before. Only wrong
    tokens are delayed, so no client is locked out by another one behind the same address."""

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._seen = BoundedDict[str, tuple[int, float]](most)

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, key: str, now: float) -> float:
        """Count a wrong token; return the seconds by which its answer is delayed."""
        count, last = self._seen.get(key, (0, now))
        count = 1 if now - last > FAILURE_MEMORY_S else count + 1
        self._seen[key] = (count, now)
        if count <= UNDELAYED_FAILURES:
            return 0.0
        return backoff_s(count - UNDELAYED_FAILURES - 1, FIRST_DELAY_S, MAX_DELAY_S)


def rate_limit_key(peer: str | None) -> str:
    """Return the key by which an address is counted. IPv6: the /64 network, which is what one
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


class RateLimiter:
    """Rate limits of requests. ``per_minute``: limit of one owner; an address gets `ADDRESS_SHARE`
    times that."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._owners = TokenBuckets(RateLimit(per_minute, MINUTE_S))
        self._addresses = TokenBuckets(RateLimit(ADDRESS_SHARE * per_minute, MINUTE_S))
        self._failures = FailedTokenDelays()
        self.held = 0
        """Number of delayed answers."""

    def admit_request(self, origin: RequestOrigin) -> None:
        """Count a request of an address.

        Raises:
            errors.RateLimited: the address sent too many.
        """
        raise_rate_limited(self._addresses.take(rate_limit_key(origin.peer), self._now()))

    def enter(self, identity: Identity) -> None:
        """Count a request of an identified client.

        Raises:
            errors.RateLimited: the client sent too many.
        """
        raise_rate_limited(self._owners.take(identity.owner, self._now()))

    def state(self, identity: Identity) -> RateLimitState:
        """Return the state of the client's rate limit."""
        return self._owners.state(identity.owner, self._now())

    def fail(self, origin: RequestOrigin) -> float:
        """Count a wrong token; return the seconds by which its answer is delayed.

        Raises:
            errors.RateLimited: too many answers are being delayed.
        """
        delay = self._failures.note(rate_limit_key(origin.peer), self._now())
        if delay and self.held >= MAX_DELAYED_ANSWERS:
            raise_rate_limited(delay)
        return delay


def raise_rate_limited(wait_s: float, detail: str | None = None) -> None:
    """Refuse what has to wait.

    Raises:
        errors.RateLimited: ``wait_s`` is not 0.
    """
    if wait_s > 0:
        raise errors.RateLimited(detail, retry_after=math.ceil(wait_s))


class FairOwnerSemaphore:
    """Semaphore of ``slots``, fair among owners. Waiting owners are served round robin,
    each in the order of its own requests. One that shares (`OwnerLimits.shares`) leaves others
    slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held = Counter[str]()
        self._waiting: dict[str, deque[tuple[Identity, asyncio.Future[None]]]] = {}
        """By owner, in the order of their turns."""

    @asynccontextmanager
    async def held(self, identity: Identity) -> AsyncIterator[None]:
        """Hold a slot within this context; wait for the client's turn."""
        await self._acquire(identity)
        try:
            yield
        finally:
            self._release(identity.owner)

    async def _acquire(self, identity: Identity) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(identity.owner, deque())
        queue.append((identity, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._drop_cancelled(identity.owner)
            else:
                self._release(identity.owner)
            raise

    def _release(self, owner: str) -> None:
        self._held[owner] -= 1
        self._held += Counter()  # drop owners without slots
        self._grant()

    def _grant(self) -> None:
        """Grant free slots to waiting owners, in the order of their turns."""
        while (owner := next(filter(self._may, self._waiting), None)) is not None:
            queue = self._waiting.pop(owner)
            _, granted = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # at the end of the order
            if not granted.done():  # otherwise its task has just been cancelled
                self._held[owner] += 1
                granted.set_result(None)

    def _may(self, owner: str) -> bool:
        identity, _ = self._waiting[owner][0]
        has, free = self._held[owner], self._slots - self._held.total()
        return is_within_fair_share(has if identity.limits.shares else 0, 1, free)

    def _drop_cancelled(self, owner: str) -> None:
        """Drop the cancelled requests of an owner."""
        queue = deque(one for one in self._waiting.get(owner, ()) if not one[1].cancelled())
        if queue:
            self._waiting[owner] = queue
        else:
            self._waiting.pop(owner, None)


class RevocableStreams:
    """Open streams; their credentials are checked at intervals."""

    def __init__(
        self,
        credential_refusal: Callable[[SignedCredential], str | None] = lambda credential: None,
        most: int = MAX_OPEN_STREAMS,
    ) -> None:
        """``credential_refusal`` returns why a credential is not valid any more, or `None` while it
        is valid. ``most``: the maximum of open streams of all owners that share
        (`OwnerLimits.shares`)."""
        self._credential_refusal = credential_refusal
        self._most = most
        self._open = Counter[str]()
        self._credentials: dict[Callable[[], None], SignedCredential] = {}

    @contextmanager
    def lasting(self, identity: Identity, disconnect: Callable[[], None]) -> Iterator[None]:
        """Call ``disconnect`` once if the client's credential is revoked within this context. A
        client without a credential is never disconnected."""
        if identity.credential is None:
            yield
            return
        self._credentials[disconnect] = identity.credential
        try:
            yield
        finally:
            self._credentials.pop(disconnect, None)

    @contextmanager
    def opened(self, identity: Identity) -> Iterator[None]:
        """Count a request or connection as the client's within this context.

        Each owner may have one; more only if they leave others a fair share.

        Raises:
            errors.ConnectionsLimited: the client's share is used up.
        """
        if not identity.limits.shares:
            yield
            return
        has = self._open[identity.owner]
        if has and not is_within_fair_share(has, 1, self._most - self._open.total()):
            raise errors.ConnectionsLimited()
        with counted(self._open, identity.owner):
            yield

    def check_credentials(self) -> None:
        """Close the streams with a credential that is not valid any more."""
        ended: Counter[tuple[str, str]] = Counter()
        for disconnect, credential in list(self._credentials.items()):
            if (why := self._credential_refusal(credential)) is not None:
                del self._credentials[disconnect]
                ended[credential.token_id, why] += 1
                disconnect()
        for (token_id, why), count in ended.items():
            log.info("token %s %s: %d open streams closed", token_id, why, count)

    async def run(self) -> None:
        """Check the credentials at intervals, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self.check_credentials()
