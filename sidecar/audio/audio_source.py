"""Audio sources: open recordings, files named by a client, persistent references to both.

An upload (`upload_spool`) and a client's file both become an open descriptor, which is passed to
the workers. The holder of the source closes it.

All functions here block on the disk: call them in a thread.
"""

import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sidecar import errors, files
from sidecar.audio.audio_format import read_file_at
from sidecar.concurrency import close_in_thread

_ELSEWHERE = re.compile(r"\\\\(?!\?\\[A-Za-z]:\\)|\\\?\?\\")
"""Start of a path in a namespace: UNC, devices, and the kernel's; not of a drive's long form."""
_CHUNK_BYTES = 1 << 20


class AudioSource:
    """Open recording; closing it deletes an upload."""

    def __init__(
        self,
        fd: int,
        *,
        spooled: bool,
        path: str | None = None,
        name: str = "",
        status: os.stat_result | None = None,
    ) -> None:
        self._fd: int | None = fd
        self.name = name
        """Name of the file as the client has it, '' if unknown: for display only, never a path."""
        self.status = status
        """Status of a client's file as it was opened, since its disk may not answer later."""
        self.path = path
        """Path that the client sent; None for an upload."""
        self.spooled = spooled
        """True if the bytes are the service's own, on a local disk or in memory: reads do not
        block."""
        self._settled: Callable[[], None] | None = None

    def on_settled(self, tell: Callable[[], None]) -> None:
        """Set the callback for when the source has become a job or is closed."""
        self._settled = tell

    def settle(self) -> None:
        """Report that the source has become a job or is closed; only the first call counts."""
        tell, self._settled = self._settled, None
        if tell is not None:
            tell()

    @property
    def fd(self) -> int:
        """Return the descriptor, readable and seekable."""
        if self._fd is None:
            raise ValueError("this source is closed")
        return self._fd

    def close(self) -> None:
        """Close the descriptor; an upload's bytes are deleted with it. This waits for no disk of a
        client's file."""
        fd, self._fd = self._fd, None
        if fd is not None and not self.spooled:
            close_in_thread(fd)
        elif fd is not None:
            with suppress(OSError):  # of a failing disk; the system has closed it all the same
                os.close(fd)
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording_file(path: str, roots: Sequence[Path] = ()) -> AudioSource:
    """Open the file that a client named, once, without blocking on special files.

    ``roots``: the folders in which it must lie, links resolved; empty: anywhere.

    Raises:
        errors.BadRequest: no absolute path, not found, not readable, or not a regular file; one
            outside of the roots is forbidden, whether it exists or not.
        errors.MachineBusy: there is no descriptor left, or the disk or share does not answer.
    """
    if "\0" in path or not Path(path).is_absolute():
        raise errors.AudioPathInvalid()
    if os.name == "nt" and leaves_this_machine(path):
        raise errors.AudioPathInvalid("'audio_path' names a file of another machine.")
    try:
        if roots and not _is_inside_roots(os.path.realpath(path), roots):
            raise _outside_roots_error()
        if (_is_device_or_folder if os.name == "nt" else files.is_descriptor_path)(path):
            raise errors.AudioPathNotAFile()
        fd = files.open_to_read(path)
        with ExitStack() as undone:
            undone.callback(os.close, fd)
            status = os.fstat(fd)
            if not _is_plain_file(status):
                raise errors.AudioPathNotAFile()
            if roots and not _is_inside_roots(_real_path(fd, path), roots):
                raise _outside_roots_error()  # a link has changed
            undone.pop_all()
            return AudioSource(fd, spooled=False, path=path, name=Path(path).name, status=status)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.AudioPathNotFound() from None
    except files.FileInUse as error:
        raise errors.AudioPathForbidden(
            "Another program has the audio file open, and lets no other read it.",
            hint="Close it there, or wait until it is written.",
        ) from error
    except PermissionError as error:
        raise errors.AudioPathForbidden() from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
            raise errors.AudioPathNotAFile() from None
        raise (errors.machine_error(error) or errors.AudioPathInvalid()) from error


def leaves_this_machine(path: str) -> bool:
    """Return whether Windows may look for an absolute path at another machine, in any spelling of a
    UNC path, or at a device. The path of a drive is neither. Pure."""
    return _ELSEWHERE.match(path.replace("/", "\\")) is not None


def _is_device_or_folder(path: str) -> bool:
    """Return whether Windows opens no file by an absolute path: by 'C:/CON' it opens the console,
    in the versions whose full path of that is the device."""
    return leaves_this_machine(os.path.abspath(path)) or os.path.isdir(path)


def _outside_roots_error() -> errors.AudioPathForbidden:
    return errors.AudioPathForbidden(
        "'audio_path' lies outside of the folders that are allowed.",
        hint="Use a folder of the setting 'audio_roots', or upload the file instead.",
    )


def _is_inside_roots(path: str, roots: Sequence[Path]) -> bool:
    return any(Path(path).is_relative_to(os.path.realpath(root)) for root in roots)


