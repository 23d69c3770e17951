"""Resumable download of files: destination, checksum, resume, retry, disk space, lock."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from sidecar import errors, files
from sidecar.checkpoints.checkpoint import (
    PULL_NOTE_FILE,
    UPDATE_MARK_FILE,
    is_revision,
    pulled_commit,
)

GIT, SHA256, MD5, SIZE = "git", "sha256", "md5", "size"
_DIGEST_CHARS = {GIT: 40, SHA256: 64, MD5: 32, SIZE: 0}
LOCK = ".pull.lock"
_PARTIAL = ".incomplete"
_ANY_MARK = "[0-9a-f]" * 8

PARALLEL_DOWNLOADS = 4
"""Maximum number of files at a time: one connection rarely uses all of a fast line."""
MAX_ATTEMPTS = 5
"""Maximum number of attempts of a file without a byte of progress in between."""
RETRY_PAUSE_S = 1.0
"""Pause from a broken connection to the next attempt."""
READ_BYTES = 1 << 20
_POLL_S = 0.5
RESERVE_BYTES = 512 << 20
"""Disk space that a download leaves free."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which a request is retried."""
_UNITS = {"GB": (1e9, 1), "MB": (1e6, 0)}
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class HubFile:
    """File at a server; ``name``: its path at the server and in the local folder.

    ``kind``: kind of the checksum; `GIT` is git's blob id, and `SIZE` means that the server has no
    checksum. ``digest``: the checksum in hex. ``version``: the server's mark of the file's version,
    '' if it sends none.
    """

    name: str
    size: int
    kind: str = SIZE
    digest: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        # Names and digests become local paths: a server's answer must not leave the folder.
        if self.size < 0 or not all(map(is_plain_name, self.name.split("/"))):
            raise ValueError(f"no file to be fetched: {self.name!r}")
        whole = len(self.digest) == _DIGEST_CHARS[self.kind]
        if not (whole and re.fullmatch("[0-9a-f]*", self.digest)):
            raise ValueError(f"no checksum of {self.name}: {self.digest!r}")

    @property
    def mark(self) -> str:
        """Return a short hash of this version, for names of partial files."""
        version = f"{self.size} {self.version or self.digest}"
        return hashlib.sha256(version.encode()).hexdigest()[:8]

    def hashers(self) -> dict[str, Any]:
        """Return hash objects by kind: always SHA-256, and the kind of the server's checksum."""
        sums: dict[str, Any] = {SHA256: hashlib.sha256()}
        if self.kind == MD5:
            sums[MD5] = hashlib.md5(usedforsecurity=False)
        elif self.kind == GIT:
            sums[GIT] = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return sums


def is_plain_name(name: str) -> bool:
    """Return whether a name may become that of a local file."""
    return re.fullmatch(r"\w[\w.-]*", name) is not None


class DownloadDestination:
    """Folder of a download; a file gets its final name only after its check."""

    def __init__(self, folder: Path) -> None:
        self.root = self.folder = folder
        """``root`` has all files; ``folder`` can be loaded after the download."""
        self.lock = folder / LOCK
        """Lock file: one download at a time."""

    def path(self, file: HubFile) -> Path:
        """Return the final path of a file."""
        return self.folder.joinpath(*file.name.split("/"))

    def partial(self, file: HubFile) -> Path:
        """Return the path of a partial file: beside the final one, with the version's mark."""
        path = self.path(file)
        return path.with_name(f"{path.name}.{file.mark}{_PARTIAL}")

    def found(self, file: HubFile) -> Path | None:
        """Return the path of an existing file (its content is not checked), or `None`."""
        path = self.path(file)
        return path if path.is_file() else None

    def keep(self, file: HubFile) -> None:
        """Rename a complete file to its final name, unless that is done."""
        with suppress(FileNotFoundError):
            files.replace(self.partial(file), self.path(file))

    def drop(self, file: HubFile) -> None:
        """Delete a file."""
        files.remove(self.path(file))

    def begin(self, is_stale: Callable[[str], bool]) -> None:
        """Prepare for another commit: delete the note that the one before is complete, and its
        files that would be loaded in place of those to come (``is_stale``, by name)."""

    def end_update(self) -> None:
        """Record that all files are those of one commit."""

    def finish(self, revision: str) -> None:
        """Record that all files are complete."""


