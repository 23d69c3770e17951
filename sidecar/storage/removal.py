"""What is to be deleted on a server that may be away: behind whoever says so, until it is done.

Nobody waits for it. What is not done when the service ends is found by the next that starts.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from sidecar.errors import SidecarError

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 1.0, 60.0
"""Pauses after a deletion that was not done: the first, and what they grow to."""
CLOSE_S = 3.0
"""So long the end of the service waits for those that are left."""


class Removal:
    """Does one after the other, in a thread of its own that begins with the first."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False

    def put(self, remove: Callable[[], None]) -> None:
        """Have it done, and again as long as it raises an `errors.SidecarError`."""
        with self._news:
            self._waiting.append(remove)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="removal", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def close(self) -> None:
        """Let it do what is left, for a moment."""
        with self._news:
            self._closing = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._waiting or self._thread is None, CLOSE_S)
            if self._waiting:
                log.warning("%d recordings go with a later start", len(self._waiting))

    def _run(self) -> None:
        pause_s = 0.0
        while True:
            with self._news:
                if pause_s:
                    self._news.wait_for(lambda: self._closing, pause_s)
                self._news.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting or (self._closing and pause_s):
                    self._thread = None
                    self._news.notify_all()
                    return
                remove = self._waiting[0]
            try:
                remove()
            except SidecarError as error:
                pause_s = min(max(2 * pause_s, FIRST_S), LONGEST_S)
                log.warning("a recording is deleted later (%s)", error.code)
                self._waiting.rotate(-1)  # the next may be luckier
                continue
            except Exception:
                log.exception("a fault of ours while a recording was deleted")
            pause_s = 0.0
            with self._news:
                self._waiting.popleft()
                self._news.notify_all()
