"""Chromium and its driver: this system's, and under Wine those of the Linux around it."""

import ctypes
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from not_tested import missing
from service_process import free_port, wait_until
from systems import IN_WINE

if TYPE_CHECKING:
    from selenium import webdriver

LINUX = "/usr/bin"
"""Where Debian has both; Wine shows the folder as `Z:/usr/bin`, and knows no name there."""
LACKING = missing("Chromium with chromedriver", "chromium chromium-driver")


def program(name: str) -> str | None:
    """Return the path of a program by which it is started, or None if it is missing."""
    if IN_WINE:
        return f"{LINUX}/{name}" if Path(f"Z:{LINUX}/{name}").exists() else None
    return shutil.which(name)


NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(program, NAMES)), None)
CHROMEDRIVER = program("chromedriver")
IS_HERE = bool(CHROMIUM and CHROMEDRIVER and find_spec("selenium"))


def as_browser_names(path: Path) -> str:
    """Return the path of a file as the browser finds it: under Wine that of Linux."""
    if not IN_WINE:
        return str(path)
    name = getattr(ctypes, "cdll").kernel32.wine_get_unix_file_name  # noqa: B009
    name.restype = ctypes.c_char_p
    found: bytes = name(ctypes.c_wchar_p(str(path.absolute())))
    return found.decode()


def start(options: "webdriver.ChromeOptions") -> "webdriver.Chrome":
    """Start the browser and its driver; `driver.quit()` ends both."""
    from selenium import webdriver

    options.binary_location = CHROMIUM or ""
    service = _beside_wine() if IN_WINE else webdriver.ChromeService(CHROMEDRIVER, port=free_port())
    return webdriver.Chrome(options=options, service=service)


def kill(driver: "webdriver.Chrome") -> None:
    """End the browser without a chance to do anything, and its driver."""
    browser = int(driver.capabilities["goog:processID"])
    if IN_WINE:
        _start_in_linux("/bin/kill", "-KILL", str(browser))
    else:
        psutil.Process(browser).kill()
    driver.service.stop()


def _start_in_linux(*command: str) -> None:
    """Start a program of Linux from Wine, which has no handle of it."""
    subprocess.run(["start", "/unix", *command], stdin=subprocess.DEVNULL, check=True)


def _beside_wine() -> Any:
    """Return a service of selenium that starts and ends the driver without a handle. All of its
    group ends with `windows_python.py`, at the latest."""
    from selenium import webdriver

    class BesideWine(webdriver.ChromeService):
        def start(self) -> None:
            runner = os.environ["VIBEVOICE_TEST_RUNNER"]
            script = (
                "exec >/dev/null 2>&1; "  # pipes of the tests would stay open
                f'tail --pid={runner} -f /dev/null && kill -- -$$ & exec "$@"'
            )
            _start_in_linux("/bin/sh", "-c", script, "sh", self.path, *self.command_line_args())
            wait_until(self.is_connectable, "the driver of Chromium answers")

        def stop(self) -> None:
            self.send_remote_shutdown_command()

    return BesideWine(CHROMEDRIVER, port=free_port())
