"""Ctrl-C in two steps: the first ends what comes in, the second everything."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts(ended: asyncio.Event) -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets ``ended``, and once more cancels this task; gives whether there was one."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt(*_: object) -> None:
        loop.call_soon_threadsafe(task.cancel if ended.is_set() else ended.set)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield ended.is_set
    finally:
        signal.signal(signal.SIGINT, before)
