"""Who hears of the events of jobs, once they are stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Self

from sidecar.jobs.events import JobEvent
from sidecar.jobs.record import JobRecord

BUFFER = 256
"""Events that a subscriber may be behind: some minutes of a recording that is heard fast."""

TOGETHER = 64
"""Events that are taken at once by who takes all that there are."""

Listener = Callable[[JobRecord, JobEvent], None]
"""Called at once with each event and the record after it; it does not wait and does not raise."""


class Behind(Exception):
    """A subscriber took its events too slowly. It has had all up to ``seq``, and resumes there."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"too slow: all events up to {seq} were taken")
        self.seq = seq


class Subscription:
    """The events of one job, each once and in order, until it has ended.

    Iterating raises `Behind` if more than the buffer are waiting; nobody waits for a subscriber.
    """

    def __init__(
        self, feed: Feed, job_id: str, after: int, past: Sequence[JobEvent], over: bool
    ) -> None:
        self._feed = feed
        self._job_id = job_id
        self._seq = after
        self._waiting = deque(past)
        self._most = len(past) + feed.buffer
        self._over = over
        self._behind = False
        self._news = asyncio.Event()

    def push(self, event: JobEvent, over: bool) -> None:
        """One more."""
        if len(self._waiting) >= self._most:
            self._behind = True
            self.close()
            return
        self._waiting.append(event)
        self._over = over
        self._news.set()

    def close(self) -> None:
        """Hear no more; what has come can still be taken."""
        self._over = True
        self._feed.leave(self._job_id, self)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        while not self._ready:
            self._news.clear()
            await self._news.wait()
        if self._behind:
            self._waiting.clear()
            raise Behind(self._seq)
        if not self._waiting:
            raise StopAsyncIteration
        event = self._waiting.popleft()
        self._seq = event.seq
        return event

    async def batches(self, pause_s: float) -> AsyncGenerator[Sequence[JobEvent], None]:
        """The same, all that has come at once; and nothing each time that none came for so long.

        Raises:
            Behind: as iterating does.
        """
        while True:
            try:
                async with asyncio.timeout(None if self._ready else pause_s):
                    first = await anext(self)
            except TimeoutError:
                yield ()
                continue
            except StopAsyncIteration:
                return
            more = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER - 1))]
            if more:
                self._seq = more[-1].seq
            yield first, *more

    @property
    def _ready(self) -> bool:
        return bool(self._waiting) or self._over or self._behind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Feed:
    """Tells of events as they are stored."""

    def __init__(self, buffer: int = BUFFER) -> None:
        self.buffer = buffer
        self._all: list[Listener] = []
        self._of_one: defaultdict[str, list[Listener]] = defaultdict(list)
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)

    def listen(self, tell: Listener, job_id: str | None = None) -> None:
        """Have ``tell`` called with all events, or with those of one job until it has ended."""
        if job_id is not None:
            self._of_one[job_id].append(tell)
        else:
            self._all.append(tell)

    def unlisten(self, tell: Listener, job_id: str) -> None:
        """Call a listener of one job no more."""
        if tell in self._of_one.get(job_id, ()):
            self._of_one[job_id].remove(tell)
            if not self._of_one[job_id]:
                del self._of_one[job_id]

    def subscribe(self, record: JobRecord, after: int, past: Sequence[JobEvent]) -> Subscription:
        """What comes, behind the ``past`` events that came after ``after``."""
        subscription = Subscription(self, record.id, after, past, record.over)
        if not record.over:
            self._subscriptions[record.id].add(subscription)
        return subscription

    def leave(self, job_id: str, subscription: Subscription) -> None:
        """Tell a subscription no more."""
        if job_id in self._subscriptions:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]

    def forget(self, job_id: str) -> None:
        """Drop the listeners of one job, which may not have ended."""
        self._of_one.pop(job_id, None)

    @property
    def subscribers(self) -> int:
        """How many are told, of all jobs."""
        return sum(map(len, self._subscriptions.values()))

    def publish(self, record: JobRecord, event: JobEvent) -> None:
        """Tell everybody; ``record`` is what it is after the event."""
        for tell in [*self._of_one.get(record.id, ()), *self._all]:
            tell(record, event)
        for subscription in list(self._subscriptions.get(record.id, ())):
            subscription.push(event, record.over)
        if record.over:
            self._of_one.pop(record.id, None)
            self._subscriptions.pop(record.id, None)