def _real_path(fd: int, path: str) -> str:
    """Return the real path of an open file; if the system does not provide it, resolve the name
    again."""
    if sys.platform == "linux":
        return os.readlink(f"/proc/self/fd/{fd}")
    return os.path.realpath(path)


def _is_plain_file(status: os.stat_result) -> bool:
    """Return whether it is a regular file on a disk, not one of the kernel's.

    A file without a name is an upload or scratch file of another client, and is refused.
    """
    if not stat.S_ISREG(status.st_mode) or (os.name == "posix" and status.st_nlink == 0):
        return False
    return status.st_dev not in _virtual_filesystem_devices()


def _virtual_filesystem_devices() -> set[int]:
    if sys.platform != "linux":
        return set()
    mounts = [Path("/proc"), Path("/sys")]
    return {mount.stat().st_dev for mount in mounts if mount.is_mount()}


@dataclass(frozen=True, slots=True)
class OpenUploadRef:
    """Upload that this process holds open. ``device`` and ``inode`` identify the file: the number
    of a closed descriptor is soon reused."""

    fd: int
    device: int
    inode: int

    def open(self, roots: Sequence[Path] = ()) -> AudioSource:
        """Return a source with its own descriptor, which the caller closes; the position is shared.

        Raises:
            errors.AudioLost: the upload is not open any more.
        """
        try:
            fd = os.dup(self.fd)
        except OSError:
            raise errors.AudioLost() from None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(fd)
            raise errors.AudioLost()
        return AudioSource(fd, spooled=True)


def missing_recording_ref() -> OpenUploadRef:
    """Return the reference of a recording that is not stored: no descriptor has its number."""
    return OpenUploadRef(-1, 0, 0)


@dataclass(frozen=True, slots=True)
class StoredRecordingRef:
    """Stored upload, by its name in the storage of recordings, with the SHA-256 of the stored bytes
    in hexadecimal digits and their number. ``storage``: the kind of storage."""

    name: str
    sha256: str
    size: int
    storage: str = "folder"


@dataclass(frozen=True, slots=True)
class ClientFileRef:
    """File that a client named, at that time: the same file (``inode``), unchanged since
    (``mtime``, nanoseconds since 1970)."""

    path: str
    inode: int
    mtime: int

    def open(self, roots: Sequence[Path] = ()) -> AudioSource:
        """Open it again, by the rules of `open_recording_file`.

        Raises:
            errors.BadRequest: it does not exist any more, or is outside of the roots.
            errors.StorageUnreachable: it is not found, but its folder may not be mounted; or the
                system lets nobody read it now, as it did when the job was submitted.
            errors.AudioLost: it is another file, or was changed.
        """
        # before it is opened: a folder that is mounted in between makes no missing file
        unmounted = _may_be_unmounted(self.path)
        try:
            source = open_recording_file(self.path, roots)
        except errors.AudioPathNotFound:
            if unmounted:
                raise errors.StorageUnreachable(
                    "The folder of 'audio_path' is missing or empty; it may not be mounted."
                ) from None
            raise
        except errors.AudioPathForbidden as error:
            if isinstance(error.__cause__, PermissionError):
                raise errors.StorageUnreachable(f"{error.detail} It was readable before.") from None
            raise
        status = os.fstat(source.fd)
        if (status.st_ino, status.st_mtime_ns) != (self.inode, self.mtime):
            source.close()
            raise errors.AudioLost(
                "The file that 'audio_path' names was changed after the job was submitted."
            )
        return source


def _may_be_unmounted(path: str) -> bool:
    """Return whether the folder of a file is missing, empty, or cannot be listed."""
    try:
        with os.scandir(os.path.dirname(os.path.realpath(path))) as entries:
            return next(entries, None) is None
    except OSError:
        return True


RecordingRef = OpenUploadRef | StoredRecordingRef | ClientFileRef


def recording_ref(source: AudioSource) -> OpenUploadRef | ClientFileRef:
    """Return the reference of an open recording. This does not block on the disk of a client's
    file."""
    status = source.status or os.fstat(source.fd)
    if source.path is not None:
        return ClientFileRef(source.path, status.st_ino, status.st_mtime_ns)
    return OpenUploadRef(source.fd, status.st_dev, status.st_ino)


class HashingStream:
    """Stream that counts and hashes its bytes as they are read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self.size = 0
        """Number of bytes so far."""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes so far, in hexadecimal digits."""
        return self._digest.hexdigest()


def sha256_of_file(fd: int) -> str:
    """Return the SHA-256 of a whole file, in hexadecimal digits."""
    read = HashingStream(read_chunks(fd))
    for _ in read:
        pass
    return read.sha256


def read_chunks(fd: int) -> Iterator[bytes]:
    """Yield the whole file, if possible without moving the position of other readers."""
    at = 0
    while piece := read_file_at(fd, at, _CHUNK_BYTES):
        at += len(piece)
        yield piece
