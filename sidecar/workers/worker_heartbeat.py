"""Heartbeat of worker processes: pings, and the end of one that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.workers import worker_process
from sidecar.workers.worker_process import WorkerProcess

PING_TIMEOUT_S = 30.0
"""Ping timeout of an engine for files that is in use (`Heartbeat`). The thread that answers needs
the interpreter for a moment. It may wait for seconds: for an import from a slow disk, a native call
that does not release the interpreter, or a machine that swaps."""
LIVE_PING_TIMEOUT_S = 5.0
"""Ping timeout of an engine for live sessions or TTS."""

HEARTBEAT_INTERVAL_S = 2.0
"""Interval of pings to a process in use."""
IDLE_HEARTBEAT_INTERVAL_S = 30.0
"""Interval of pings to an idle process. It finds most hung processes before the next job, which
would lose half a minute and one of two attempts."""


class Heartbeat:
    """Heartbeat: pings the process and kills one that hangs, because its callers would wait
    forever.

    A process hangs if it answers neither within ``ping_timeout_s`` nor a second ping after that:
    the thread that answers does nothing else, whatever the engine computes. The second ping is for
    a service that was blocked itself and has not read the first answer.
    """

    def __init__(self, worker: Callable[[], WorkerProcess | None], ping_timeout_s: float) -> None:
        """``worker``: returns the current process or None. A process that is loading is not pinged:
        a load has a deadline of its own."""
        self._worker = worker
        self._ping_timeout_s = ping_timeout_s
        self._task: asyncio.Task[None] | None = None
        self._in_use = False

    def start(self, *, in_use: bool) -> None:
        """Start to ping: often if the engine is in use, else rarely."""
        if self._task is None or self._task.done() or self._in_use is not in_use:
            self.stop()
            self._in_use = in_use
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="heartbeat")

    def stop(self) -> None:
        """Stop the pings."""
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
