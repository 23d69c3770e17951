"""Events of a download for programs: an object each, of which `pull --json` prints one per line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sidecar import errors
from sidecar.checkpoints.resumable_download import DownloadProgress

PROGRESS, NOTICE, DONE, FAILED = "progress", "notice", "done", "failed"
_STEPS = 1000
"""A download has at most about so many events of progress, whatever its size and speed."""


class PullEvents(DownloadProgress):
    """Progress as events. ``tell`` gets them one after the other, from any thread."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._done = self._total = self._step = 0

    def begin(self, what: str, total: int) -> None:
        """Tell the size, with nothing done."""
        with self._lock:
            self._total = total
            self._tell_progress()

    def advance(self, count: int) -> None:
        """Count bytes, and tell the progress if it is another thousandth."""
        with self._lock:
            self._done += count
            if (step := self._done * _STEPS // max(1, self._total)) != self._step:
                self._step = step
                self._tell_progress()

    def notice(self, message: str) -> None:
        """Tell a notice."""
        with self._lock:
            self._tell({"event": NOTICE, "message": message})

    def _tell_progress(self) -> None:
        self._tell({"event": PROGRESS, "bytes_done": self._done, "bytes_total": self._total})


def failed_event(error: errors.SidecarError) -> dict[str, Any]:
    """Return the last event of a download that failed."""
    body = {"code": error.code, "detail": error.detail, "hint": error.hint}
    return {"event": FAILED, "error": body}
