"""An engine in a process of its own: the only bridge between blocking and async.

The service's side is `Worker`; the other side is `runtime.inside`. A crash, an abort in native
code or the kernel's out-of-memory killer end the worker, never the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any

from sidecar import errors
from sidecar.runtime import channel

log = logging.getLogger(__name__)

CANCEL_GRACE_S = 1.0
"""How long a cancelled call may take to stop before its process is killed."""
EXIT_GRACE_S = 2.0
LAST_LINES = 40
"""Of a worker's standard error that are remembered."""


class WorkerDied(Exception):
    """The worker's process ended in the middle of a call."""


def worker_command() -> list[str]:
    """How a worker is started: this interpreter, or this executable when frozen."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "worker"]
    return [sys.executable, "-P", "-m", "sidecar.runtime.inside"]


def _worker_env() -> dict[str, str]:
    """The environment of a worker: ours without the token, and with the package findable."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: value for name, value in os.environ.items() if name != "VIBEVOICE_TOKEN"},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        channel.LOG_LEVEL: logging.getLevelName(logging.getLogger().level),
    }


class Worker:
    """One child process that answers one call at a time; its owner awaits `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process, self._sock = channel.spawn(worker_command(), _worker_env())
        assert self._process.stderr is not None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        threading.Thread(
            target=_relay, args=(self._process.stderr, name, self._last_lines), daemon=True
        ).start()
        self._incoming: _Incoming | None = None
        self._dead = False
        self._ours = False
        log.info("worker %s started, pid %d", name, self._process.pid)

    @property
    def last_lines(self) -> list[str]:
        """What it said last on standard error."""
        return list(self._last_lines)

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by a signal), None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return not self._dead and self._process.poll() is None

    async def call(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run one operation and yield what it sends until it is done.

        Leaving the iteration early cancels the operation; a worker that does not stop within
        `CANCEL_GRACE_S` is killed.

        Raises:
            WorkerDied: the process ended.
            errors.SidecarError: the operation said no.
        """
        message = {"operation": operation, **arguments}
        finished = False
        try:
            self._send(message, fds)
            while True:
                frame = await self._receive()
                match frame:
                    case {"done": _}:
                        finished = True
                        return
                    case {"error": wrong}:
                        finished = True
                        raise errors.from_wire(wrong)
                yield frame
        finally:
            if not finished and not self._dead:
                await self._stop_call()

    async def ask(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> dict[str, Any]:
        """Run one operation that answers with one frame (or with none: an empty one)."""
        answer: dict[str, Any] = {}
        async with aclosing(self.call(operation, fds, **arguments)) as frames:
            async for frame in frames:
                answer = frame
        return answer

    def tell(self, operation: str, **arguments: Any) -> None:
        """Send what nobody answers, to a call that is going on."""
        with contextlib.suppress(WorkerDied):  # the call itself will notice
            self._send({"operation": operation, **arguments})

    async def close(self) -> None:
        """End the process: closed politely, killed if it does not go."""
        self._ours = self._ours or self._process.poll() is None
        self._dead = True
        if self._incoming is not None:
            self._incoming.close()
        self._sock.close()
        if not await self._exited(EXIT_GRACE_S):
            self.kill()
            await self._exited(EXIT_GRACE_S)
        log.info("worker %s ended, pid %d, exit code %s", self.name, self.pid, self._process.poll())

    async def crashed(self) -> bool:
        """Whether it ended, and not by our will."""
        if self._ours:
            return False
        if self._dead:  # its end of the line is gone; the process follows
            await self._exited(EXIT_GRACE_S)
        return self._process.poll() is not None

    def kill(self) -> None:
        """End the process at once."""
        self._dead = self._ours = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _exited(self, timeout_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout_s
        pause = 0.001
        while self._process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    async def _stop_call(self) -> None:
        """Cancel what runs, and read its remaining frames away."""
        try:
            async with asyncio.timeout(CANCEL_GRACE_S):
                self._send({"operation": "cancel"})
                while True:
                    frame = await self._receive()
                    if "done" in frame or "error" in frame:
                        return
        except WorkerDied:
            return
        except TimeoutError:
            log.warning("worker %s did not stop in time and is killed", self.name)
            self.kill()
        except asyncio.CancelledError:
            self.kill()
            raise

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            channel.send(self._sock, message, fds, pid=self.pid)
        except channel.ChannelClosed as error:
            self._dead = True
            raise WorkerDied(str(error)) from None

    async def _receive(self) -> dict[str, Any]:
        try:
            if self._incoming is None:
                loop = asyncio.get_running_loop()
                _, self._incoming = await loop.create_connection(_Incoming, sock=self._sock)
            return await self._incoming.frame()
        except (OSError, channel.ChannelClosed) as error:
            self._dead = True
            raise WorkerDied(str(error)) from None


def _relay(pipe: IO[bytes], name: str, last_lines: deque[str]) -> None:
    """Take in what a worker says, so that its pipe is never full, and log it as ours.

    Its own lines are records in JSON; whatever else comes is from libraries.
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


class _Incoming(asyncio.Protocol):
    """The frames that a worker sends, in order. One reader at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.BaseTransport | None = None
        self._data = bytearray()
        self._frames: deque[dict[str, Any]] = deque()
        self._closed: channel.ChannelClosed | None = None
        self._reader: asyncio.Future[None] | None = None

    async def frame(self) -> dict[str, Any]:
        """The next frame.

        Raises:
            channel.ChannelClosed: there will be none.
        """
        while not self._frames:
            if self._closed is not None:
                raise self._closed
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._frames.popleft()

    def close(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: reading begins."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: take in what came, whole frames or not."""
        self._data += data
        try:
            self._frames.extend(channel.take_frames(self._data))
        except channel.ChannelClosed as error:
            self._closed = error
            self.close()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the other side is gone."""
        self._closed = self._closed or channel.ChannelClosed(str(exc or "end of stream"))
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
