"""Notes of crashes of worker processes, for bug reports; without audio and text."""

import json
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar import clock, files
from sidecar.version import __version__

log = logging.getLogger(__name__)
MAX_CRASH_NOTES = 20
"""Newest crash notes that are kept."""


class CrashNotes:
    """Folder of crash notes: last lines of the engine's log, versions, GPU, memory plan."""

    def __init__(self, data: Path | None) -> None:
        self.folder = data and data / "crash"

    def write(self, who: str, about: Mapping[str, Any]) -> Path | None:
        """Write a note about a worker's death; return the file, or None if it cannot be written."""
        if self.folder is None:
            return None
        note = {
            "time": clock.format_utc(clock.wall_time()),
            "who": who,
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            **about,
        }
        path = self.folder / f"{files.unused_mark()}.json"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.open_new(path) as file:
                file.write(json.dumps(note, indent=2, default=str).encode() + b"\n")
            for old in self.notes()[:-MAX_CRASH_NOTES]:
                files.remove(old)
        except OSError as error:
            log.warning("the crash note cannot be written: %s", error.strerror)
            return None
        log.warning("crash note written: %s", path.name)
        return path

    def notes(self) -> list[Path]:
        """Return all notes, oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("*.json"))
