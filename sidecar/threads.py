"""Threads for what may wait for a disk or a driver: each kind has its own, and few of them.

A disk that hangs (a network mount that is gone) then holds up its own kind and nobody else's. They
are daemons: the end of the process waits for none, which asyncio's own and `concurrent.futures` do.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def usable_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Threads:
    """At most ``most`` threads at once for one kind of work; a thread for each piece of it."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._free = asyncio.Semaphore(most)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What ``work(*args)`` returns or raises, in a thread.

        Who stops waiting leaves the thread at work, and in its place; a result that nobody waits
        for any more is closed, where it can be.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if done.done():
                if (close := getattr(result, "close", None)) is not None:
                    close()
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def body() -> None:
            result, error = None, None
            try:
                result = work(*args)
            except BaseException as raised:  # whoever waits gets it
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=body, name=self._kind, daemon=True).start()
        except RuntimeError:  # the system has no thread left
            self._free.release()
            raise
        return await done