class FolderDestination(DownloadDestination):
    """Folder with the files of a commit, and a note with that commit (`PULL_NOTE_FILE`)."""

    def __init__(self, folder: Path, repository: str, commit: str) -> None:
        super().__init__(folder)
        self._repository, self._commit = repository, commit
        self._is_own = False

    def drop(self, file: HubFile) -> None:
        """Delete a file of a download.

        Raises:
            errors.CheckpointUnwritable: it may be of another model, such as a fine-tuned one.
        """
        if not self._is_own:
            raise errors.CheckpointUnwritable(
                f"{self.path(file)} is of another model, and is kept.",
                hint="Name a new folder: --to DIR",
            )
        super().drop(file)

    def begin(self, is_stale: Callable[[str], bool]) -> None:
        """As `DownloadDestination.begin`. The folder cannot be loaded until `end_update`."""
        mark, pulled = self.folder / UPDATE_MARK_FILE, pulled_commit(self.folder)
        is_new = {path.name for path in self.folder.iterdir()} <= {LOCK}
        self._is_own = is_new or mark.exists() or pulled is not None
        if self._is_own and pulled != self._commit:
            mark.touch()
            files.remove(self.folder / PULL_NOTE_FILE)
        if mark.exists():
            for file in self.folder.iterdir():
                if is_stale(file.name):
                    files.remove(file)

    def end_update(self) -> None:
        """As `DownloadDestination.end_update`."""
        files.remove(self.folder / UPDATE_MARK_FILE)

    def finish(self, revision: str) -> None:
        """Write the note with the commit, and delete the lock file."""
        note = {"repository": self._repository, "revision": revision, "commit": self._commit}
        files.write(self.folder / PULL_NOTE_FILE, json.dumps(note).encode(), files.PUBLIC)
        with suppress(OSError):
            files.remove(self.lock)


class HubCacheDestination(DownloadDestination):
    """Repository in the Hugging Face cache: blobs by checksum, and a folder of links per commit.

    The layout is documented by huggingface_hub ("Understand caching").
    """

    def __init__(self, root: Path, commit: str) -> None:
        super().__init__(root / "snapshots" / commit)
        self.root, self._commit = root, commit
        # huggingface_hub has its locks in the same folder.
        self.lock = root.parent / ".locks" / root.name / "pull.lock"

    def partial(self, file: HubFile) -> Path:
        """Return the path beside the blob, by checksum: an attempt of any revision resumes it."""
        return self.root / "blobs" / f"{file.digest}{_PARTIAL}"

    def found(self, file: HubFile) -> Path | None:
        """Return the link, or the blob that another commit has, or `None`."""
        blob = self._blob(file)
        return super().found(file) or (blob if blob.is_file() else None)

    def keep(self, file: HubFile) -> None:
        """Rename the blob and link to it; if links are not allowed (Windows), move the blob."""
        blob, link = self._blob(file), self.path(file)
        with suppress(FileNotFoundError):
            files.replace(self.partial(file), blob)
        if link.is_file():
            return
        files.remove(link)  # a dangling link
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            link.symlink_to(os.path.relpath(blob, link.parent))
        if not link.is_file():
            files.replace(blob, link)

    def drop(self, file: HubFile) -> None:
        """Delete the link and the blob."""
        super().drop(file)
        files.remove(self._blob(file))

    def finish(self, revision: str) -> None:
        """Record the commit of a branch or tag."""
        if revision != self._commit and is_revision(revision):
            reference = self.root / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(self._commit, encoding="utf-8")

    def _blob(self, file: HubFile) -> Path:
        return self.root / "blobs" / file.digest


