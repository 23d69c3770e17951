"""A recording by reference: what a job's record says of its audio, and how it is opened again.

An upload that is only held has no name and is gone with its descriptor. Who asks that a job
outlives the process has its upload written under a name of ours; nobody else's ever gets one. A
file that a client named stays the client's.

All that is here waits for a disk: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar import errors
from sidecar.audio.source import AudioSource, open_path, storage_error

_PIECE = 1 << 20
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_OPEN_KEPT = _READ | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_MAKE_KEPT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
PARTIAL = ".part"
"""How the name of a recording ends that is not written whole yet."""


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


@dataclass(frozen=True, slots=True)
class Kept:
    """An upload that was written down, and what it was: its SHA-256 in hexadecimal digits."""

    path: Path
    sha256: str

    def open(self, roots: Sequence[Path] = ()) -> AudioSource:
        """Open it, once it was read and found to be what it was.

        Raises:
            errors.AudioLost: it is gone, cut short or altered.
        """
        try:
            fd = open_kept(self.path)
        except OSError:
            raise errors.AudioLost() from None
        source = AudioSource(fd, spooled=True)
        try:
            whole = stat.S_ISREG(os.fstat(fd).st_mode) and digest_of(fd) == self.sha256
        except OSError:
            whole = False
        if not whole:
            source.close()
            raise errors.AudioLost("The recording that was kept is not what it was.")
        return source

    def forget(self) -> None:
        """Keep it no longer; one that is gone is forgotten already."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


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


Through = Callable[[Iterable[bytes]], Iterable[bytes]]
"""What makes of a stream the one that is written."""


def keep(
    source: AudioSource, folder: Path, name: str, through: Through = lambda pieces: pieces
) -> Kept:
    """Write a recording into a folder that only we may look into, under a name of ours.

    It is there whole or not at all, also if the machine loses its power; ``source`` stays open.
    ``through``: such as encryption; the digest is that of what is written.

    Raises:
        errors.DiskFull: there is no room.
        errors.SpoolUnwritable: the folder cannot be written, or the name is taken.
    """
    path, partial = folder / name, folder / f"{name}{PARTIAL}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)  # it may have been there before
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the name is taken")
        fd = os.open(partial, _MAKE_KEPT, 0o600)
        try:
            with os.fdopen(fd, "wb", buffering=0):
                digest = _copied(through(pieces(source.fd)), fd)
                os.fsync(fd)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        settle(folder)
    except OSError as error:
        raise storage_error(error) from None
    return Kept(path, digest)


def _copied(source: Iterable[bytes], target: int) -> str:
    """Write a stream into an open file; the digest of what it was."""
    digest = hashlib.sha256()
    for piece in source:
        digest.update(piece)
        with memoryview(piece) as rest:
            written = 0
            while written < len(rest):
                written += os.write(target, rest[written:])
    return digest.hexdigest()


def settle(folder: Path) -> None:
    """A name is on the disk once its folder is."""
    if os.name == "nt":
        return
    fd = os.open(folder, _READ)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_kept(path: Path) -> int:
    """A descriptor of what `keep` wrote; never of what a name leads to.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, _OPEN_KEPT)


def digest_of(fd: int) -> str:
    """The SHA-256 of a whole file, in hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in pieces(fd):
        digest.update(piece)
    return digest.hexdigest()


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
