"""Worker process seen from the service: spawn, calls, cancellation, heartbeat, kill.

The service's side is `WorkerProcess`; the other side is `workers.worker_main`. A crash, an abort in
native code or the kernel's out-of-memory killer end the worker, never the service.
"""

import asyncio
import errno
import json
import logging
import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import IO, Any

from sidecar import errors
from sidecar.concurrency import wait_for_event
from sidecar.gpu_memory import host_memory
from sidecar.installation import own_command
from sidecar.workers import channel, worker_environment
from sidecar.workers.rpc_client import RpcCall, RpcConnection
from sidecar.workers.rpc_server import LIVE_OPERATION, BegunCallsPage

log = logging.getLogger(__name__)

STDERR_TAIL_LINES = 40
"""Last lines of a worker's standard error that are kept, for its crash note."""
HUNG_NOTE = "(it answered no ping, and the service killed it)"
"""Last line in the crash note of a process that hung."""
READ_NOTE = "(the disk of a recording did not answer, and the service killed it)"
"""The same if it waited for a recording for longer than `READ_TIMEOUT_S`."""
SILENT_NOTE = "(it reported nothing of a transcription for hours, and the service killed it)"
"""The same if it is `RpcConnection.silent`."""
PROCESS_STUCK = "the process was killed and does not end"
"""Message for callers if even a kill does not end the process, for example in a hung driver."""
CONNECTION_STUCK = "the process has ended, and its connection has not"
"""Message for callers if another process holds the worker's end of the connection."""
PING_TIMEOUT_S = 30.0
"""Ping timeout of an engine for files that is in use (`Heartbeat`). The thread that answers needs
the interpreter for a moment. It may wait for seconds: for an import from a slow disk, a native call
that does not release the interpreter, or a machine that swaps."""
LIVE_PING_TIMEOUT_S = 5.0
"""Ping timeout of an engine for live sessions or TTS."""
SECOND_PING_TIMEOUT_S = 1.0
"""The same of a second ping."""
HEARTBEAT_INTERVAL_S = 2.0
"""Interval of pings to a process in use."""
IDLE_HEARTBEAT_INTERVAL_S = 30.0
"""The same of an idle one. It finds most hung processes before the next job, which would lose half
a minute and one of two attempts."""
READ_TIMEOUT_S = 120.0
"""Maximum time of one read of a recording: a disk that spins up answers sooner."""


@dataclass(frozen=True, slots=True)
class PingTimes:
    """Times of a `Heartbeat` in seconds: the timeouts of a ping and of a second one, and the
    intervals of pings to a process in use and to an idle one."""

    timeout_s: float = PING_TIMEOUT_S
    second_timeout_s: float = SECOND_PING_TIMEOUT_S
    interval_s: float = HEARTBEAT_INTERVAL_S
    idle_interval_s: float = IDLE_HEARTBEAT_INTERVAL_S


def worker_command() -> list[str]:
    """Return the command of a worker: this interpreter, or this executable when frozen."""
    return own_command("sidecar.workers.worker_main", "-P", frozen=("worker",))


class WorkerDied(Exception):
    """Raised if the worker process ends during a call, or if the call cannot begin. Of a live
    session, ``began``: whether it was being executed; ``explained``: it is known which sessions
    were, or the service ended the process on purpose; ``sole``: no other session was. ``reading``:
    the disk of a recording did not answer it."""

    def __init__(
        self,
        why: str,
        began: bool = True,
        explained: bool = True,
        sole: bool = False,
        reading: bool = False,
    ) -> None:
        super().__init__(why)
        self.began, self.explained, self.sole = began, explained, sole
        self.reading = reading


