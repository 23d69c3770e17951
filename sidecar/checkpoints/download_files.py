"""Partial downloads and their destination: checksum, resume offset, stall timeout."""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from sidecar import errors, files
from sidecar.checkpoints.checkpoint import PULL_NOTE_FILE, pulled_commit

GIT, SHA256, MD5, SIZE = "git", "sha256", "md5", "size"
_DIGEST_CHARS = {GIT: 40, SHA256: 64, MD5: 32, SIZE: 0}
LOCK = ".pull.lock"
_PARTIAL = ".incomplete"
_ANY_MARK = "[0-9a-f]" * 8


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file at a server: ``name`` is its path there and here, ``digest`` its checksum in hex.

    ``kind`` says which checksum: `GIT` is git's blob id; `SIZE` none, where a server has none.
    ``version`` tells it from what was there before, '' where the server does not say.
    """

    name: str
    size: int
    kind: str = SIZE
    digest: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        # They become names of files here, so what a server says must not leave the folder.
        parts = self.name.split("/")
        if self.size < 0 or not all(re.fullmatch(r"\w[\w.-]*", part) for part in parts):
            raise ValueError(f"no file to be fetched: {self.name!r}")
        if not re.fullmatch(r"[0-9a-f]*", self.digest) or (
            len(self.digest) != _DIGEST_CHARS[self.kind]
        ):
            raise ValueError(f"no checksum of {self.name}: {self.digest!r}")

    @property
    def mark(self) -> str:
        """A few letters for this version, for names of files."""
        version = f"{self.size} {self.version or self.digest}"
        return hashlib.sha256(version.encode()).hexdigest()[:8]

    def hashers(self) -> dict[str, Any]:
        """Return the hash objects of its checksums by kind: SHA-256 always, and the server's."""
        sums: dict[str, Any] = {SHA256: hashlib.sha256()}
        if self.kind == MD5:
            sums[MD5] = hashlib.md5(usedforsecurity=False)
        elif self.kind == GIT:
            sums[GIT] = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return sums


class DownloadDestination:
    """A folder that files are brought to; nothing has its final name before it is checked."""

    def __init__(self, folder: Path) -> None:
        self.root = self.folder = folder
        """The folder that all of it is in, and the one that can be loaded in the end."""
        self.lock = folder / LOCK
        """The file that one download at a time locks."""

    def path(self, file: HubFile) -> Path:
        """Return the final path of a file."""
        return self.folder.joinpath(*file.name.split("/"))

    def partial(self, file: HubFile) -> Path:
        """Return the path of a partial download: beside its final name, by its version."""
        path = self.path(file)
        return path.with_name(f"{path.name}.{file.mark}{_PARTIAL}")

    def found(self, file: HubFile) -> Path | None:
        """The file, where it is here already (which says nothing of its content)."""
        path = self.path(file)
        return path if path.is_file() else None

    def keep(self, file: HubFile) -> None:
        """Give a file that is whole its name; nothing where that is done."""
        with suppress(FileNotFoundError):
            os.replace(self.partial(file), self.path(file))

    def drop(self, file: HubFile) -> None:
        """Forget a file that is here."""
        self.path(file).unlink(missing_ok=True)

    def begin(self) -> None:
        """Remove the mark that another commit is complete here."""

    def finish(self, revision: str) -> None:
        """All of it is here."""


class FolderDestination(DownloadDestination):
    """A folder with the files of a commit, and a note of which that is (`checkpoint.PULLED`)."""

    def __init__(self, folder: Path, repository: str, commit: str) -> None:
        super().__init__(folder)
        self._repository, self._commit = repository, commit

    def begin(self) -> None:
        """Delete the note of another commit, whose files are about to be replaced."""
        if pulled_commit(self.folder) not in (None, self._commit):
            (self.folder / PULL_NOTE_FILE).unlink()

    def finish(self, revision: str) -> None:
        """Note which commit it is, and leave no lock behind."""
        note = {"repository": self._repository, "revision": revision, "commit": self._commit}
        files.write(self.folder / PULL_NOTE_FILE, json.dumps(note).encode(), files.PUBLIC)
        with suppress(OSError):
            self.lock.unlink()


