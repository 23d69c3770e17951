"""Notes of crashes: what a bug report needs, and nothing of what was said or heard.

A note has the last lines of the engine's log, versions, the GPU and the memory plan. The log holds
no audio and no transcript (tests/transports/test_privacy.py).
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar import __version__

log = logging.getLogger(__name__)

KEPT_NOTES = 20


def data_folder(chosen: Path | None) -> Path | None:
    """Where logs and notes go: ``chosen``, or the user's state folder; None if there is none."""
    if chosen is not None:
        return chosen
    import platformdirs

    try:
        return Path(platformdirs.user_state_dir("vibevoice-asr", appauthor=False))
    except (OSError, KeyError, RuntimeError):  # a user without a home
        return None


class CrashNotes:
    """The folder of them."""

    def __init__(self, data: Path | None) -> None:
        self.folder = data and data / "crash"

    def write(
        self, who: str, exit_code: int | None, last_lines: Sequence[str], about: Mapping[str, Any]
    ) -> Path | None:
        """Note the death of a worker; the file, None where it could not be written."""
        if self.folder is None:
            return None
        note = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "who": who,
            "exit_code": exit_code,
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            **about,
            "last_lines": list(last_lines),
        }
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 10**6:06}"
        path = self.folder / f"{name}.json"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(json.dumps(note, indent=2, default=str) + "\n", encoding="utf-8")
            for old in self.notes()[:-KEPT_NOTES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("no note of the crash: %s", error.strerror)
            return None
        log.warning("noted in %s", path.name)
        return path

    def notes(self) -> list[Path]:
        """All of them, oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("*.json"))
