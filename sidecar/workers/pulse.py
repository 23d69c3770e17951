"""Whether an engine's process still hears, while somebody has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.workers.worker import CANCEL_GRACE_S, Worker

PULSE_S = 2.0
"""How often a process that somebody has is asked whether it still hears."""


class Pulse:
    """Asks the process again and again, and ends one that hangs: it tells nobody by itself, and
    whoever has it would wait for ever.

    One that does not answer within ``deaf_s``, nor then at once, hangs: the thread that answers
    does nothing else, whatever the engine is at. The second question is for a service that was
    held up itself, and has not come to read the first answer.
    """

    def __init__(self, worker: Callable[[], Worker | None], deaf_s: float) -> None:
        """``worker``: the process that is there, None while there is none (one that is coming in is
        not asked: a load has a deadline of its own)."""
        self._worker = worker
        self._deaf_s = deaf_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Somebody has it."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="pulse")

    def stop(self) -> None:
        """Nobody has it any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            worker = self._worker()
            if (
                worker is None
                or await worker.hears(self._deaf_s)
                or await worker.hears(CANCEL_GRACE_S)
            ):
                continue
            if worker.alive:
                worker.kill(hung=True)
