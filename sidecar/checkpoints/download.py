"""Fetch a checkpoint from the model hub: files in parallel, each resumed, each checked.

The bytes are fetched here and not by huggingface_hub, because its download (2.4) begins a file
anew after every interruption, and one file of these is gigabytes. What is written has the layout
of its cache, so that every tool finds it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sidecar import errors
from sidecar.checkpoints import hub, weights
from sidecar.checkpoints.checkpoint import Checkpoint
from sidecar.checkpoints.destination import CacheFolder, Destination, PlainFolder, RemoteFile
from sidecar.checkpoints.layout import TRANSFORMERS, Layout

STREAMS = 4
"""Files at a time: one connection rarely fills a fast line."""
RESERVE_BYTES = 512 << 20
"""What stays free on the disk."""
TRIES = 5
"""How often a file may break off without a byte in between."""
RETRY_S = 1.0
READ_BYTES = 1 << 20
_POLL_S = 0.5


class Meter:
    """What a download tells whoever looks on. This one keeps it to itself."""

    def begin(self, repository: str, total: int) -> None:
        """It begins; ``total`` bytes are to be here and checked at the end."""

    def advance(self, count: int) -> None:
        """So many bytes more (or fewer) are here and checked. Called from any thread."""

    def notice(self, message: str) -> None:
        """Something worth a line."""


class _Stopped(Exception):
    """Another file failed, or somebody pressed Ctrl-C."""


def pull(
    repo: str,
    revision: str = "main",
    to: Path | None = None,
    meter: Meter | None = None,
    layout: Layout = TRANSFORMERS,
) -> Checkpoint:
    """Bring a checkpoint here, to the Hugging Face cache or to the folder ``to``, and check it all.

    What is here already is checked and not fetched again. What an interruption leaves is used by
    the next call.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound, errors.RepositoryForbidden: no answer.
        errors.BadCheckpoint: it is of no use here, or came damaged.
        errors.DiskFull, errors.CheckpointUnwritable: there is no room, or no right to it.
        errors.PullRunning: another process is at it.
    """
    meter = meter or Meter()
    cache = weights.cache_folder(repo, weights.cache_root()).absolute()
    if hub.offline():
        return _offline(repo, to or _cached_folder(cache, revision), meter, layout)
    with hub.explained(repo, revision):
        snapshot = hub.look_up(repo, revision, layout)
        place: Destination = CacheFolder(cache, snapshot.commit)
        if to is not None:
            place = PlainFolder(to.expanduser().absolute())
        check_room(place, snapshot.files)
        for folder in (place.root, place.lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place.lock, timeout=0):
                _fetch_all(snapshot, place, meter, layout)
                checkpoint = layout.read(place.folder)
                place.finish(revision)
        except Timeout:
            raise errors.PullRunning() from None
    return checkpoint


def check_room(place: Destination, files: Sequence[RemoteFile]) -> None:
    """Raise `errors.DiskFull` if what is still to be fetched does not fit."""
    needed = 0
    for file in files:
        if place.found(file) is None:
            partial = place.partial(file)
            here = partial.stat().st_size if partial.is_file() else 0
            needed += max(0, file.size - here)
    root = next(path for path in (place.root, *place.root.parents) if path.exists())
    free = shutil.disk_usage(root).free
    if needed and needed + RESERVE_BYTES > free:
        raise errors.DiskFull(
            f"The download needs {needed / 1e9:.1f} GB in {place.root}, "
            f"and {free / 1e9:.1f} GB are free there.",
            hint="Free some space, or name a folder on another disk: "
            "vibevoice-asr pull NAME --to DIR",
        )


def _fetch_all(snapshot: hub.Snapshot, place: Destination, meter: Meter, layout: Layout) -> None:
    """The small files first: `config.json` says whether the large ones are worth it."""
    meter.begin(snapshot.repository, sum(file.size for file in snapshot.files))
    stop = threading.Event()
    large = [file for file in snapshot.files if layout.is_large(file.name)]
    for file in snapshot.files:
        if file not in large:
            _fetch(snapshot, file, place, meter, stop)
    layout.check_config(place.folder)
    with ThreadPoolExecutor(STREAMS) as pool:
        waiting = {pool.submit(_fetch, snapshot, file, place, meter, stop) for file in large}
        try:
            while waiting:
                # In steps, because a wait without end hears no Ctrl-C on Windows.
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(
    snapshot: hub.Snapshot,
    file: RemoteFile,
    place: Destination,
    meter: Meter,
    stop: threading.Event,
) -> None:
    """Bring one file here and check it; `_Stopped` once ``stop`` is set."""
    if (found := place.found(file)) is not None:
        with found.open("rb") as content:
            growing = _Growing(file, content, meter, stop)
        if growing.whole:
            place.keep(file)
            return
        meter.advance(-growing.done)
        meter.notice(f"{file.name} is damaged: it is fetched anew.")
        place.drop(file)
    partial = place.partial(file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a+b") as content:
        growing = _Growing(file, content, meter, stop)
        _receive(snapshot, growing, stop)
    if not growing.whole:
        partial.unlink()
        meter.advance(-growing.done)
        raise errors.CheckpointDamaged(
            f"{file.name} came with a wrong checksum and was deleted.",
            hint="Run the same command again; if it stays so, something alters files on the way.",
        )
    place.keep(file)


class _Growing:
    """A file as far as it is here, and the checksum of that, in one reading."""

    def __init__(
        self, file: RemoteFile, content: BinaryIO, meter: Meter, stop: threading.Event
    ) -> None:
        self.file = file
        self.done = 0
        self._content, self._meter, self._stop = content, meter, stop
        self._hasher = file.hasher()
        content.seek(0)
        while self.done < file.size and (data := content.read(READ_BYTES)):
            self._count(data[: file.size - self.done])
        self.too_long = bool(content.read(1))

    @property
    def whole(self) -> bool:
        """Whether every byte is here, and is the one that the hub has."""
        return not self.too_long and bool(self._hasher.hexdigest() == self.file.digest)

    def write(self, data: bytes) -> None:
        """Append what came."""
        self.too_long = len(data) > self.file.size - self.done
        self._content.write(data)
        self._count(data)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._content.truncate(0)
        self._meter.advance(-self.done)
        self._hasher, self.done, self.too_long = self.file.hasher(), 0, False

    def _count(self, data: bytes) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._hasher.update(data)
        self.done += len(data)
        self._meter.advance(len(data))


def _receive(snapshot: hub.Snapshot, growing: _Growing, stop: threading.Event) -> None:
    """Ask for what is missing until all of it is here; every byte that comes renews the patience.

    Raises:
        hub.Interrupted: it does not come.
    """
    if growing.too_long:
        growing.restart()
    tries = TRIES
    while growing.done < growing.file.size:
        before = growing.done
        try:
            for place, data in hub.read_file(snapshot, growing.file, growing.done):
                if place != growing.done:
                    growing.restart()
                growing.write(data)
                if growing.too_long:
                    return
        except hub.Interrupted:
            tries = TRIES if growing.done > before else tries - 1
            if not tries:
                raise
            if stop.wait(RETRY_S):
                raise _Stopped from None


def _cached_folder(cache: Path, revision: str) -> Path:
    """The folder of a revision in the cache, which need not be there."""
    reference = cache / "refs" / revision
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    return cache / "snapshots" / commit


def _offline(repo: str, folder: Path, meter: Meter, layout: Layout) -> Checkpoint:
    try:
        checkpoint = layout.find(folder)
    except errors.BadCheckpoint:
        raise errors.HubUnreachable(
            f"HF_HUB_OFFLINE is set, and {repo} is not here as a whole.",
            hint="Unset it for the download, or set VIBEVOICE_MODEL_PATH to a checkpoint's folder.",
        ) from None
    meter.notice("HF_HUB_OFFLINE is set: it is here as a whole; its checksums were not checked.")
    return checkpoint