ChunkReader = Callable[[HubFile, int], Iterator[tuple[int, bytes]]]
"""Reader of a file from an offset to its end: yields the offset and bytes of each chunk, and raises
`DownloadInterrupted`. If a server does not support ranges, it starts at 0."""


class DownloadInterrupted(Exception):
    """Interruption of a file by the server or the network; a retry may succeed."""


class DownloadStopped(Exception):
    """Stop of a download, because another file failed or the user pressed Ctrl-C."""


class DownloadProgress:
    """Progress of a download; this base class shows nothing."""

    def begin(self, what: str, total: int) -> None:
        """Start the display; at the end ``total`` bytes are downloaded and checked."""

    def advance(self, count: int) -> None:
        """Add ``count`` downloaded and checked bytes; may be negative. Called from any thread."""

    def notice(self, message: str) -> None:
        """Print a notice."""


@dataclass(frozen=True, slots=True)
class RunningDownload:
    """Download of files to a destination; ``stop`` is set if one of them fails. ``retry_pause_s``:
    as `RETRY_PAUSE_S`."""

    destination: DownloadDestination
    progress: DownloadProgress
    retry_pause_s: float = RETRY_PAUSE_S
    stop: threading.Event = field(default_factory=threading.Event)


class PartialFile:
    """Partial file and the checksums of its content, which is read once."""

    def __init__(self, file: HubFile, content: BinaryIO, download: RunningDownload) -> None:
        self.file = file
        self.done = 0
        self._content, self._meter, self.stop = content, download.progress, download.stop
        self._sums = file.hashers()
        content.seek(0)
        while self.done < file.size and (data := content.read(READ_BYTES)):
            self._count(data[: file.size - self.done])
        self.too_long = bool(content.read(1))

    @property
    def whole(self) -> bool:
        """Return whether all bytes are there and match the server's checksum."""
        kind = self.file.kind
        here = self.done == self.file.size and not self.too_long
        return here and (kind == SIZE or self._sums[kind].hexdigest() == self.file.digest)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the content, in hex."""
        return str(self._sums[SHA256].hexdigest())

    def write(self, data: bytes) -> None:
        """Append received bytes."""
        self.too_long = len(data) > self.file.size - self.done
        self._content.write(data)
        self._count(data)

    def restart(self) -> None:
        """Delete the content and start again."""
        self._content.truncate(0)
        self._meter.advance(-self.done)
        self._sums, self.done, self.too_long = self.file.hashers(), 0, False

    def _count(self, data: bytes) -> None:
        if self.stop.is_set():
            raise DownloadStopped
        for one in self._sums.values():
            one.update(data)
        self.done += len(data)
        self._meter.advance(len(data))


def download_file(read: ChunkReader, partial_file: PartialFile, retry_pause_s: float) -> None:
    """Download the missing bytes of a file, with a pause before each further attempt; any progress
    resets the number of attempts.

    Raises:
        Exception: all attempts failed; the last error of the server or the network.
        DownloadStopped: the download was stopped.
    """
    if partial_file.too_long:
        partial_file.restart()
    tries = MAX_ATTEMPTS
    while partial_file.done < partial_file.file.size:
        before = partial_file.done
        try:
            for offset, data in read(partial_file.file, partial_file.done):
                if offset != partial_file.done:
                    partial_file.restart()
                partial_file.write(data)
                if partial_file.too_long:
                    return
        except DownloadInterrupted as error:
            tries = MAX_ATTEMPTS if partial_file.done > before else tries - 1
            if not tries:
                raise (error.__cause__ or error) from None
            if partial_file.stop.wait(retry_pause_s):
                raise DownloadStopped from None


def chunks(answer: Any, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks of an HTTP response (httpx or httpx2) as `ChunkReader`.

    ``start``: offset of the request. ``size``: size of the file.

    Raises:
        DownloadInterrupted: the response ends before ``size``, or has another range.
    """
    offset = 0
    if answer.status_code == 206:  # partial content
        found = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
        if found is None or int(found[1]) != start:
            raise DownloadInterrupted("another part than was asked for")
        offset = start
    for data in answer.iter_bytes():
        yield offset, data
        offset += len(data)
    if offset < size:
        raise DownloadInterrupted("the connection ended early")


