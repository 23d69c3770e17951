r"""Recording storage protocol, and recordings in a folder.

A shared file system has to support little: a file is written under a temporary name, synced,
renamed once it is whole, read and deleted. Its modification time is that of the file server.

Names are generated here (`\w[\w-]*`), begin with the code of the store whose job names them, and
are never used twice: what a store may delete is seen by the name. The job has the digest. All
methods block on a disk or a server: call them in a thread.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from sidecar import clock, errors, files
from sidecar.audio.audio_source import read_chunks
from sidecar.audio.upload_spool import storage_error
from sidecar.storage.encryption import Cipher, LocalObject, StoredObject

log = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".part"
CLUSTER_PREFIX = "vibevoice-"
"""Beginning of the name of a cluster's subfolder; its code follows."""
OWNER_SUFFIX = ".store"
"""End of the name of the empty file that marks a folder as that of a store; its code is before."""
DISK_SUFFIX = ".disk"
"""End of the name of the empty file that notes that a folder is a disk of its own."""
_MOUNT_HINT = "Mount it, or make it for the user of this service; or set VIBEVOICE_UPLOADS."
_UNAVAILABLE_ERRNOS = {
    getattr(errno, name, errno.ETIMEDOUT)
    for name in ("ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH")
}
"""Errors of a file system whose server does not answer."""
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def store_code(cipher: Cipher) -> str:
    """Return the code of a store of jobs, by its key and the salt in its file or database: a
    restored backup has it, too."""
    return cipher.code("uploads")[:12]


def new_name(store: str) -> str:
    """Return a new name of a recording of the store with this code."""
    return f"{store}-{uuid.uuid4().hex}"


def names_of(store: str, names: Iterable[str]) -> Sequence[str]:
    """Return those of the names that `new_name` made for this store."""
    return [name for name in names if name.startswith(f"{store}-")]


