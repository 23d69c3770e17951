"""Where audio comes from: an upload in transit, or a file that a client named.

Both end as one open descriptor with no name that matters any more. The descriptor is what travels
to the workers; whoever holds the source closes it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sidecar import errors

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class AudioSource:
    """An open recording; closing it is the last that is heard of an upload."""

    def __init__(self, fd: int, *, spooled: bool) -> None:
        self._fd: int | None = fd
        self.spooled = spooled
        """Whether the bytes are ours, on a local disk or in memory: reading them does not wait."""

    @property
    def fd(self) -> int:
        """The descriptor, readable and seekable."""
        if self._fd is None:
            raise ValueError("this source is closed")
        return self._fd

    def close(self) -> None:
        """Close the descriptor; an upload's bytes are gone with it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Spool:
    """An upload on its way in: a file without a name, in ``folder`` or the system's own.

    Raises:
        errors.SpoolUnwritable: the folder cannot be written.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            self._file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _storage_error(error) from None
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``.

        Raises:
            errors.DiskFull: there is no room.
        """
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _storage_error(error) from None
        self.size += len(data)

    def finish(self) -> AudioSource:
        """Hand the file over as a source; the spool is closed."""
        source = AudioSource(os.dup(self._file.fileno()), spooled=True)
        self.close()
        return source

    def close(self) -> None:
        """Let go of the file; without `finish` its bytes are gone."""
        self._file.close()


def _storage_error(error: OSError) -> errors.SidecarError:
    if error.errno in _FULL:
        return errors.DiskFull()
    return errors.SpoolUnwritable(f"The folder for uploads cannot be written: {error.strerror}.")


def open_path(path: str) -> AudioSource:
    """Open the file that a client named, once, without waiting for whatever it is.

    Raises:
        errors.BadRequest: no absolute path, not there, not readable, or not a regular file.
    """
    if not path or "\0" in path or not os.path.isabs(path):
        raise errors.AudioPathInvalid()
    if os.name == "nt" and path.startswith("\\\\") and not path.startswith("\\\\?\\"):
        raise errors.AudioPathInvalid("'audio_path' names another machine.")
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.AudioPathNotFound() from None
    except PermissionError:
        raise errors.AudioPathForbidden() from None
    except (OSError, ValueError, UnicodeEncodeError) as error:
        if getattr(error, "errno", None) in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
            raise errors.AudioPathNotAFile() from None
        raise errors.AudioPathInvalid() from None
    if not _is_plain_file(fd):
        os.close(fd)
        raise errors.AudioPathNotAFile()
    return AudioSource(fd, spooled=False)


def _is_plain_file(fd: int) -> bool:
    """Whether it is a regular file that lives on a disk, not in the kernel's imagination."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return False
    return status.st_dev not in _kernel_devices()


def _kernel_devices() -> set[int]:
    if sys.platform != "linux":
        return set()
    mounts = [Path("/proc"), Path("/sys")]
    return {mount.stat().st_dev for mount in mounts if mount.is_mount()}
