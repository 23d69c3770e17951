"""Thread pools, background tasks, back-off, and timeouts that discount stalls of the event loop.

Each kind of work has its own threads. So a disk that hangs (a lost network mount) blocks only its
own kind of work. The threads are daemons: unlike those of asyncio and `concurrent.futures`, they do
not delay the end of the process.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

log = logging.getLogger(__name__)
MOST_DOUBLINGS = 16
TIMER_STEPS = 6


def usable_cpu_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def close_in_thread(fd: int) -> None:
    """Close a file whose disk may hang, in a thread that nobody waits for; here if the system has
    no threads left."""

    def close() -> None:
        with suppress(OSError):  # of a failing disk; the system has closed it all the same
            os.close(fd)

    try:
        threading.Thread(target=close, name="closing", daemon=True).start()
    except RuntimeError:
        close()


class ThreadLimiter:
    """Limiter of the threads for one kind of work: at most ``most`` at once, one for each call."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._free = asyncio.Semaphore(most)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Return or raise the result of ``work(*args)``, in a thread.

        If the caller is cancelled, the thread continues and still counts towards the limit. Its
        unused result is closed if it has a `close` method.
        """
        await self._free.acquire()
        return await self._begun(partial(work, *args))

    async def run_on(
        self,
        fd: int,
        work: Callable[..., T],
        *args: Any,
        unwanted: Callable[[T], None] | None = None,
    ) -> T:
        """Run ``work(own, *args)`` in a thread, where ``own`` is a duplicate of the descriptor
        ``fd``.

        If the caller is cancelled, it closes ``fd``, and the system soon reuses that number for
        another file. So the thread needs its own descriptor. An unused result goes to ``unwanted``,
        in a thread.
        """
        await self._free.acquire()
        try:  # duplicate only after a thread slot is free: the thread closes it
            own = os.dup(fd)
        except OSError:
            self._free.release()
            raise

        def on_own() -> T:
            try:
                return work(own, *args)
            finally:
                os.close(own)

        try:
            return await self._begun(on_own, unwanted)
        except RuntimeError:  # no thread was started; otherwise the thread closes it
            close_in_thread(own)
            raise

    async def _begun(self, work: Callable[[], T], unwanted: Callable[[T], None] | None = None) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if error is not None:
                if not done.done():
                    done.set_exception(error)
            elif done.done():
                self._dispose(result, unwanted)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def body() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # re-raised in the waiting caller
                error = raised
            with suppress(RuntimeError):  # the loop is closed: no caller waits
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=body, name=self._kind, daemon=True).start()
        except RuntimeError:  # the system has no threads left
            self._free.release()
            raise
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:
                self._dispose(done.result(), unwanted)  # it came with the cancellation
            raise

    def _dispose(self, result: Any, unwanted: Callable[[Any], None] | None) -> None:
        if unwanted is not None:
            threading.Thread(target=unwanted, args=(result,), name=self._kind, daemon=True).start()
        elif (close := getattr(result, "close", None)) is not None:
            close()


class OwnerThreads:
    """Threads of each owner for one kind of work, at most ``most`` at once, which take none from
    other owners."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind, self._most = kind, most
        self._limiters = WeakValueDictionary[str, ThreadLimiter]()
        """By owner, while they have work."""

    def of(self, owner: str) -> ThreadLimiter:
        """Return the limiter of an owner's threads."""
        return self._limiters.setdefault(owner, ThreadLimiter(self._kind, self._most))


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run coroutines as tasks of the block; at its end cancel unfinished ones and wait for all."""
    tasks = [asyncio.get_running_loop().create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # retrieved: asyncio logs unretrieved exceptions


class BackgroundTaskGroup:
    """Owner of background tasks, whose exceptions it logs."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def idle(self) -> bool:
        """Return whether no task runs."""
        return not self._tasks

    def spawn(self, what: str, work: Coroutine[Any, Any, object]) -> None:
        """Start a background task; ``what`` is its name in the log."""

        def ended(task: asyncio.Task[object]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error(
                    "internal error in the background task %s, which ended", what, exc_info=fault
                )

        task = asyncio.get_running_loop().create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def wait(self) -> None:
        """Wait until no task runs, those included that are started meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, grace_s: float = 0.0) -> None:
        """Wait at most ``grace_s`` for all tasks, then cancel the rest."""
        if grace_s and self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def backoff_s(attempt: int, first_s: float, longest_s: float) -> float:
    """Return the pause after a failed attempt, counted from 0. Each pause is twice the previous
    one, at most ``longest_s``."""
    return min(first_s * 2.0 ** min(attempt, MOST_DOUBLINGS), longest_s)


def retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended, which several may have waited for, or nobody: otherwise
    asyncio logs that its exception was never retrieved."""
    if not task.cancelled():
        task.exception()


async def wait_for_event(event: asyncio.Event, within_s: float) -> bool:
    """Return whether the event is set within ``within_s``, not counting stalls of the event
    loop."""
    # Not `asyncio.timeout`: in a task that was cancelled, Python 3.11.2 takes its end for a cancel.
    waiter = asyncio.ensure_future(event.wait())
    try:
        for _ in range(TIMER_STEPS):
            await asyncio.wait([waiter], timeout=within_s / TIMER_STEPS)
            if event.is_set():
                return True
        return False
    finally:
        waiter.cancel()


async def cancel_after(most_s: float, what: Awaitable[object]) -> None:
    """Wait for ``what``, which is cancelled after ``most_s``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await what


class OneShotTimer:
    """Timer that calls ``then`` after ``seconds``, unless it is cancelled."""

    def __init__(self, seconds: float, then: Callable[[], object]) -> None:
        self._step_s, self._then = seconds / TIMER_STEPS, then
        self._handle = self._after(TIMER_STEPS)

    def cancel(self) -> None:
        """Cancel the call."""
        self._handle.cancel()

    def _after(self, parts: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._step_s, self._passed, parts - 1)

    def _passed(self, left: int) -> None:
        if left:
            self._handle = self._after(left)
        else:
            self._then()