class HubCacheDestination(DownloadDestination):
    """A repository in the Hugging Face cache: blobs by checksum, and a folder of links per commit.

    The layout is documented by huggingface_hub ("Understand caching").
    """

    def __init__(self, root: Path, commit: str) -> None:
        super().__init__(root / "snapshots" / commit)
        self.root, self._commit = root, commit
        # Where huggingface_hub has its locks too.
        self.lock = root.parent / ".locks" / root.name / "pull.lock"

    def partial(self, file: HubFile) -> Path:
        """Beside the blob, by its checksum: the next attempt finds it, whatever its revision."""
        return self.root / "blobs" / f"{file.digest}{_PARTIAL}"

    def found(self, file: HubFile) -> Path | None:
        """The link, or the blob that another commit brought."""
        blob = self._blob(file)
        return super().found(file) or (blob if blob.is_file() else None)

    def keep(self, file: HubFile) -> None:
        """Name the blob and link to it; where links are not allowed (Windows) the blob moves."""
        blob, link = self._blob(file), self.path(file)
        with suppress(FileNotFoundError):
            os.replace(self.partial(file), blob)
        if link.is_file():
            return
        link.unlink(missing_ok=True)  # one that leads nowhere
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:
            os.replace(blob, link)

    def drop(self, file: HubFile) -> None:
        """Delete the link and the blob."""
        super().drop(file)
        self._blob(file).unlink(missing_ok=True)

    def finish(self, revision: str) -> None:
        """Note which commit a branch or a tag is."""
        if revision != self._commit and ".." not in revision:
            reference = self.root / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(self._commit, encoding="utf-8")

    def _blob(self, file: HubFile) -> Path:
        return self.root / "blobs" / file.digest


PARALLEL_DOWNLOADS = 4
"""Files at a time: one connection rarely fills a fast line."""
MAX_ATTEMPTS = 5
"""Attempts of a file without a byte of progress in between."""
RETRY_PAUSE_S = 1.0
READ_BYTES = 1 << 20
_POLL_S = 0.5

RESERVE_BYTES = 512 << 20
"""Disk space that a download leaves free."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers of a server that are worth another try."""
_UNITS = {"GB": (1e9, 1), "MB": (1e6, 0)}

Result = TypeVar("Result")
ChunkReader = Callable[[HubFile, int], Iterator[tuple[int, bytes]]]
"""The bytes of a file from a place to its end, each chunk with its place in the file; raises
`DownloadInterrupted`. A server that knows no ranges begins at 0 again."""


class DownloadInterrupted(Exception):
    """The server stopped answering in the middle of a file; another try may do."""


class DownloadStopped(Exception):
    """Another file failed, or Ctrl-C was pressed."""


class DownloadProgress:
    """Progress of a download. This one shows nothing."""

    def begin(self, what: str, total: int) -> None:
        """It begins; ``total`` bytes are to be here and checked at the end."""

    def advance(self, count: int) -> None:
        """Count so many bytes more (or fewer) that are here and checked. Called from any thread."""

    def notice(self, message: str) -> None:
        """Print a notice."""