class WorkerProcess:
    """Child process that answers calls; its owner must await `close`."""

    def __init__(
        self,
        name: str,
        options: worker_environment.WorkerOptions | None = None,
        *,
        least: bool = False,
        memory_kills: Callable[[], int] = host_memory.memory_kills,
    ) -> None:
        """Start the process; ``least``: as `worker_environment_of`; ``memory_kills``: counts what
        the kernel kills for lack of memory.

        Raises:
            OSError: it cannot be started.
        """
        self.name = name
        self._memory_kills, self._kills_before = memory_kills, memory_kills()
        self.options = options or worker_environment.WorkerOptions()
        given = worker_environment.worker_environment_of(
            os.environ, least=least, niceness=self.options.niceness
        )
        self._process, self._sock = channel.spawn_worker(worker_command(), given)
        self.pid = self._process.pid
        assert self._process.stderr is not None
        self._last_lines: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._kill_notes: list[str] = []
        """Why the service killed it. Its own lines may come later than that: a pipe has them."""
        relay = (self._process.stderr, name, self._last_lines)
        try:
            threading.Thread(target=_relay_output, args=relay, daemon=True).start()
        except RuntimeError as error:  # the limit of threads, which is that of processes
            self._sock.close()
            self._process.stderr.close()
            self._process.kill()
            raise OSError(errno.EAGAIN, str(error)) from None
        self.patience_s = self.options.cancel_grace_s
        """Time for a cancelled call to stop: the load time, as a new process costs that much."""
        self.on_end: Callable[[], None] = lambda: None
        """Callback for the end of the process, whatever the cause, if it ever had a call."""
        self._connection = RpcConnection(self._sock, self.pid, self._lost)
        self._turn = asyncio.Lock()
        """Held by the call that executes, if it is not beside others."""
        self._page: BegunCallsPage | None = None
        """Page of the live sessions that it is executing, once it has any."""
        self._blamed: frozenset[int] = frozenset()
        """The live sessions that it was executing when it died."""
        self._dead = False
        self._ours = False
        self._hung = False
        self._stuck = False
        log.info("worker %s started, pid %d", name, self.pid)

    @property
    def last_lines(self) -> list[str]:
        """Return its last lines on standard error, and behind them why it was killed for a hang."""
        return [*self._last_lines, *self._kill_notes]

    @property
    def exit_code(self) -> int | None:
        """Return the exit code (negative: signal number); None while it runs."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Return whether it can be called."""
        return not self._dead and self._process.poll() is None

    @property
    def stuck(self) -> bool:
        """Return whether it was killed and is still there, with its memory."""
        return self._stuck and self._process.poll() is None

    @asynccontextmanager
    async def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AsyncIterator[RpcCall]:
        """Start one operation; its call can be read and sent more messages. Leaving early cancels
        it.

        It is sent once the call before it has ended, unless it runs ``beside`` others, as live
        sessions do. If a cancelled call goes on and the worker answers no ping, the worker is
        killed. It is also killed if the call goes on for as long as the engine took to load
        (`patience_s`): a new process would be ready by then. A worker with calls of others
        (`WorkerOptions.shared`) is not killed then: the call goes on until it ends.

        Raises:
            WorkerDied: the process ended.
            errors.OutOfMemory: the kernel killed it for lack of memory.
        """
        live = operation == LIVE_OPERATION
        async with nullcontext() if live or "beside" in arguments else self._turn:
            try:
                await self._connection.connect()
                if live and not self._dead:
                    self._page = self._page or BegunCallsPage()
                    fds = (*fds, self._page.fd)
                call = await self._connection.begin(operation, fds, arguments)
            except (OSError, channel.ChannelClosed) as error:
                raise await self._died(error, began=False) from None
            try:
                yield call
            except channel.ChannelClosed as error:
                raise await self._died(error, call.number in self._blamed) from None
            finally:
                if not (call.over.is_set() or self._dead):
                    await self._stop(call)
                self._connection.forget(call)

    async def ask(
        self,
        operation: str,
        fds: Sequence[int] = (),
        following: Sequence[dict[str, Any]] = (),
        **arguments: Any,
    ) -> dict[str, Any]:
        """Run one operation and return its last answer, empty if it has none; as `calling`.
        ``following``: messages that it reads.

        Raises:
            errors.SidecarError: the operation failed.
        """
        async with self.calling(operation, fds, **arguments) as call:
            await call.send_all(following)
            answers = [answer async for answer, _ in call.answers()]
        return answers[-1] if answers else {}

    @property
    def reading_s(self) -> float:
        """Return the seconds that it had waited for a recording's disk at its last ping."""
        return self._connection.reading_s

    @property
    def silent(self) -> bool:
        """Return whether it has reported nothing of its transcriptions for hours."""
        return self._connection.silent

    def allow_silence(self) -> None:
        """Let a transcription report nothing however long: it waits for another server, and ends
        that itself."""
        self._connection.max_silent_pings = math.inf

    async def answers_ping(self, within_s: float) -> bool:
        """Return whether it answers a ping in ``within_s`` seconds, whatever it computes."""
        return self.exit_code is None and await self._connection.answers_ping(within_s)

    async def close(self) -> None:
        """Close the connection so that the process ends; kill it if it does not."""
        self._ours = self._ours or self._process.poll() is None
        self._dead = True
        if self._connection.connecting is not None:
            with suppress(OSError):
                await self._connection.connect()
                self._connection.close()
        self._sock.close()
        if not self.stuck and not await self._exited(self.options.exit_grace_s):
            self.kill()
            await self._exited(self.options.exit_grace_s)
        self._give_up()
        if self._page is not None:
            self._page.close()
        if not self.stuck:
            code = self._process.poll()
            log.info("worker %s ended, pid %d, exit code %s", self.name, self.pid, code)

    async def crashed(self) -> bool:
        """Return whether it hung, or ended without the service or a lack of memory ending it."""
        if self._ours:
            return False
        if self._hung:
            return True
        if await self._killed_for_memory():
            log.error("the kernel killed worker %s for lack of memory", self.name)
            return False
        if self._dead:  # the connection is closed; the process ends next
            await self._exited(self.options.exit_grace_s)
        return self._process.poll() is not None

    def kill(self, *, hung: bool = False, note: str = HUNG_NOTE) -> None:
        """Kill the process. ``hung``: count it as a crash, with a ``note``. If not even that ends
        the process, or its connection, its callers get an error after
        `WorkerOptions.exit_grace_s`."""
        self._dead = True
        if not hung:
            self._ours = True
        elif self._process.poll() is None:
            log.warning("worker %s does not answer and is killed %s", self.name, note)
            self._hung = True
            self._kill_notes.append(note)
        with suppress(ProcessLookupError):
            self._process.kill()
        asyncio.get_running_loop().call_later(self.options.exit_grace_s, self._give_up)

    def _give_up(self) -> None:
        """End the calls of a process that was killed, if it does not end, or if another process
        holds its end of the connection open."""
        if not self._stuck and self._process.poll() is None:
            self._stuck = True
            log.error("worker %s, pid %d: %s", self.name, self.pid, PROCESS_STUCK)
        if self._connection.connecting is not None:
            self._connection.close(PROCESS_STUCK if self._stuck else CONNECTION_STUCK)

    async def _killed_for_memory(self) -> bool:
        """Return whether the kernel killed it for lack of memory."""
        if self._ours or self._hung or self._memory_kills() == self._kills_before:
            return False
        await self._exited(self.options.exit_grace_s)  # the connection closes a moment before
        return self.exit_code == -9  # by the system's number: Windows has no name for it

    async def _exited(self, timeout_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout_s
        pause = 0.001
        while self._process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    async def _stop(self, call: RpcCall) -> None:
        """Cancel a call and wait until it has ended."""
        call.cancel()
        now, grace_s = asyncio.get_running_loop().time, self.options.cancel_grace_s
        latest = now() + max(self.patience_s, self.options.patience_s, grace_s)
        try:
            while not await wait_for_event(call.over, grace_s):
                hears = await self.answers_ping(self.options.ping_timeout_s)
                if call.over.is_set():  # meanwhile: the service itself was late
                    return None
                if not hears:
                    return self.kill(hung=True)
                if now() >= latest:
                    shared = self.options.shared
                    goes_on = "goes on with it until it ends" if shared else "is killed"
                    log.warning("worker %s did not cancel a call and %s", self.name, goes_on)
                    return None if shared else self.kill()
        except asyncio.CancelledError:
            if not self.options.shared:
                self.kill()
            raise

    def _lost(self) -> None:
        """Handle the end of the connection: the worker is dead."""
        self._dead = True
        if self._page is not None and not self._ours:
            self._blamed = self._page.calls()
        self.on_end()

    async def _died(self, error: Exception, began: bool) -> WorkerDied | errors.OutOfMemory:
        self._dead = True
        if await self._killed_for_memory():
            return errors.OutOfMemory()
        sole = began and len(self._blamed) == 1
        reading = READ_NOTE in self._kill_notes
        return WorkerDied(str(error), began, self._ours or bool(self._blamed), sole, reading)


def _relay_output(pipe: IO[bytes], name: str, last_lines: deque[str]) -> None:
    """Read a worker's standard error, so that its pipe is never full, and log it.

    The worker's own lines are JSON records; all others come from libraries.
    """
    with pipe:
        for raw in pipe:
            text = raw.decode("utf-8", "replace").rstrip()
            last_lines.append(text)
            try:
                record = json.loads(text)
                level, source = logging.getLevelNamesMapping()[record["level"]], record["logger"]
                message = "\n".join(filter(None, (record["message"], record.get("exception"))))
            except (ValueError, KeyError, TypeError):
                level, source, message = logging.INFO, f"{__name__}.{name}", text
            logging.getLogger(source).log(level, "%s", message)


class Heartbeat:
    """Heartbeat: pings the process and kills one that hangs, because its callers would wait
    forever.

    A process hangs if it waits too long for a recording's disk. It also hangs if it answers neither
    a ping in time nor a second ping after that (``times``): the thread that answers only reads
    frames and passes live audio on, whatever the engine computes. The second ping is for a service
    that was blocked itself and has not read the first answer.
    """

    def __init__(
        self, worker: Callable[[], WorkerProcess | None], times: PingTimes = PingTimes()
    ) -> None:
        """``worker``: returns the current process or None. A process that is loading is not pinged:
        a load has a deadline of its own."""
        self._worker, self._times = worker, times
        self._task: asyncio.Task[None] | None = None
        self._often = False
        """Whether the next ping comes as soon as for an engine in use."""
        self.in_use = False
        """Whether the engine is in use, as far as this was told."""

    def start(self, *, in_use: bool) -> None:
        """Start to ping: often if the engine is in use, else rarely."""
        self.in_use = in_use
        # between short jobs the timer goes on: to stop and start it costs each of them more
        if self._task is None or self._task.done() or (in_use and not self._often):
            self.stop()
            self._often = in_use
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="heartbeat")

    def stop(self) -> None:
        """Stop the pings."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ask(self) -> None:
        while True:
            times = self._times
            await asyncio.sleep(times.interval_s if self._often else times.idle_interval_s)
            if self._often and not self.in_use:
                self._often = False
                continue
            worker = self._worker()
            if worker is None and not self.in_use:
                return  # the next load starts it again
            if (
                worker is None
                or await worker.answers_ping(times.timeout_s)
                or await worker.answers_ping(times.second_timeout_s)
            ):
                if worker is not None and worker.reading_s > READ_TIMEOUT_S:
                    worker.kill(hung=True, note=READ_NOTE)
                elif worker is not None and worker.silent:
                    worker.kill(hung=True, note=SILENT_NOTE)
                continue
            if worker.alive or worker.exit_code is not None:
                worker.kill(hung=True)
