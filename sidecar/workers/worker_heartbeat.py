"""Heartbeat of a worker process: pings while it is idle or in use; one that hangs is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.workers import worker_process

PING_TIMEOUT_S = 30.0
"""So long at most an engine for files is waited for that answers no ping while somebody has it
(`Heartbeat`). The thread that answers needs the interpreter for a moment: an import from a slow
disk, a native call that does not release it or a machine that swaps may keep it for seconds."""
LIVE_PING_TIMEOUT_S = 5.0
"""Longest wait for the answer to a ping of an engine that people speak with."""

HEARTBEAT_INTERVAL_S = 2.0
"""Interval of pings to a process in use."""
IDLE_HEARTBEAT_INTERVAL_S = 30.0
"""The same of one that nobody has: so the next job mostly finds none that hangs, which would cost
it half a minute and one of two attempts."""


class Heartbeat:
    """Heartbeat: pings the process, and kills one that hangs, for which its callers would wait for
    ever.

    One that does not answer within ``ping_timeout_s``, nor then at once, hangs: the thread that
    answers does nothing else, whatever the engine is at. The second question is for a service that
    was held up itself, and has not come to read the first answer.
    """

    def __init__(
        self, worker: Callable[[], worker_process.WorkerProcess | None], ping_timeout_s: float
    ) -> None:
        """``worker``: the process that is there, None while there is none (one that is coming in is
        not asked: a load has a deadline of its own)."""
        self._worker = worker
        self._ping_timeout_s = ping_timeout_s
        self._task: asyncio.Task[None] | None = None
        self._in_use = False

    def start(self, *, in_use: bool) -> None:
        """Ask from now on: often if the engine is in use, else now and then."""
        if self._task is None or self._task.done() or self._in_use is not in_use:
            self.stop()
            self._in_use = in_use
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="heartbeat")

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL_S if self._in_use else IDLE_HEARTBEAT_INTERVAL_S)
            worker = self._worker()
            if worker is None and not self._in_use:
                return  # the next load starts it again
            if (
                worker is None
                or await worker.answers_ping(self._ping_timeout_s)
                or await worker.answers_ping(worker_process.CANCEL_GRACE_S)
            ):
                continue
            if worker.alive:
                worker.kill(hung=True)
