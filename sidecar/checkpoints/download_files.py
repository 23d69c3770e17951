"""Partial downloads and their destination: checksum, resume offset, stall timeout."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from sidecar import errors, files
from sidecar.checkpoints.checkpoint import PULLED, pulled_commit

_LFS_DIGEST_CHARS = 64


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at the hub: its name, its bytes, and the checksum that the hub has of it.

    ``digest`` is the sha256 of a large file, and git's blob id (sha1) of a small one.
    """

    name: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        # They become names of files here, so what a server says must not leave the folder.
        if not re.fullmatch(r"\w[\w.-]*", self.name, re.ASCII) or self.size < 0:
            raise ValueError(f"no file of a checkpoint: {self.name!r}")
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.digest):
            raise ValueError(f"no checksum of {self.name}: {self.digest!r}")

    def hasher(self) -> Any:
        """What computes the digest, of nothing yet."""
        if len(self.digest) == _LFS_DIGEST_CHARS:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    def is_met(self, hasher: Any) -> bool:
        """Whether ``hasher`` has the digest."""
        return bool(hasher.hexdigest() == self.digest)


class Destination(Protocol):
    """A place that files are brought to; nothing has its final name before it is checked."""

    @property
    def root(self) -> Path:
        """The folder that all of it is in."""

    @property
    def folder(self) -> Path:
        """The folder that can be loaded in the end."""

    @property
    def lock(self) -> Path:
        """The file that one download at a time locks."""

    def partial(self, file: RemoteFile) -> Path:
        """Where a file grows."""

    def found(self, file: RemoteFile) -> Path | None:
        """The file, where it is here already (which says nothing of its content)."""

    def keep(self, file: RemoteFile) -> None:
        """Give a file that is whole its name."""

    def drop(self, file: RemoteFile) -> None:
        """Forget a file that is here."""

    def begin(self) -> None:
        """Say no more that another commit is here whole."""

    def finish(self, revision: str) -> None:
        """All of it is here."""


@dataclass(frozen=True, slots=True)
class PlainFolder:
    """A folder with the files of a commit, and a note of which that is (`checkpoint.PULLED`)."""

    folder: Path
    repository: str
    commit: str

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.folder

    @property
    def lock(self) -> Path:
        """A hidden file in it, gone in the end."""
        return self.folder / ".pull.lock"

    def partial(self, file: RemoteFile) -> Path:
        """Beside its name to be, so that the last step is a rename."""
        return self.folder / f"{file.name}.incomplete"

    def found(self, file: RemoteFile) -> Path | None:
        """The file by its name."""
        path = self.folder / file.name
        return path if path.is_file() else None

    def keep(self, file: RemoteFile) -> None:
        """Rename it; nothing where that is done."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.partial(file), self.folder / file.name)

    def drop(self, file: RemoteFile) -> None:
        """Delete it."""
        (self.folder / file.name).unlink(missing_ok=True)

    def begin(self) -> None:
        """Delete the note of another commit, whose files are about to be replaced."""
        if pulled_commit(self.folder) not in (None, self.commit):
            (self.folder / PULLED).unlink()

    def finish(self, revision: str) -> None:
        """Note which commit it is, and leave no lock behind."""
        note = {"repository": self.repository, "revision": revision, "commit": self.commit}
        files.write(self.folder / PULLED, json.dumps(note).encode(), files.PUBLIC)
        with contextlib.suppress(OSError):
            self.lock.unlink()


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A repository in the Hugging Face cache: blobs by checksum, and a folder of links per commit.

    The layout is documented by huggingface_hub ("Understand caching").
    """

    root: Path
    commit: str

    @property
    def folder(self) -> Path:
        """The links of this commit."""
        return self.root / "snapshots" / self.commit

    @property
    def lock(self) -> Path:
        """Where huggingface_hub has its locks too."""
        return self.root.parent / ".locks" / self.root.name / "pull.lock"

    def partial(self, file: RemoteFile) -> Path:
        """Beside the blob, by its checksum: the next attempt finds it, whatever its revision."""
        return self.root / "blobs" / f"{file.digest}.incomplete"

    def found(self, file: RemoteFile) -> Path | None:
        """The link, or the blob that another commit brought."""
        for path in (self.folder / file.name, self._blob(file)):
            if path.is_file():
                return path
        return None

    def keep(self, file: RemoteFile) -> None:
        """Name the blob and link to it; where links are not allowed (Windows) the blob moves."""
        blob, link = self._blob(file), self.folder / file.name
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.partial(file), blob)
        if link.is_file():
            return
        link.unlink(missing_ok=True)  # one that leads nowhere
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:
            os.replace(blob, link)

    def drop(self, file: RemoteFile) -> None:
        """Delete the link and the blob."""
        (self.folder / file.name).unlink(missing_ok=True)
        self._blob(file).unlink(missing_ok=True)

    def begin(self) -> None:
        """Nothing: each commit has a folder of its own."""

    def finish(self, revision: str) -> None:
        """Note which commit a branch or a tag is."""
        if revision != self.commit and ".." not in revision:
            reference = self.root / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(self.commit, encoding="utf-8")

    def _blob(self, file: RemoteFile) -> Path:
        return self.root / "blobs" / file.digest


