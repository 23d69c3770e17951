"""Worker main: process entry point, listener thread.

Those that are to go on beside others (`engine_slot.CONCURRENT`) have a thread of their own each.

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
from sidecar.workers.rpc_server import CallCancelled, RpcRequest, RpcSender
from sidecar.workers.worker_environment import (
    ENDS_WITH_PARENT_VARIABLE,
    LOG_LEVEL_VARIABLE,
    NICENESS_VARIABLE,
    WORKER_NICENESS,
)
from sidecar.workers.worker_operations import WorkerOperations

log = logging.getLogger(__name__)

IDLE_TRIM_S = 15.0
"""Without work for so long, free memory goes back to the kernel. Not sooner: the next recording
would fault it in again, which makes it 1 to 10 % slower
(docs/decisions/vibevoice-worker.md); who dictates pauses for seconds."""


def serve_calls(sock: socket.socket) -> None:
    """Answer calls until the other side is gone (which ends the process)."""
    queued: queue.SimpleQueue[RpcRequest] = queue.SimpleQueue()
    requests: dict[int, RpcRequest] = {}
    operations = WorkerOperations(lambda request: requests.pop(request.number, None))
    threading.Thread(target=_read_calls, args=(sock, requests, queued), daemon=True).start()
    while True:
        request = _next_call(queued)
        if "beside" in request.message:
            threading.Thread(
                target=_serve_call, args=(operations, request, requests), daemon=True
            ).start()
        else:
            _serve_call(operations, request, requests)


def _serve_call(
    operations: WorkerOperations, request: RpcRequest, requests: dict[int, RpcRequest]
) -> None:
    """One call, and what is left of it."""
    continues = False
    try:
        continues = _answer_call(operations, request)
    except channel.ChannelClosed:
        os._exit(0)
    finally:
        for fd in request.fds:
            os.close(fd)
        if not continues:
            requests.pop(request.number, None)


def _next_call(queued: queue.SimpleQueue[RpcRequest]) -> RpcRequest:
    """The next call; while it is long in coming, this process is made small."""
    try:
        return queued.get(timeout=IDLE_TRIM_S)
    except queue.Empty:
        trim_heap()
    return queued.get()


def trim_heap() -> None:
    """Return the free parts of the heap to the kernel, where the C library is glibc."""
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def _answer_call(operations: WorkerOperations, request: RpcRequest) -> bool:
    """Run one call to its end; or begin it, where it goes on beside others: then it is true."""
    try:
        if request.is_cancelled():
            raise CallCancelled
        if request.message.get("operation") == "live":
            operations.open_session(request)
            return True
        for answer in operations.run(request):
            message, raw = answer if isinstance(answer, tuple) else (answer, b"")
            request.answer(message, raw)
    except CallCancelled:
        request.end(done=True)
    except errors.DeviceLost:
        os._exit(1)  # nothing in this process can use the device again; the job gets a fresh one
    except errors.SidecarError as error:
        request.end(error=error.to_wire())
    except channel.ChannelClosed:
        raise
    except Exception as error:  # the one boundary of this process: whatever an engine raises
        log.exception("internal error in the operation %s", request.message.get("operation"))
        failed = errors.EngineFailed(f"The engine failed: {type(error).__name__}.")
        request.end(error=failed.to_wire())
    else:
        request.end(done=True)
    return False


def _read_calls(
    sock: socket.socket, requests: dict[int, RpcRequest], queued: queue.SimpleQueue[RpcRequest]
) -> None:
    sender = RpcSender(sock)
    try:
        while True:
            frame, fds = channel.receive_message(sock)
            match frame.message:
                case {"ping": _}:
                    sender.send({"pong": True})
                case {"call": int(number), "operation": str()}:
                    requests[number] = RpcRequest(number, frame.message, fds, sender)
                    queued.put(requests[number])
                case {"call": int(number)} if number in requests:
                    requests[number].receive(frame)
    except channel.ChannelClosed:
        os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it (the channel's end does so too).

    The kernel means the thread that did: only where that is the service's main thread, which ends
    last, may it be asked.
    """
    if sys.platform == "linux" and ENDS_WITH_PARENT_VARIABLE in os.environ:
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _exit_on_thread_error(args: threading.ExceptHookArgs) -> None:
    """A thread that ended by a fault has left its work undone, for all who have calls in here, and
    pings are answered by another: so the process ends too, and a fresh one goes on."""
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        fault = args.exc_value or args.exc_type()
        log.critical("internal error: the thread %s ended", name, exc_info=fault)
        os._exit(1)


def main() -> None:
    """The whole life of a worker."""
    threading.excepthook = _exit_on_thread_error
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get(LOG_LEVEL_VARIABLE, "INFO"), handlers=[handler])
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, or a supervisor that tells the group
        signal.signal(number, signal.SIG_IGN)  # the service answers it, and ends this
    sock = channel.inherited_socket()
    _die_with_parent()
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get(NICENESS_VARIABLE, WORKER_NICENESS)))
    serve_calls(sock)


if __name__ == "__main__":
    main()