class PartialFile:
    """A file as far as it is here, and the checksums of that, in one reading."""

    def __init__(
        self, file: HubFile, content: BinaryIO, meter: DownloadProgress, stop: threading.Event
    ) -> None:
        self.file = file
        self.done = 0
        self._content, self._meter, self._stop = content, meter, stop
        self._sums = file.hashers()
        content.seek(0)
        while self.done < file.size and (data := content.read(READ_BYTES)):
            self._count(data[: file.size - self.done])
        self.too_long = bool(content.read(1))

    @property
    def whole(self) -> bool:
        """Return whether every byte is here, and is the one that the server has."""
        kind = self.file.kind
        here = self.done == self.file.size and not self.too_long
        return here and (kind == SIZE or self._sums[kind].hexdigest() == self.file.digest)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what is here, in hex."""
        return str(self._sums[SHA256].hexdigest())

    def write(self, data: bytes) -> None:
        """Append what came."""
        self.too_long = len(data) > self.file.size - self.done
        self._content.write(data)
        self._count(data)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._content.truncate(0)
        self._meter.advance(-self.done)
        self._sums, self.done, self.too_long = self.file.hashers(), 0, False

    def _count(self, data: bytes) -> None:
        if self._stop.is_set():
            raise DownloadStopped
        for one in self._sums.values():
            one.update(data)
        self.done += len(data)
        self._meter.advance(len(data))


def download_file(read: ChunkReader, growing: PartialFile, stop: threading.Event) -> None:
    """Ask for what is missing until all of it is here; every byte that comes renews the patience.

    Raises:
        Exception: it does not come; what the server or the network said last.
        Stopped: ``stop`` was set.
    """
    if growing.too_long:
        growing.restart()
    tries = MAX_ATTEMPTS
    while growing.done < growing.file.size:
        before = growing.done
        try:
            for place, data in read(growing.file, growing.done):
                if place != growing.done:
                    growing.restart()
                growing.write(data)
                if growing.too_long:
                    return
        except DownloadInterrupted as error:
            tries = MAX_ATTEMPTS if growing.done > before else tries - 1
            if not tries:
                raise (error.__cause__ or error) from None
            if stop.wait(RETRY_PAUSE_S):
                raise DownloadStopped from None


def chunks(answer: Any, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """As `ChunkReader`, what an HTTP answer (of httpx or httpx2) to a question from ``start`` on
    brings.

    Raises:
        Interrupted: it ends before ``size``, or is another part of the file.
    """
    place = 0
    if answer.status_code == 206:  # partial content
        found = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
        if found is None or int(found[1]) != start:
            raise DownloadInterrupted("another part than was asked for")
        place = start
    for data in answer.iter_bytes():
        yield place, data
        place += len(data)
    if place < size:
        raise DownloadInterrupted("the connection ended early")


def fetch(
    file: HubFile,
    place: DownloadDestination,
    read: ChunkReader,
    meter: DownloadProgress,
    stop: threading.Event,
) -> str:
    """Bring a file here, check it and give it its name; its SHA-256 in hex.

    Raises:
        errors.CheckpointDamaged: it came with another checksum.
        Stopped: ``stop`` was set.
    """
    begun = place.partial(file)
    begun.parent.mkdir(parents=True, exist_ok=True)
    name = glob.escape(place.path(file).name)
    for old in begun.parent.glob(f"{name}.{_ANY_MARK}{_PARTIAL}"):
        if old != begun:  # of another version
            old.unlink()
    with begun.open("a+b") as content:
        growing = PartialFile(file, content, meter, stop)
        download_file(read, growing, stop)
    if not growing.whole:
        begun.unlink()
        meter.advance(-growing.done)
        raise errors.CheckpointDamaged(
            f"{file.name} was downloaded with a wrong checksum and deleted.",
            hint="Repeat the command; if the error repeats, a proxy on the way alters files.",
        )
    place.keep(file)
    return growing.sha256


def check_room(
    place: DownloadDestination, missing: Sequence[HubFile], what: str, unit: str, hint: str
) -> None:
    """Raise `errors.DiskFull` if what is still to be fetched does not fit."""
    needed = 0
    for file in missing:
        begun = place.partial(file)
        needed += max(0, file.size - (begun.stat().st_size if begun.is_file() else 0))
    root = next(path for path in (place.root, *place.root.parents) if path.exists())
    free = shutil.disk_usage(root).free
    if needed and needed + RESERVE_BYTES > free:
        each, digits = _UNITS[unit]
        raise errors.DiskFull(
            f"The {what} needs {needed / each:.{digits}f} {unit} in {place.root}, "
            f"and {free / each:.{digits}f} {unit} are free there.",
            hint=hint,
        )


@contextmanager
def locked(place: DownloadDestination, detail: str | None = None) -> Iterator[None]:
    """Lock a destination, which is created.

    Raises:
        errors.PullRunning: another process is at it, as ``detail`` says.
    """
    for folder in (place.root, place.lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.lock, timeout=0):
            yield
    except Timeout:
        raise errors.PullRunning(detail) from None


@contextmanager
def explained_by(
    address: str, network: tuple[type[Exception], ...], hint: str | None = None
) -> Iterator[None]:
    """The errors of the network (those that are named) and of the disk, as ours; ``hint``: what
    helps where a folder is at fault."""
    try:
        yield
    except network as error:
        raise errors.HubUnreachable(
            f"{address} cannot be reached: {str(error) or type(error).__name__}.",
            hint=f"{errors.HubUnreachable.default_hint} Without a network here, run it with "
            "'--to FOLDER' on another computer, and copy the folder (docs/models.md).",
        ) from None
    except OSError as error:
        raise _unwritable(error, hint) from None


def _unwritable(error: OSError, hint: str | None) -> errors.SidecarError:
    """Return the error of a disk that takes no more of a download."""
    if error.errno == errno.ENOSPC:
        return errors.DiskFull(
            "The disk is full.",
            hint="Free some space and repeat the command: it resumes the download.",
        )
    where = error.filename or "The folder"
    return errors.CheckpointUnwritable(
        f"{where} cannot be written to: {error.strerror or error}.", hint=hint
    )


def run_in_parallel(
    work: Iterable[Callable[[], Result]], stop: threading.Event
) -> Iterator[Result]:
    """Yield the result of each piece of ``work`` as it is done; the first that fails sets
    ``stop``."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
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
