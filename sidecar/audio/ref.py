"""A recording by reference: what a job's record says of its audio, and how it is opened again.

An upload that is only held has no name and is gone with its descriptor. Who asks that a job
outlives the process has its upload written under a name of ours (`sidecar.storage`); nobody
else's ever gets one. A file that a client named stays the client's.

All that is here waits for a disk: call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar import errors
from sidecar.audio.source import AudioSource, open_path

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
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


def nowhere() -> Held:
    """Return the reference of a recording that is not kept: no descriptor has that number."""
    return Held(-1, 0, 0)


@dataclass(frozen=True, slots=True)
class Kept:
    """An upload that was written down, by its name in the storage of recordings, and what it was
    then: the SHA-256 of what is there, in hexadecimal digits, and how many bytes that are (None:
    an older version wrote it). ``storage``: of which kind that is."""

    name: str
    sha256: str
    size: int | None = None
    storage: str = "folder"


@dataclass(frozen=True, slots=True)
class Named:
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
        source = open_path(self.path, roots)
        status = os.fstat(source.fd)
        if (status.st_ino, status.st_mtime_ns) != (self.inode, self.mtime):
            source.close()
            raise errors.AudioLost("The file that was named has been changed since.")
        return source


AudioRef = Held | Kept | Named


def ref_to(source: AudioSource) -> Held | Named:
    """What an open recording is known by."""
    status = os.fstat(source.fd)
    if source.path is not None:
        return Named(source.path, status.st_ino, status.st_mtime_ns)
    return Held(source.fd, status.st_dev, status.st_ino)


class Measured:
    """A stream that is counted while somebody takes it."""

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


def digest_of(fd: int) -> str:
    """The SHA-256 of a whole file, in hexadecimal digits."""
    read = Measured(pieces(fd))
    for _ in read:
        pass
    return read.sha256


def pieces(fd: int) -> Iterator[bytes]:
    """The whole file; where the system lets us, whoever else reads it keeps its position."""
    at = 0
    while piece := _read_at(fd, at):
        at += len(piece)
        yield piece


def _read_at(fd: int, at: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, _PIECE)
    return os.pread(fd, _PIECE, at)
