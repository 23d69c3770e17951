"""Worker main: process entry point, listener thread.

Those that are to go on beside others (`joint.JointSlot`) have a thread of their own each.

Started by `workers.worker_process`. The thread that listens answers pings, hands on what belongs to
a call, and ends the process with the service.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading

from sidecar import errors
from sidecar.observability.logs import JsonFormatter
from sidecar.workers import channel
from sidecar.workers.rpc_server import Asked, Unwanted, Voice
from sidecar.workers.worker_environment import ENDS_WITH_PARENT, LOG_LEVEL, NICE, NICENESS
from sidecar.workers.worker_operations import Operations

log = logging.getLogger(__name__)

IDLE_S = 15.0
"""Without work for so long, free memory goes back to the kernel. Not sooner: the next recording
would fault it in again, which makes it 1 to 10 % slower (docs/performance.md); who dictates pauses
for seconds."""


def serve(sock: socket.socket) -> None:
    """Answer calls until the other side is gone (which ends the process)."""
    waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    going: dict[int, Asked] = {}
    operations = Operations(lambda asked: going.pop(asked.number, None))
    threading.Thread(target=_listen, args=(sock, going, waiting), daemon=True).start()
    while True:
        asked = _next(waiting)
        if "beside" in asked.message:
            threading.Thread(target=_see_to, args=(operations, asked, going), daemon=True).start()
        else:
            _see_to(operations, asked, going)


def _see_to(operations: Operations, asked: Asked, going: dict[int, Asked]) -> None:
    """One call, and what is left of it."""
    goes_on = False
    try:
        goes_on = _answer(operations, asked)
    except channel.ChannelClosed:
        os._exit(0)
    finally:
        for fd in asked.fds:
            os.close(fd)
        if not goes_on:
            going.pop(asked.number, None)


def _next(waiting: queue.SimpleQueue[Asked]) -> Asked:
    """The next call; while it is long in coming, this process is made small."""
    try:
        return waiting.get(timeout=IDLE_S)
    except queue.Empty:
        give_back()
    return waiting.get()


def give_back() -> None:
    """Return the free parts of the heap to the kernel, where the C library is glibc."""
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def _answer(operations: Operations, asked: Asked) -> bool:
    """Run one call to its end; or begin it, where it goes on beside others: then it is true."""
    try:
        if asked.unwanted():
            raise Unwanted
        if asked.message.get("operation") == "live":
            operations.seat(asked)
            return True
        for answer in operations.run(asked):
            message, raw = answer if isinstance(answer, tuple) else (answer, b"")
            asked.answer(message, raw)
    except Unwanted:
        asked.end(done=True)
    except errors.DeviceLost:
        os._exit(1)  # nothing in this process can use the device again; the job gets a fresh one
    except errors.SidecarError as error:
        asked.end(error=error.to_wire())
    except channel.ChannelClosed:
        raise
    except Exception as error:  # the one boundary of this process: whatever an engine raises
        log.exception("the operation %s failed", asked.message.get("operation"))
        failed = errors.EngineFailed(f"The engine failed: {type(error).__name__}.")
        asked.end(error=failed.to_wire())
    else:
        asked.end(done=True)
    return False


def _listen(
    sock: socket.socket, going: dict[int, Asked], waiting: queue.SimpleQueue[Asked]
) -> None:
    voice = Voice(sock)
    try:
        while True:
            frame, fds = channel.receive(sock)
            match frame.message:
                case {"ping": _}:
                    voice.send({"pong": True})
                case {"call": int(number), "operation": str()}:
                    going[number] = Asked(number, frame.message, fds, voice)
                    waiting.put(going[number])
                case {"call": int(number)} if number in going:
                    going[number].hear(frame)
    except channel.ChannelClosed:
        os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it (the channel's end does so too).

    The kernel means the thread that did: only where that is the service's main thread, which ends
    last, may it be asked.
    """
    if sys.platform == "linux" and ENDS_WITH_PARENT in os.environ:
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _end_with_a_thread(args: threading.ExceptHookArgs) -> None:
    """A thread that ended by a fault has left its work undone, for all who have calls in here, and
    pings are answered by another: so the process ends too, and a fresh one goes on."""
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        fault = args.exc_value or args.exc_type()
        log.critical("the thread %s ended by a fault", name, exc_info=fault)
        os._exit(1)


def main() -> None:
    """The whole life of a worker."""
    threading.excepthook = _end_with_a_thread
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get(LOG_LEVEL, "INFO"), handlers=[handler])
    for told in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, or a supervisor that tells the group
        signal.signal(told, signal.SIG_IGN)  # the service answers it, and ends this
    sock = channel.inherited()
    _die_with_parent()
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get(NICE, NICENESS)))
    serve(sock)


if __name__ == "__main__":
    main()
