"""Child processes on Windows: none has a window, none outlives the process that started it."""

import struct
import subprocess
import sys

NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Flag of a child process: it has a console of its own, which is not shown. If it had that of this
process, Ctrl-Break would end it; if this process has none, a window would open for it."""


def end_children_with_this_process() -> None:
    """Have Windows end all child processes, and theirs, with this process, however that ends: by
    a job object, whose only handle the end of the process closes. Elsewhere do nothing."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32")
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
        extended_limits, kill_on_close, this_process = 9, 0x2000, ctypes.c_void_p(-1)
        limits = struct.pack("=QQL124x", 0, 0, kill_on_close)
        kernel.SetInformationJobObject(job, extended_limits, limits, len(limits))
        kernel.AssignProcessToJobObject(job, this_process)
