"""Worker main: process entry point, listener thread.

Calls that run beside others (`engine_lease.CONCURRENT`) have a thread each; all others, and the
begins of live sessions, take turns. `workers.worker_process` starts this process. The listener
thread answers pings, passes messages to their calls, and ends the process with the service.
"""

import logging
import os
import queue
import signal
import socket
import sys
import threading
from functools import partial

from sidecar import errors
from sidecar.child_processes import end_children_with_this_process
from sidecar.concurrency import close_in_thread
from sidecar.observability.logs import JsonFormatter, line_buffered_stderr
from sidecar.transcripts.transcript import EVENT_NAMES, Finished
from sidecar.workers import channel
from sidecar.workers.rpc_server import LIVE_OPERATION, CallCancelled, RpcRequest, RpcSender
from sidecar.workers.worker_environment import (
    ENDS_WITH_PARENT_VARIABLE,
    LOG_LEVEL_VARIABLE,
    NICENESS_VARIABLE,
    WORKER_NICENESS,
)
from sidecar.workers.worker_operations import ReadWatch, WorkerOperations

log = logging.getLogger(__name__)

FINISHED = EVENT_NAMES[Finished]
IDLE_TRIM_S = 15.0
"""Idle time after which free memory goes back to the kernel. Not sooner: the next recording would
fault it in again, which makes it 1 to 10 % slower (docs/decisions/vibevoice-engine.md), and people
who dictate pause for seconds."""


def serve_calls(sock: socket.socket, idle_s: float = IDLE_TRIM_S) -> None:
    """Answer calls until the other side is gone, which ends the process. ``idle_s``: as of
    `next_call`."""
    request_queue: queue.SimpleQueue[RpcRequest] = queue.SimpleQueue()
    requests: dict[int, RpcRequest] = {}
    operations = WorkerOperations()
    reader = (sock, requests, request_queue, operations.reads)
    threading.Thread(target=_read_calls, args=reader, daemon=True).start()
    while True:
        request = next_call(request_queue, idle_s)
        if request.ended:
            del requests[request.number]
        elif "beside" in request.message:
            call = (operations, request)
            try:
                threading.Thread(target=serve_call, args=call, daemon=True).start()
            except RuntimeError as error:  # the limit of threads; the other calls go on
                if (busy := errors.machine_error(error)) is None:
                    raise
                serve_call(*call, busy)
        else:
            serve_call(operations, request)


def serve_call(
    operations: WorkerOperations, request: RpcRequest, refusal: errors.MachineBusy | None = None
) -> None:
    """Execute one call, or begin a live session; or end it with ``refusal``."""
    try:
        if refusal is None:
            _answer_call(operations, request)
        else:
            request.end(error=refusal.to_wire())
    except channel.ChannelClosed:
        os._exit(0)
    finally:
        while request.fds:
            close_in_thread(request.fds.pop())


def next_call(request_queue: queue.SimpleQueue[RpcRequest], idle_s: float) -> RpcRequest:
    """Wait for the next call that begins or has ended; release memory if it takes longer than
    ``idle_s``."""
    try:
        return request_queue.get(timeout=idle_s)
    except queue.Empty:
        trim_heap()
    return request_queue.get()


def trim_heap() -> None:
    """Return the free parts of the heap to the kernel, if the C library is glibc."""
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def _answer_call(operations: WorkerOperations, request: RpcRequest) -> None:
    """Execute one call to its end, or begin a live session."""
    try:
        if request.is_cancelled():
            raise CallCancelled
        if channel.FILES_LOST_FIELD in request.message:
            raise errors.MachineBusy("The engine's process has no file descriptor left.")
        if request.message.get("operation") == LIVE_OPERATION:
            operations.begin_session(request)
            return
        for answer in operations.run(request):
            message, raw = answer if isinstance(answer, tuple) else (answer, b"")
            finished = message.get("event", {}).get("event") == FINISHED
            request.answer(message, raw, last=finished)
    except CallCancelled:
        request.end(done=True)
    except errors.DeviceLost:
        os._exit(1)  # this process cannot use the device any more; the job gets a new one
    except errors.SidecarError as error:
        loading = isinstance(error, (errors.ModelLoadFailed, errors.BadCheckpoint))
        known = errors.machine_error(error) if loading else None
        request.end(error=(known or error).to_wire())
    except channel.ChannelClosed:
        raise
    except Exception as error:  # top level of the process: an engine may raise anything
        log.exception("internal error in the operation %s", request.message.get("operation"))
        request.end(error=errors.unexpected_engine_error(error).to_wire())
    else:
        request.end(done=True)


def _read_calls(
    sock: socket.socket,
    requests: dict[int, RpcRequest],
    request_queue: queue.SimpleQueue[RpcRequest],
    reads: ReadWatch,
) -> None:
    sender, reader = RpcSender(sock), channel.ChannelReader(sock)
    try:
        while True:
            frame, fds = reader.receive()
            match frame.message:
                case {"ping": _}:
                    sender.send({"pong": True, "reading_s": reads.longest_s})
                case {"call": int(number), "operation": str()}:
                    request = requests[number] = RpcRequest(number, frame.message, fds, sender)
                    request.on_end = partial(request_queue.put, request)
                    request_queue.put(request)
                case {"call": int(number)}:
                    if (called := requests.get(number)) is not None:
                        called.receive(frame)
    except channel.ChannelClosed:
        os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent (as the end of the channel does).

    The kernel means the parent thread: this is allowed only if it is the service's main thread,
    which ends last.
    """
    if sys.platform == "linux" and ENDS_WITH_PARENT_VARIABLE in os.environ:
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _exit_on_thread_error(args: threading.ExceptHookArgs) -> None:
    """End the process if a thread fails: its calls would never end, while the listener thread still
    answers pings. The service then starts a new process."""
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        fault = args.exc_value or args.exc_type()
        log.critical("internal error: the thread %s ended", name, exc_info=fault)
        os._exit(1)


def main() -> None:
    """Run a worker."""
    threading.excepthook = _exit_on_thread_error
    handler = logging.StreamHandler(line_buffered_stderr())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get(LOG_LEVEL_VARIABLE, "INFO"), handlers=[handler])
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Ctrl-C, or a supervisor that signals the group
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)  # the service handles it and ends this process
    sock = channel.inherited_socket()
    _die_with_parent()
    end_children_with_this_process()
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get(NICENESS_VARIABLE, WORKER_NICENESS)))
    serve_calls(sock)


if __name__ == "__main__":
    main()
