"""What Windows does to processes: events of consoles, job objects, handles, files that are open."""

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CTRL_BREAK, CLOSE, LOG_OFF = 1, 2, 5
READ, WRITE, DELETE = 1, 2, 4
"""What those may do who open a file that is open: FILE_SHARE_READ and so on."""
HIDDEN = {"creationflags": 0x08000000} if sys.platform == "win32" else {}
"""As hosts with a window start a program there: it has a console of its own that is not shown."""
_ALL_ACCESS, _EXTENDED_LIMITS, _KILL_ON_CLOSE, _DETACHED = 0x1FFFFF, 9, 0x2000, 8
_INTERRUPT = """
import ctypes, sys
kernel = ctypes.WinDLL("kernel32")
kernel.FreeConsole()
assert kernel.AttachConsole(int(sys.argv[1]))
kernel.SetConsoleCtrlHandler(None, True)
assert kernel.GenerateConsoleCtrlEvent(0, 0)
"""
_LIST = """
import ctypes, sys
kernel, found = ctypes.WinDLL("kernel32"), (ctypes.c_ulong * 64)()
kernel.FreeConsole()
assert kernel.AttachConsole(int(sys.argv[1]))
print(*found[:kernel.GetConsoleProcessList(found, 64)])
"""


def _kernel() -> Any:
    kernel = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - of Windows
    for name in ("OpenProcess", "GetModuleHandleW", "GetProcAddress", "CreateJobObjectW"):
        kernel[name].restype = ctypes.c_void_p
    return kernel


def send_event(pid: int, event: int) -> None:
    """Send a process an event of its console, in the way in which Windows does: as a thread that
    begins in its `CtrlRoutine`. There is a function for Ctrl-C and Ctrl-Break alone."""
    kernel = _kernel()
    process = ctypes.c_void_p(kernel.OpenProcess(_ALL_ACCESS, False, pid))
    module = ctypes.c_void_p(kernel.GetModuleHandleW("kernelbase.dll"))
    routine = ctypes.c_void_p(kernel.GetProcAddress(module, b"CtrlRoutine"))
    assert kernel.CreateRemoteThread(process, None, 0, routine, ctypes.c_void_p(event), 0, None)


def press_ctrl_c(pid: int) -> None:
    """Press Ctrl-C in the console of a process: all that have that console get it."""
    _attached(_INTERRUPT, pid)


def with_its_console(pid: int) -> set[int]:
    """The ids of the processes that have the console of this one, by which Ctrl-Break would end
    them."""
    return {int(word) for word in _attached(_LIST, pid).split()}


def _attached(code: str, pid: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        creationflags=_DETACHED,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def job_of(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Put a process into a job object, as hosts do, which is closed at the end."""
    kernel = _kernel()
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    limits = struct.pack("=QQL124x", 0, 0, _KILL_ON_CLOSE)
    assert kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, limits, len(limits))
    handle = ctypes.c_void_p(int(vars(process)["_handle"]))
    assert kernel.AssignProcessToJobObject(job, handle)
    yield
    kernel.CloseHandle(job)


@contextmanager
def opened_elsewhere(path: Path, share: int) -> Iterator[Callable[[], None]]:
    """Have a file open as another program has it, for writing; yield what closes it."""
    if sys.platform != "win32":
        raise NotImplementedError
    import _winapi

    opened = _winapi.OPEN_EXISTING
    handles = [_winapi.CreateFile(str(path), _winapi.GENERIC_WRITE, share, 0, opened, 0, 0)]

    def close() -> None:
        while handles:
            _winapi.CloseHandle(handles.pop())

    try:
        yield close
    finally:
        close()


def writes_into(pid: int, handle: int, reads: int) -> bool:
    """Whether a process has, as this handle, the end of a pipe from which this one ``reads``: it
    has the number that it had in the process from which it was inherited."""
    if sys.platform != "win32":
        raise NotImplementedError
    import _winapi

    may_duplicate, here = 0x40, _winapi.GetCurrentProcess()
    process = _winapi.OpenProcess(may_duplicate, False, pid)
    try:
        same = _winapi.DUPLICATE_SAME_ACCESS
        there = _winapi.DuplicateHandle(process, handle, here, 0, False, same)
        _winapi.WriteFile(there, b"x")
        _winapi.CloseHandle(there)
    except OSError:  # it has no such handle, or one to which nothing can be written
        pass
    finally:
        _winapi.CloseHandle(process)
    came: int = _winapi.PeekNamedPipe(reads, 0)[0]
    if came:
        _winapi.ReadFile(reads, came)
    return came > 0