def fetch(file: HubFile, read: ChunkReader, download: RunningDownload) -> str:
    """Download a file, check it and rename it; return its SHA-256 in hex.

    Raises:
        errors.CheckpointDamaged: its checksum is wrong.
        DownloadStopped: the download was stopped.
    """
    destination = download.destination
    begun = destination.partial(file)
    begun.parent.mkdir(parents=True, exist_ok=True)
    name = glob.escape(destination.path(file).name)
    for old in begun.parent.glob(f"{name}.{_ANY_MARK}{_PARTIAL}"):
        if old != begun:  # of another version
            files.remove(old)
    with begun.open("a+b") as content:
        growing = PartialFile(file, content, download)
        download_file(read, growing, download.retry_pause_s)
    if not growing.whole:
        files.remove(begun)
        download.progress.advance(-growing.done)
        raise errors.CheckpointDamaged(
            f"{file.name} was downloaded with a wrong checksum and deleted.",
            hint="Repeat the command; if the error repeats, a proxy on the way alters files.",
        )
    destination.keep(file)
    return growing.sha256


def check_room(
    destination: DownloadDestination,
    missing_files: Sequence[HubFile],
    what: str,
    unit: str,
    hint: str,
) -> None:
    """Raise `errors.DiskFull` if the missing bytes do not fit on the disk."""
    needed = 0
    for file in missing_files:
        begun = destination.partial(file)
        needed += max(0, file.size - (begun.stat().st_size if begun.is_file() else 0))
    root = next(path for path in (destination.root, *destination.root.parents) if path.exists())
    free = shutil.disk_usage(root).free
    if needed and needed + RESERVE_BYTES > free:
        each, digits = _UNITS[unit]
        raise errors.DiskFull(
            f"The {what} needs {needed / each:.{digits}f} {unit} in {destination.root}, "
            f"and {free / each:.{digits}f} {unit} are free there.",
            hint=hint,
        )


@contextmanager
def locked(destination: DownloadDestination, detail: str | None = None) -> Iterator[None]:
    """Create a destination and lock it.

    Raises:
        errors.PullRunning: another process has the lock; with the text ``detail``.
    """
    for folder in (destination.root, destination.lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(destination.lock, timeout=0):
            yield
    except Timeout:
        raise errors.PullRunning(detail) from None


@contextmanager
def explained_by(
    address: str, network: tuple[type[Exception], ...], hint: str | None = None
) -> Iterator[None]:
    """Translate the given errors of the network, and errors of the disk.

    ``hint``: hint of an error of the folder.
    """
    try:
        yield
    except network as error:
        raise errors.HubUnreachable(
            f"{address} cannot be reached: {str(error) or type(error).__name__}.",
            hint=f"{errors.HubUnreachable.default_hint} Without a network here, run it with "
            "'--to FOLDER' on another computer, and copy the folder (docs/models.md).",
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            remedy = "Free some space and repeat the command: it resumes the download."
            raise errors.DiskFull("The disk is full.", hint=remedy) from None
        where = error.filename or "The folder"
        raise errors.CheckpointUnwritable(
            f"{where} cannot be written to: {error.strerror or error}.", hint=hint
        ) from None


def run_in_parallel(
    work: Iterable[Callable[[], Result]], stop: threading.Event
) -> Iterator[Result]:
    """Yield the result of each call in ``work`` when it is done; a failure sets ``stop``."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        waiting = {pool.submit(one) for one in work}
        try:
            while waiting:
                # With a timeout, because Ctrl-C does not interrupt an endless wait on Windows.
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
