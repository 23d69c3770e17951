"""Files that nobody else may read, and files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sidecar.errors import SettingsInvalid

PRIVATE = 0o600
PUBLIC = 0o644
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
Alone = AbstractContextManager[None]


def read(path: Path, most: int, *, private: bool = False) -> bytes:
    """What a regular file holds; with ``private`` only its owner may be able to read it.

    Nothing is waited for: a pipe that nobody writes to would hold a start up for ever.

    Raises:
        errors.SettingsInvalid: it is not there, not readable, no regular file, longer than
            ``most`` bytes, or others may read it.
    """
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            is_file = stat.S_ISREG(status.st_mode)
            data = file.read(most + 1) if is_file else b""
    except OSError as error:
        raise SettingsInvalid(f"The file {path} cannot be read: {error.strerror}.") from None
    if not is_file:
        raise _no_file(path)
    if len(data) > most:
        raise SettingsInvalid(f"The file {path} has more than {most} bytes: it is something else.")
    if private:
        check_private(path, status.st_mode)
    return data


def check_regular(path: Path) -> None:
    """Refuse what is there and no regular file, for those who have others open it, and wait.

    Raises:
        errors.SettingsInvalid: it is a pipe, a folder, a device, or a socket.
    """
    with suppress(OSError):  # whoever opens it says what is wrong
        if not stat.S_ISREG(path.stat().st_mode):
            raise _no_file(path)


def check_private(path: Path, mode: int) -> None:
    """Refuse a secret that others may read; Windows has other rights, which are not looked at.

    Raises:
        errors.SettingsInvalid: others may read it.
    """
    if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsInvalid(
            f"Others may read the file {path}.", hint=f"Close it: chmod 600 {path}"
        )


def write(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Put ``data`` in the file's place: who reads it sees the old file or the new one, whole.

    Raises:
        errors.SettingsInvalid: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise
        _sync(path.parent)
    except OSError as error:
        raise SettingsInvalid(f"The file {path} cannot be written: {error.strerror}.") from None


def make_folder(path: Path) -> None:
    """A folder that only its owner may look into.

    Raises:
        errors.SettingsInvalid: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"The folder {path} cannot be made: {error.strerror}.") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone with what is in a folder, among those of us that ask.

    Raises:
        errors.SettingsInvalid: the folder cannot be written to.
    """
    try:
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise SettingsInvalid(
            f"The folder {folder} cannot be written to: {error.strerror}."
        ) from None
    with file:  # closing it gives the lock back
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _no_file(path: Path) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path} is not a regular file.", hint="Name a file that has it, not a pipe or a folder."
    )


def _sync(folder: Path) -> None:
    """Have the folder's new names on the disk, where a system can do that."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
