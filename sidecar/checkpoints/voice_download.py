"""Fetch the files of a voice that speaks: side by side, each resumed, each checked, each listed."""

from __future__ import annotations

import glob
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from sidecar import errors
from sidecar.checkpoints.file_server import SHA256, FileServer, ServedFile, explained
from sidecar.checkpoints.growing import Growing, Meter, receive, side_by_side
from sidecar.checkpoints.pulled import Pulled, PulledFile, PulledVoice

RESERVE_BYTES = 512 << 20
"""What stays free on the disk."""
LOCK = ".pull.lock"
_PARTIAL = ".incomplete"
_ANY_MARK = "[0-9a-f]" * 8


def pull(folder: Path, url: str, voice: PulledVoice, meter: Meter | None = None) -> Pulled:
    """Bring the files of ``voice`` from below ``url`` to ``folder``; what is there of them in all.

    What is here is checked by the list and not fetched again; with all of it here nobody is asked.
    What an interruption leaves is used by the next call.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound: no answer, or no such file.
        errors.CheckpointDamaged: a file came damaged.
        errors.DiskFull, errors.CheckpointUnwritable: there is no room, or no right to it.
        errors.PullRunning: another process is at it.
    """
    meter = meter or Meter()
    with explained(url):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            with lock:
                pulled = _bring(Pulled.read(folder), url, voice, meter).with_voice(voice)
                pulled.write()
        except Timeout:
            raise errors.PullRunning("Another 'vibevoice-asr pull voice' is at work.") from None
    return pulled


def _bring(pulled: Pulled, url: str, voice: PulledVoice, meter: Meter) -> Pulled:
    wanted = [key for key in voice.files if not pulled.sound(key)]
    for key in wanted:
        if key in pulled.files and pulled.path(key).exists():
            meter.notice(f"{key} is damaged: it is fetched anew.")
            pulled.path(key).unlink()
    if not wanted:
        return pulled
    stop = threading.Event()
    with closing(FileServer(url)) as server:
        files = list(side_by_side([partial(server.look_up, key) for key in wanted], stop))
        _check_room(pulled, files)
        meter.begin(voice.name, sum(file.size for file in files))
        work = [partial(_fetch, server, file, pulled.path(file.key), meter, stop) for file in files]
        for key, came in side_by_side(work, stop):
            pulled = pulled.with_file(key, came)
            pulled.write()  # so that what is whole stays so, whatever becomes of the others
    return pulled


def _fetch(
    server: FileServer, file: ServedFile, path: Path, meter: Meter, stop: threading.Event
) -> tuple[str, PulledFile]:
    """Bring one file here and check it; `growing.Stopped` once ``stop`` is set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = _partial(path, file)
    for old in path.parent.glob(f"{glob.escape(path.name)}.{_ANY_MARK}{_PARTIAL}"):
        if old != begun:  # of another version
            old.unlink()
    with begun.open("a+b") as content:
        growing = Growing(file, content, meter, stop)
        receive(partial(server.read, file), growing, stop)
    if not growing.whole:
        begun.unlink()
        meter.advance(-growing.done)
        raise errors.CheckpointDamaged(
            f"{file.key} came with a wrong checksum and was deleted.",
            hint="Run the same command again; if it stays so, something alters files on the way.",
        )
    os.replace(begun, path)
    return file.key, PulledFile(file.size, growing.hasher.of(SHA256), file.kind)


def _partial(path: Path, file: ServedFile) -> Path:
    """Where a file grows: beside its name to be, by its version."""
    return path.with_name(f"{path.name}.{file.mark}{_PARTIAL}")


def _check_room(pulled: Pulled, files: Sequence[ServedFile]) -> None:
    needed = 0
    for file in files:
        begun = _partial(pulled.path(file.key), file)
        needed += max(0, file.size - (begun.stat().st_size if begun.is_file() else 0))
    free = shutil.disk_usage(pulled.folder).free
    if needed + RESERVE_BYTES > free:
        raise errors.DiskFull(
            f"The voice needs {needed / 1e6:.0f} MB in {pulled.folder}, "
            f"and {free / 1e6:.0f} MB are free there.",
            hint="Free some space, or set VIBEVOICE_VOICES_DIR to a folder on another disk.",
        )
