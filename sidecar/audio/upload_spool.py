"""Upload spool: the bytes of an upload in memory at first, then in a temporary file; full disks.

Its methods block on the disk: call them in a thread.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sidecar import errors, files
from sidecar.audio.audio_source import AudioSource

_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TOO_MANY_FILES_ERRNOS = {errno.EMFILE, errno.ENFILE}


class UploadSpool:
    """Upload while it is received: in memory at first, then in a file without a name.

    The writer calls `spill` once `pending` has grown to `MEMORY_BYTES`. `spill` and `finish` may
    block on the disk. A small recording needs no disk if Python has the system's files in memory.
    """

    MEMORY_BYTES = 2 << 20

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._pending = bytearray()
        self._turn, self._over = threading.Lock(), False
        self.size = 0

    @property
    def pending(self) -> int:
        """Return the bytes that are still in the process's memory."""
        return len(self._pending)

    @property
    def in_memory(self) -> bool:
        """Return whether `finish` needs no disk, and so does not block on one."""
        small = self._file is None and self.pending <= self.MEMORY_BYTES
        return small and hasattr(os, "memfd_create")

    def add(self, data: bytes | memoryview[int]) -> None:
        """Append ``data``."""
        self._pending += data
        self.size += len(data)

    def spill(self) -> None:
        """Write the pending bytes to a file in the folder (None: the system's temporary folder).

        Raises:
            errors.DiskFull: the disk is full.
            errors.SpoolUnwritable: the folder cannot be written.
            errors.UploadsFull: the limit of open files is reached.
        """
        with self._at_work():
            self._spill()

    def finish(self, head: bytes = b"") -> AudioSource:
        """Return everything as a source; the spool is closed.

        ``head`` replaces the first bytes: a header with the final size.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable, errors.UploadsFull: as `spill`.
        """
        with self._at_work():
            if self.in_memory and hasattr(os, "memfd_create"):
                self._file = open(os.memfd_create("upload"), "wb", buffering=0)  # noqa: SIM115
            self._spill()
            assert self._file is not None
            if head:
                self._file.seek(0)
                self._file.write(head)
                self._file.seek(0)
            source = AudioSource(os.dup(self._file.fileno()), spooled=True)
            self._over = True
        return source

    def close(self) -> None:
        """Close the spool; without `finish` the bytes are deleted. If a thread is writing, it
        closes the file itself."""
        self._over = True
        if self._turn.acquire(blocking=False):
            try:
                if self._file is not None:
                    self._file.close()
                self._pending = bytearray()
            finally:
                self._turn.release()

    def _spill(self) -> None:
        if self._file is None:
            self._file = files.temporary(self._folder)
        write_all(self._file, self._pending)
        self._pending = bytearray()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Prevent other threads from closing the file while this lasts."""
        try:
            with self._turn:
                yield
        except OSError as error:
            raise storage_error(error) from None
        finally:
            if self._over:
                self.close()


def write_all(file: IO[bytes], data: bytearray) -> None:
    """Write all of ``data``, however little the file takes at once."""
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += file.write(rest[written:])


def storage_error(error: OSError) -> errors.SidecarError:
    """Return the client's error for a failed write."""
    if error.errno in _DISK_FULL_ERRNOS:
        return errors.DiskFull()
    if error.errno in _TOO_MANY_FILES_ERRNOS:
        return errors.UploadsFull("The service has reached its limit of open files.")
    return errors.SpoolUnwritable(f"The folder for uploads cannot be written to: {error.strerror}.")
