"""Files that are read again when they change, while the service runs; the last good one counts."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from sidecar.errors import SettingsInvalid
from sidecar.threads import Threads

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_S = 5.0
"""Between two looks; a change counts within 30 s, with room for a slow disk."""


class Watched(Generic[T]):
    """What ``read`` makes of ``paths``, files or folders of files.

    Raises:
        errors.SettingsInvalid: it cannot be read the first time.
    """

    def __init__(self, what: str, paths: Iterable[Path], read: Callable[[], T]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._mark = self._look_at()
        self.value = read()
        """As it was read last, without a fault."""

    def look(self) -> bool:
        """Read again if something changed, which takes a disk; whether there is a new value."""
        mark = self._look_at()  # before reading: what changes meanwhile is seen the next time
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            self.value = self._read()
        except SettingsInvalid as error:
            log.error("%s changed and cannot be used; what was read before counts on: %s",
                      self._what, error.detail)  # fmt: skip
            return False
        log.info("%s read again", self._what)
        return True

    def _look_at(self) -> tuple[object, ...]:
        return tuple(_mark(each) for path in self._paths for each in _files(path))


class Watch:
    """All files that are looked at; each in a thread, so one on a silent disk holds up no other."""

    def __init__(self, every_s: float = LOOK_S) -> None:
        self._every_s = every_s
        self._all: list[Watched[Any]] = []

    def add(self, what: str, paths: Iterable[Path], read: Callable[[], T]) -> Watched[T]:
        """Watch files from now on, as `Watched` has it.

        Raises:
            errors.SettingsInvalid: they cannot be read the first time.
        """
        watched = Watched(what, paths, read)
        self._all.append(watched)
        return watched

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        await asyncio.gather(*map(self._keep_looking, self._all))

    async def _keep_looking(self, watched: Watched[Any]) -> None:
        threads = Threads("look", 1)
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await threads.run(watched.look)
            except Exception:  # whatever it was, the next look is due
                log.exception("a fault of ours while looking at a file")


def _files(path: Path) -> list[Path]:
    """A folder's files besides itself: one that is written in place does not change the folder."""
    try:
        return [path, *sorted(path.iterdir())]
    except OSError:
        return [path]


def _mark(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return str(path), error.errno
    if stat.S_ISFIFO(status.st_mode):  # it has said what it says
        return str(path), status.st_ino
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino
