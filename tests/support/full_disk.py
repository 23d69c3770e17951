"""A small file system that is full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A folder that is a file system of this size; without the right to mount, skip the test."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if not which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount here: a full disk cannot be tried")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(disk: Path, free: int = 0) -> None:
    """Leave so many bytes of room."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - free)
