"""Audio sources: open recordings, files named by a client, persistent references to both.

An upload (`upload_spool`) and a client's file end as one open descriptor with no name that matters
any more. The descriptor is what travels to the workers; whoever holds the source closes it.

All functions here wait for a disk: call them in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sidecar import errors, files
from sidecar.audio.audio_format import read_file_at

_DESCRIPTOR_FOLDERS = ("/proc/", "/dev/fd/")
_MAX_SYMLINKS = 40
"""Limit of symbolic links; Linux rejects the next."""
PATH_OUTSIDE_ROOTS = "'audio_path' lies outside of the folders that are allowed."


class AudioSource:
    """Open recording; closing it deletes an upload."""

    def __init__(self, fd: int, *, spooled: bool, path: str | None = None) -> None:
        self._fd: int | None = fd
        self.path = path
        """Path by which a client named the file; None of an upload."""
        self.spooled = spooled
        """True if the bytes are ours, on a local disk or in memory: reading them does not wait."""
        self._settled: Callable[[], None] | None = None

    def on_settled(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called once this has become a job, or nothing."""
        self._settled = tell

    def settle(self) -> None:
        """Mark it as settled; a second time does nothing."""
        tell, self._settled = self._settled, None
        if tell is not None:
            tell()

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
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording_file(path: str, roots: Sequence[Path] = ()) -> AudioSource:
    """Open the file that a client named, once, without waiting for whatever it is.

    ``roots``: the folders in which it must lie, links followed; none: anywhere.

    Raises:
        errors.BadRequest: no absolute path, not there, not readable, or not a regular file; one
            outside of the roots is forbidden, there or not.
    """
    if not path or "\0" in path or not os.path.isabs(path):
        raise errors.AudioPathInvalid()
    if os.name == "nt" and path.startswith("\\\\") and not path.startswith("\\\\?\\"):
        raise errors.AudioPathInvalid("'audio_path' names a file of another machine.")
    try:
        if roots and not _is_inside_roots(os.path.realpath(path), roots):
            raise errors.AudioPathForbidden(PATH_OUTSIDE_ROOTS)
        if _is_descriptor_path(path):
            raise errors.AudioPathNotAFile()
        fd = os.open(path, files.OPEN_FLAGS)
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
    if roots and not _is_inside_roots(_real_path(fd, path), roots):  # it was another a moment ago
        os.close(fd)
        raise errors.AudioPathForbidden(PATH_OUTSIDE_ROOTS)
    return AudioSource(fd, spooled=False, path=path)


def _is_descriptor_path(path: str) -> bool:
    """Return whether the path, or a link on its way, is in a folder of open files: those belong to
    a process, ours with other clients' uploads among them."""
    for _ in range(_MAX_SYMLINKS):
        folder = os.path.realpath(os.path.dirname(path))
        path = os.path.join(folder, os.path.basename(path))
        if f"{path}/".startswith(_DESCRIPTOR_FOLDERS):
            return True
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:  # no link: the end of the way
            return False
    return False


def _is_inside_roots(path: str, roots: Sequence[Path]) -> bool:
    return any(Path(path).is_relative_to(os.path.realpath(root)) for root in roots)


def _real_path(fd: int, path: str) -> str:
    """Return the real path of an open file; where the system does not tell, by its name once
    more."""
    if sys.platform == "linux":
        return os.readlink(f"/proc/self/fd/{fd}")
    return os.path.realpath(path)


def _is_plain_file(fd: int) -> bool:
    """Return whether it is a regular file on a disk, not one of the kernel's.

    A file without a name is an upload or scratch file of another client, and is refused.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or (os.name == "posix" and status.st_nlink == 0):
        return False
    return status.st_dev not in _virtual_filesystem_devices()


def _virtual_filesystem_devices() -> set[int]:
    if sys.platform != "linux":
        return set()
    mounts = [Path("/proc"), Path("/sys")]
    return {mount.stat().st_dev for mount in mounts if mount.is_mount()}


_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenUploadRef:
    """An upload that this process holds open, for as long as it does. ``device`` and ``inode`` say
    which file it is: the number of a closed descriptor is soon another's."""

    fd: int
    device: int
    inode: int

    def open(self, roots: Sequence[Path] = ()) -> AudioSource:
        """A descriptor of its own, for as long as the caller wants; they share one position.

        Raises:
            errors.AudioLost: it is held no longer.
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
    """Return the reference of a recording that is not kept: no descriptor has that number."""
    return OpenUploadRef(-1, 0, 0)


@dataclass(frozen=True, slots=True)
class StoredRecordingRef:
    """An upload that was written down, by its name in the storage of recordings, and what it was
    then: the SHA-256 of what is there, in hexadecimal digits, and how many bytes that are (None:
    an older version wrote it). ``storage``: of which kind that is."""

    name: str
    sha256: str
    size: int | None = None
    storage: str = "folder"


@dataclass(frozen=True, slots=True)
class ClientFileRef:
    """A file that a client named, as it was then: the same file (``inode``), unchanged since
    (``mtime``, nanoseconds since 1970)."""

    path: str
    inode: int
    mtime: int

    def open(self, roots: Sequence[Path] = ()) -> AudioSource:
        """Open it again, by the same rules as at first (`source.open_path`).

        Raises:
            errors.BadRequest: it is not there any more, or may not be read.
            errors.AudioLost: it is another, or was changed.
        """
        source = open_recording_file(self.path, roots)
        status = os.fstat(source.fd)
        if (status.st_ino, status.st_mtime_ns) != (self.inode, self.mtime):
            source.close()
            raise errors.AudioLost(
                "The file that 'audio_path' names was changed after the job was submitted."
            )
        return source


RecordingRef = OpenUploadRef | StoredRecordingRef | ClientFileRef


def recording_ref(source: AudioSource) -> OpenUploadRef | ClientFileRef:
    """Return the reference of an open recording."""
    status = os.fstat(source.fd)
    if source.path is not None:
        return ClientFileRef(source.path, status.st_ino, status.st_mtime_ns)
    return OpenUploadRef(source.fd, status.st_dev, status.st_ino)


class HashingStream:
    """Stream whose bytes are counted and hashed as they are read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes that went by."""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """The digest of what went by, in hexadecimal digits."""
        return self._digest.hexdigest()


def sha256_of_file(fd: int) -> str:
    """The SHA-256 of a whole file, in hexadecimal digits."""
    read = HashingStream(read_chunks(fd))
    for _ in read:
        pass
    return read.sha256


def read_chunks(fd: int) -> Iterator[bytes]:
    """The whole file; where the system allows it, without moving the position of other readers."""
    at = 0
    while piece := read_file_at(fd, at, _CHUNK_BYTES):
        at += len(piece)
        yield piece