class RecordingStorage(Protocol):
    """Storage of recordings: a folder or a bucket.

    Every method may raise `errors.StorageUnreachable`: the storage does not answer now, and its
    data is still there. `FileNotFoundError` means that a recording is not there.
    """

    @property
    def kind(self) -> str:
        """Return the kind of storage: a job names the kind that has its recording."""

    def put(self, name: str, pieces: Iterable[bytes], *, synced: bool = True) -> None:
        """Write a stream. If that fails, or the stream does, nothing is left, unless the storage
        does not answer: then it may have the recording, or an incomplete one. ``synced``: it
        survives a loss of power.

        Raises:
            errors.DiskFull: there is no space.
            errors.SpoolUnwritable: it cannot be written, or the name is taken.
        """

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the whole recording as it is stored; the caller checks its digest.

        Raises:
            OSError: it is not there, or cannot be read.
        """

    def open(self, name: str) -> StoredObject:
        """Open a recording for random access.

        Raises:
            OSError: as `read`.
        """

    def delete(self, name: str) -> None:
        """Delete a recording; a missing one does nothing.

        Raises:
            OSError: it cannot be deleted now.
        """

    def ages(self) -> Mapping[str, float]:
        """Return all recordings, with their ages in seconds by the storage's own clock. An
        incomplete one is listed, and deleted, by a name that ends with `PARTIAL_SUFFIX`."""


class FolderStorage:
    """`RecordingStorage` in a folder.

    A private one belongs to the store that `join` marked it for. One that the setting `uploads`
    names (``named``) may have files of others: a cluster of services has a subfolder there, which
    `join` makes once. Later a missing subfolder, or mark, means that the share or disk is not
    mounted: the storage is unreachable, and no recording is missing.
    """

    kind = "folder"

    def __init__(self, path: Path, *, named: bool = False) -> None:
        self._path, self._named = path, named
        self._sign: Path | None = None
        """What is there if the folder is mounted; None before `join`."""
        self._disk_note = path.with_name(f"{path.name}{DISK_SUFFIX}")
        """What is there, beside the private folder, if that was a disk of its own at the last
        start."""

    def __str__(self) -> str:
        return str(self._path)

    def join(
        self, store: str, once: Callable[[Callable[[], None]], None] = lambda call: None
    ) -> None:
        """Keep the recordings of the store with this code here: mark a private folder for it, or
        use its subfolder of a named one. ``once``: makes a call if no service of the store has made
        it before; by default the subfolder is not made.

        Raises:
            errors.FolderTaken: it is the private folder of another store.
            errors.SettingsInvalid: the mark or the subfolder cannot be made.
        """
        if not self._named:
            self._mark(store)
            return
        self._sign = self._path = self._path / f"{CLUSTER_PREFIX}{store}"
        try:
            once(partial(files.private_folder, self._path))
        except OSError as error:
            raise errors.SettingsInvalid(
                f"The folder of uploads, {self._path}, cannot be made: {error.strerror}.",
                hint=_MOUNT_HINT,
            ) from None
        if not self._path.is_dir():
            log.warning(
                "the folder of recordings, %s, is missing: jobs wait until its share is mounted",
                self._path,
            )

    def check_owner(self, store: str) -> None:
        """Check that the folder is marked for no other store.

        Raises:
            errors.FolderTaken: it is.
        """
        marks = {mark.stem for mark in self._path.glob(f"*{OWNER_SUFFIX}")}
        if marks - {store}:
            raise errors.FolderTaken(
                f"The folder {self._path} has the recordings of another store of jobs."
            )

    def _mark(self, store: str) -> None:
        """Mark the folder for a store, also one of an earlier release, which has no mark. The name
        of the file says all: there is no moment at which half of it is written."""
        mark = self._sign = self._path / f"{store}{OWNER_SUFFIX}"
        try:
            self.check_owner(store)
            if not mark.exists() and self._disk_note.exists() and not os.path.ismount(self._path):
                log.warning(
                    "the folder of recordings, %s, was a disk of its own, which is not mounted: "
                    "jobs wait until it is; if it is to be none, delete %s",
                    *(self._path, self._disk_note),
                )
                return
            if os.path.ismount(self._path):
                files.touch(self._disk_note)
            else:
                files.remove(self._disk_note)
            if mark.exists():
                return
            files.private_folder(self._path)
            files.touch(mark)
            try:
                self.check_owner(store)
            except errors.FolderTaken:  # the other store was started at the same moment
                files.remove(mark)
                raise
        except OSError as error:
            raise files.unusable_error(
                f"The folder of recordings, {self._path}, cannot be used: {error.strerror}.",
                self._path,
                error,
                hint="Set VIBEVOICE_DATA_DIR to a usable folder.",
            ) from None

    def check(self) -> None:
        """Check that a named folder can be written, or created in its parent.

        Raises:
            errors.SettingsInvalid: it cannot.
        """
        if not self._named:
            return
        try:
            folder = self._path if files.exists(self._path) else self._path.parent
            if not stat.S_ISDIR(folder.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise errors.SettingsInvalid(
                f"The folder of uploads, {self._path}, cannot be used: {error.strerror}.",
                hint=_MOUNT_HINT,
            ) from None

    def check_joined(self) -> None:
        """Check that the folder, with the subfolder of its cluster, can be used now.

        Raises:
            errors.SettingsInvalid: it cannot.
        """
        try:
            self._check_mounted()
            self._now()
        except (OSError, errors.StorageUnreachable) as error:
            why = getattr(error, "strerror", None) or "it is missing"
            raise errors.SettingsInvalid(
                f"The folder of recordings, {self._path}, cannot be used: {why}.", hint=_MOUNT_HINT
            ) from None

    def put(self, name: str, pieces: Iterable[bytes], *, synced: bool = True) -> None:
        """Write a stream; the file appears whole or not at all."""
        path, partial = self._path / name, self._path / f"{name}{PARTIAL_SUFFIX}"
        try:
            if self._named:
                self._check_mounted()
            else:
                files.private_folder(self._path)
            if path.exists():
                raise FileExistsError(errno.EEXIST, "the name is taken")
            file = files.open_new(partial)
            try:
                with file:
                    file.writelines(pieces)
                    file.flush()
                    if synced:
                        files.sync(file.fileno())
                files.replace(partial, path)
            except BaseException:
                files.remove(partial)
                raise
            if synced:
                try:
                    files.sync_folder(self._path)
                except BaseException:
                    files.remove(path)
                    raise
        except OSError as error:
            if error.errno in _UNAVAILABLE_ERRNOS:
                raise _unavailable_error(error) from None
            raise storage_error(error) from None

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the whole recording."""
        with _unavailable_errors():
            fd = self._opened(name)
            try:
                yield from read_chunks(fd)
            finally:
                os.close(fd)

    def open(self, name: str) -> LocalObject:
        """Open a recording for random access."""
        with _unavailable_errors():
            return LocalObject(self._opened(name))

    def delete(self, name: str) -> None:
        """Delete a recording; a missing one does nothing."""
        if not files.remove(self._path / name):
            self._check_mounted()

    def ages(self) -> Mapping[str, float]:
        """Return all files but the mark, with the seconds since their last change."""
        self._check_mounted()
        found, now = {}, self._now()
        for path in self._path.glob("*"):
            if path.suffix == OWNER_SUFFIX:
                continue
            with contextlib.suppress(FileNotFoundError):  # another service deleted it meanwhile
                found[path.name] = now - path.stat().st_mtime
        return found

    def _opened(self, name: str) -> int:
        """Return a descriptor of a file that `put` wrote; symbolic links are refused."""
        try:
            fd = files.open_to_read(self._path / name, _NO_LINKS)
        except FileNotFoundError:
            self._check_mounted()
            fd = files.open_to_read(self._path / name, _NO_LINKS)  # mounted meanwhile, or missing
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no file")
        return fd

    def _check_mounted(self) -> None:
        """Raise `errors.StorageUnreachable` if the subfolder of the cluster is missing, or the mark
        of the store."""
        if self._sign is not None and not self._sign.exists():
            raise errors.StorageUnreachable(
                "The folder of recordings is missing: its disk or share is not mounted."
            )

    def _now(self) -> float:
        """Return the time of the folder's file server, which determines the ages of files; that of
        this machine if the folder is its own."""
        if not self._named:
            return clock.wall_time()
        with files.nameless(self._path) as fresh:
            return os.fstat(fresh.fileno()).st_mtime


@contextlib.contextmanager
def _unavailable_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _UNAVAILABLE_ERRNOS:
            raise _unavailable_error(error) from None
        raise


@contextlib.asynccontextmanager
async def answering(
    within_s: float, detail: str = errors.StorageUnreachable.default_detail
) -> AsyncIterator[None]:
    """Limit the time for which a disk, a share or a bucket may leave its caller without an answer.

    Raises:
        errors.StorageUnreachable: the block took longer than ``within_s``; ``detail`` says what
            does not answer. A thread of it goes on.
    """
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise errors.StorageUnreachable(detail) from None


def _unavailable_error(error: OSError) -> errors.StorageUnreachable:
    return errors.StorageUnreachable(
        f"The folder of recordings cannot be reached: {error.strerror}."
    )
