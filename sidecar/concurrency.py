"""Thread pools, background tasks, back-off, and timeouts that discount stalls of our event loop.

A disk that hangs (a network mount that is gone) then holds up its own kind and nobody else's. They
are daemons: the end of the process waits for none, which asyncio's own and `concurrent.futures` do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def usable_cpu_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ThreadLimiter:
    """At most ``most`` threads at once for one kind of work; a thread for each call."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._free = asyncio.Semaphore(most)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Return or raise the result of ``work(*args)``, in a thread.

        A caller that stops waiting leaves the thread at work, and in its place; a result that
        nobody takes any more is closed, if it can be.
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
        """`run` of ``work(own, *args)``, with a descriptor of its own for the file behind ``fd``:
        a caller that stops waiting closes ``fd``, and its number is soon another file's. A result
        that nobody takes any more goes to ``unwanted``, in a thread."""
        await self._free.acquire()
        try:  # not before there is a place: the thread is what closes it
            own = os.fdopen(os.dup(fd), "rb", buffering=0)
        except OSError:
            self._free.release()
            raise

        def on_own() -> T:
            with own:
                return work(own.fileno(), *args)

        try:
            return await self._begun(on_own, unwanted)
        except RuntimeError:  # there is no thread; otherwise it is closed already
            own.close()
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
            except BaseException as raised:  # whoever waits gets it
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=body, name=self._kind, daemon=True).start()
        except RuntimeError:  # the system has no thread left
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


log = logging.getLogger(__name__)


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run coroutines as tasks of the block: its end cancels those that go on, and waits for all."""
    tasks = [asyncio.get_running_loop().create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # the block has looked at those that matter to it


class BackgroundTaskGroup:
    """Owns them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def spawn(self, what: str, work: Coroutine[Any, Any, object]) -> None:
        """Begin with one; ``what`` it is called in the log."""

        def ended(task: asyncio.Task[object]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error(
                    "internal error in the background task %s, which ended", what, exc_info=fault
                )

        task = asyncio.get_running_loop().create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def close(self, grace_s: float = 0.0) -> None:
        """End all of them that do not end by themselves within ``grace_s``."""
        if grace_s and self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


MOST_DOUBLINGS = 16


def backoff_s(attempt: int, first_s: float, longest_s: float) -> float:
    """Return the pause after an attempt that failed, counted from 0: each is twice as long as the
    one before, up to a longest."""
    return min(first_s * 2.0 ** min(attempt, MOST_DOUBLINGS), longest_s)


TIMER_STEPS = 6


async def wait_for_event(event: asyncio.Event, within_s: float) -> bool:
    """Return whether the event is set within so many seconds."""
    for _ in range(TIMER_STEPS):
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s / TIMER_STEPS):
                await event.wait()
        if event.is_set():
            return True
    return False


class OneShotTimer:
    """Calls ``then`` in so many seconds, unless it is cancelled."""

    def __init__(self, seconds: float, then: Callable[[], object]) -> None:
        self._step_s, self._then = seconds / TIMER_STEPS, then
        self._handle = self._after(TIMER_STEPS)

    def cancel(self) -> None:
        """It is not called."""
        self._handle.cancel()

    def _after(self, parts: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._step_s, self._passed, parts - 1)

    def _passed(self, left: int) -> None:
        if left:
            self._handle = self._after(left)
        else:
            self._then()
