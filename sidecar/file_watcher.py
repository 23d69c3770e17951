"""File watcher: files that are reread when they change."""

import asyncio
import logging
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from sidecar.concurrency import ThreadLimiter
from sidecar.errors import SettingsInvalid

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_INTERVAL_S = 5.0
"""Poll interval in seconds; a change takes effect within 30 s, with a margin for a slow disk."""


class WatchedFiles(Generic[T]):
    """Result of ``read`` for ``paths`` (files, or folders of files), reread when they change.

    Raises:
        errors.SettingsInvalid: it cannot be read the first time.
    """

    def __init__(self, what: str, paths: Iterable[Path], read: Callable[[], T]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._mark: object = self._signatures()
        """Signatures of the files as they were read last."""
        self._failure: object = None
        """Signatures and reason of the failed read that was logged last."""
        self.value = read()
        """Value of the last read that succeeded."""

    def reload_if_changed(self) -> bool:
        """Reread the files if they are not those of the last read that succeeded, which blocks on
        the disk; return whether there is a new value. A failure is logged once."""
        mark = self._signatures()  # before reading: a change meanwhile is seen at the next poll
        if mark == self._mark:
            return False
        try:
            self.value = self._read()
        except Exception as error:
            reason = error.detail if isinstance(error, SettingsInvalid) else repr(error)
            if self._failure != (mark, reason):
                self._failure = mark, reason
                log.error("%s changed and cannot be used; the previous version stays in use: %s",
                          self._what, reason)  # fmt: skip
            return False
        self._mark, self._failure = mark, None
        log.info("%s reloaded", self._what)
        return True

    def _signatures(self) -> tuple[object, ...]:
        return tuple(_file_signature(each) for path in self._paths for each in _files_under(path))


class FileWatcher:
    """Watcher of files, each polled in its own thread, so that a hanging disk blocks no other
    file."""

    def __init__(self, every_s: float = WATCH_INTERVAL_S) -> None:
        self._every_s = every_s
        self._all: list[WatchedFiles[Any]] = []

    def add(self, what: str, paths: Iterable[Path], read: Callable[[], T]) -> WatchedFiles[T]:
        """Watch files from now on; the result is reread when they change.

        Raises:
            errors.SettingsInvalid: they cannot be read the first time.
        """
        watched = WatchedFiles(what, paths, read)
        self._all.append(watched)
        return watched

    async def run(self) -> None:
        """Poll the files until cancelled."""
        await asyncio.gather(*map(self._poll, self._all))

    async def _poll(self, watched: WatchedFiles[Any]) -> None:
        threads = ThreadLimiter("file watcher", 1)
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await threads.run(watched.reload_if_changed)
            except Exception:  # no thread, for example: the next poll follows in any case
                log.exception("internal error while a watched file was read")


def _files_under(path: Path) -> list[Path]:
    """Return the path and, for a folder, its files: a file written in place does not change its
    folder."""
    try:
        return [path, *sorted(path.iterdir())]
    except OSError:
        return [path]


def _file_signature(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return str(path), error.errno
    if stat.S_ISFIFO(status.st_mode):  # its content is cached and cannot change
        return str(path), status.st_ino
    access = status.st_mode, status.st_uid, status.st_gid  # it may be readable now
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino, access
