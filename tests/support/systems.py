"""What a test needs of the system that it runs on.

    @pytest.mark.posix("signals")           # by its nature: Windows has no such thing
    @pytest.mark.not_in_wine("reason")      # Windows has it, Wine does not, or otherwise

The second says how that is known. A module that cannot even be imported there begins with
``posix_module("pty")``. Reasons of the first, and what is tested on Windows instead:

* PostgreSQL's server: Debian's. A service on Windows refuses shared jobs at its start.
* file descriptors by number (`/dev/fd`, passed on): handles are duplicated (`tests/workers`).
* the path set for it: that of Windows has functions more, in `windows_files.py`.
* files of POSIX, a deleted file that is open has no name, devices and pipes in folders: paths and
  devices of Windows (`tests/api/test_windows_audio_paths.py`), files that another program has open
  (`tests/base/test_busy_files.py`).
* permissions of POSIX: access control lists (`tests/base/test_files_on_windows.py`).
* signals: Ctrl-Break, the end of standard input, and `TerminateProcess`.
* symbolic links: only administrators and developers make them there.
* forks, limits of a process, macOS, niceness, pipes of POSIX, named pipes of POSIX, select of
  pipes, programs for Linux, systemd, socket activation, nginx, a terminal of POSIX: Windows lacks
  them.
"""

import asyncio
import ctypes
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Generator
from types import ModuleType

import pytest
from late_files import WholeFile
from service_process import PATIENCE_S

IN_WINDOWS = sys.platform == "win32"
IN_WINE = IN_WINDOWS and hasattr(getattr(ctypes, "windll").ntdll, "wine_get_version")  # noqa: B009
NO_LINKS = "os.symlink returns and has made no link"
"""What Wine does; a program of two lines shows it."""
NO_OWNERS = "GetExtendedTcpTable has the process 0 for each socket"
"""The same: a program that asks for the owner of its own listening socket."""
LONGEST_TEST_S = 2 * PATIENCE_S
"""Of a test on Windows with its fixtures: whatever it waits for has a limit of `PATIENCE_S`."""


class Systems:
    """A pytest plugin that skips what this system has not, with the marker's reason."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip by the markers, before anything that could be installed is missed."""
        skips = [name for name, found in (("posix", IN_WINDOWS), ("not_in_wine", IN_WINE)) if found]
        for item in items if skips else ():
            for mark in [mark for name in skips for mark in item.iter_markers(name)]:
                reason = f"{mark.name}: {mark.args[0]}"
                item.add_marker(pytest.mark.skipif(True, reason=reason), append=False)


class OnWindows:
    """A pytest plugin for Windows: no test hangs for ever, and time can be virtual."""

    def __init__(self) -> None:
        self._errors = os.dup(2)  # pytest captures those of tests

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Give up the process, if a test hangs: nothing there can interrupt a thread that waits."""
        if isinstance(item, WholeFile):  # each of its tests has the limit
            return (yield)
        timer = threading.Timer(LONGEST_TEST_S, self._give_up, [item.nodeid])
        timer.daemon = True
        timer.start()
        try:
            return (yield)
        finally:
            timer.cancel()

    def _give_up(self, test: str) -> None:
        os.write(self._errors, f"\n{test} took more than {LONGEST_TEST_S:g} s:\n".encode())
        faulthandler.dump_traceback(self._errors)
        os._exit(1)

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(
        self, item: pytest.Item
    ) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Run tests in virtual time on the loop that selects: looptime asks for events twice in a
        row, and the usual loop there tells each once."""
        if item.get_closest_marker("looptime"):
            return {"selects": exact_loop}
        return {"usual": asyncio.new_event_loop}


def exact_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose timers are exact, as elsewhere. On Windows they are due 15 ms early, the
    step of its clock: one that is set anew until then would keep virtual time from going on."""
    loop = asyncio.SelectorEventLoop()
    loop._clock_resolution = 1e-6  # type: ignore[attr-defined]  # internal: asyncio's own
    return loop


def register(config: pytest.Config) -> None:
    """Register the plugins that this system needs."""
    config.pluginmanager.register(Systems(), "systems")
    if IN_WINE:  # it lacks GetNumaNodeProcessorMaskEx, for which the OpenMP of CTranslate2 asks
        os.environ.setdefault("KMP_AFFINITY", "disabled")
        # The first process with a window starts the desktop, and that keeps the process's pipes
        # open: the output of an ffmpeg would never end. So this process is the first.
        getattr(ctypes, "windll").user32.GetDesktopWindow()  # noqa: B009
    if IN_WINDOWS:
        config.pluginmanager.register(OnWindows(), "on-windows")


def posix_module(name: str) -> ModuleType:
    """Return a module of POSIX; elsewhere skip the module of tests that asks for it."""
    return pytest.importorskip(name, reason=f"posix: the module {name}")