def unwritable(error: OSError, hint: str | None = None) -> errors.SidecarError:
    """What a disk that takes no more of a download means; ``hint`` where its folder is at fault."""
    if error.errno == errno.ENOSPC:
        return errors.DiskFull(
            "The disk is full.", hint="Free some space; the same command goes on where it stopped."
        )
    where = error.filename or "The folder"
    return errors.CheckpointUnwritable(
        f"{where} cannot be written: {error.strerror or error}.", hint=hint
    )


STREAMS = 4
"""Files at a time: one connection rarely fills a fast line."""
TRIES = 5
"""How often a file may break off without a byte in between."""
RETRY_S = 1.0
READ_BYTES = 1 << 20
_POLL_S = 0.5

Done = TypeVar("Done")
Read = Callable[[int], Iterator[tuple[int, bytes]]]
"""The bytes of a file from a place to its end, each chunk with its place in the file; raises
`Interrupted`. A server that knows no ranges begins at 0 again."""


class Interrupted(Exception):
    """The server stopped answering in the middle of a file; another try may do."""


class Stopped(Exception):
    """Another file failed, or somebody pressed Ctrl-C."""


class Meter:
    """What a download tells whoever looks on. This one keeps it to itself."""

    def begin(self, what: str, total: int) -> None:
        """It begins; ``total`` bytes are to be here and checked at the end."""

    def advance(self, count: int) -> None:
        """So many bytes more (or fewer) are here and checked. Called from any thread."""

    def notice(self, message: str) -> None:
        """Something worth a line."""


class Expected(Protocol):
    """What is known of a file before it is here."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def hasher(self) -> Any:
        """What sums it up by `update`, of nothing yet."""

    def is_met(self, hasher: Any) -> bool:
        """Whether what was summed up is the file."""


class Growing:
    """A file as far as it is here, and the checksum of that, in one reading."""

    def __init__(
        self, file: Expected, content: BinaryIO, meter: Meter, stop: threading.Event
    ) -> None:
        self.file = file
        self.done = 0
        self._content, self._meter, self._stop = content, meter, stop
        self.hasher = file.hasher()
        content.seek(0)
        while self.done < file.size and (data := content.read(READ_BYTES)):
            self._count(data[: file.size - self.done])
        self.too_long = bool(content.read(1))

    @property
    def whole(self) -> bool:
        """Whether every byte is here, and is the one that the server has."""
        here = self.done == self.file.size and not self.too_long
        return here and self.file.is_met(self.hasher)

    def write(self, data: bytes) -> None:
        """Append what came."""
        self.too_long = len(data) > self.file.size - self.done
        self._content.write(data)
        self._count(data)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._content.truncate(0)
        self._meter.advance(-self.done)
        self.hasher, self.done, self.too_long = self.file.hasher(), 0, False

    def _count(self, data: bytes) -> None:
        if self._stop.is_set():
            raise Stopped
        self.hasher.update(data)
        self.done += len(data)
        self._meter.advance(len(data))


def receive(read: Read, growing: Growing, stop: threading.Event) -> None:
    """Ask for what is missing until all of it is here; every byte that comes renews the patience.

    Raises:
        Interrupted: it does not come.
        Stopped: ``stop`` was set.
    """
    if growing.too_long:
        growing.restart()
    tries = TRIES
    while growing.done < growing.file.size:
        before = growing.done
        try:
            for place, data in read(growing.done):
                if place != growing.done:
                    growing.restart()
                growing.write(data)
                if growing.too_long:
                    return
        except Interrupted:
            tries = TRIES if growing.done > before else tries - 1
            if not tries:
                raise
            if stop.wait(RETRY_S):
                raise Stopped from None


def side_by_side(work: Iterable[Callable[[], Done]], stop: threading.Event) -> Iterator[Done]:
    """What each piece of ``work`` gives, as it is done; the first that fails sets ``stop``."""
    with ThreadPoolExecutor(STREAMS) as pool:
        waiting = {pool.submit(one) for one in work}
        try:
            while waiting:
                # In steps, because a wait without end hears no Ctrl-C on Windows.
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
