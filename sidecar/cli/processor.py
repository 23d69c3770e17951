"""What a service on this machine takes of its processors."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psutil

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Share:
    """The share of a core that a service's own process took since this was made, and its children.

    ``process``: None of a service elsewhere.
    """

    def __init__(self, process: psutil.Process | None) -> None:
        self._process = process
        self._begun = time.monotonic()
        self._before = self._taken()

    def so_far(self) -> tuple[float, float] | None:
        """Of the service, and of its engines; None where it cannot be told.

        Children that have ended meanwhile count nothing.
        """
        after, lasted = self._taken(), time.monotonic() - self._begun
        if after is None or self._before is None or not lasted:
            return None
        return (after[0] - self._before[0]) / lasted, max(0.0, after[1] - self._before[1]) / lasted

    def _taken(self) -> tuple[float, float] | None:
        import psutil

        if self._process is None:
            return None
        try:
            own = sum(self._process.cpu_times()[:2])
            below = self._process.children(recursive=True)
        except psutil.Error:
            return None
        others = 0.0
        for child in below:
            with contextlib.suppress(psutil.Error):
                others += sum(child.cpu_times()[:2])
        return own, others


def process_of(url: str, pid: object) -> psutil.Process | None:
    """The process that serves at ``url`` if it is one of this machine; ``pid`` is what it says.

    Believed only where that process does listen there: a container's numbers are its own.
    """
    import psutil

    from sidecar.server.port_owner import listens

    parts = urlsplit(url)
    if not isinstance(pid, int) or parts.hostname not in LOOPBACK or not parts.port:
        return None
    try:
        process = psutil.Process(pid)
        return process if listens(process, parts.port) else None
    except psutil.Error:
        return None
