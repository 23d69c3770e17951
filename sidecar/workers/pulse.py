"""Whether an engine's process still hears: often while somebody has it, now and then at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.workers.worker import CANCEL_GRACE_S, Worker

PULSE_S = 2.0
"""How often a process that somebody has is asked whether it still hears."""
REST_S = 30.0
"""The same of one that nobody has: so the next job mostly finds none that hangs, which would cost
it half a minute and one of two attempts."""


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
        self._had = False

    def start(self) -> None:
        """Somebody has it."""
        if not (self._had and self._going):
            self._begin(had=True)

    def rest(self) -> None:
        """It is there, and nobody has it."""
        if self._had or not self._going:
            self._begin(had=False)

    def stop(self) -> None:
        """It is asked no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def _going(self) -> bool:
        return self._task is not None and not self._task.done()

    def _begin(self, *, had: bool) -> None:
        self.stop()
        self._had = had
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="pulse")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S if self._had else REST_S)
            worker = self._worker()
            if worker is None and not self._had:
                return  # who brings another in says so
            if (
                worker is None
                or await worker.hears(self._deaf_s)
                or await worker.hears(CANCEL_GRACE_S)
            ):
                continue
            if worker.alive:
                worker.kill(hung=True)
