"""A small file system that is full."""

from contextlib import suppress
from pathlib import Path


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
