"""What was measured of the engine's pace, over restarts: a small file in the data folder.

In it are engines, models, precisions and three numbers each; nothing of any recording.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from sidecar import private
from sidecar.errors import SettingsInvalid
from sidecar.jobs.pace import Known, Line, Means, Pace

log = logging.getLogger(__name__)

NAME = "pace.json"
MOST = 64
"""Engines, models and precisions; those that were used last."""
MOST_BYTES = 64 << 10
EVERY_S = 60.0
"""As much may be lost with the process."""
LONGEST_S = 1e6


class PaceFile:
    """Where it is kept; without a ``folder`` nowhere. A broken or unwritable file costs a line of
    the log and nothing else."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder is not None else None
        self._written: Known = {}

    def read(self) -> dict[Means, Line]:
        """What was known at the last end."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            known = parsed(private.read(self._path, MOST_BYTES))
        except (SettingsInvalid, ValueError) as error:
            log.warning("what was known of the engine's pace cannot be read: %s", error)
            return {}
        self._written = known
        return known

    def write(self, known: Known) -> None:
        """Keep what is known now, if that is anything new; this waits for the disk."""
        if self._path is None or known == self._written:
            return
        self._written = known
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private.write(self._path, text(known))
        except (OSError, SettingsInvalid) as error:
            log.warning("what is known of the engine's pace cannot be kept: %s", error)

    async def run(self, pace: Pace) -> None:
        """Keep it again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.to_thread(self.write, pace.known)


def text(known: Known) -> bytes:
    """The file's content."""
    lines = [
        {
            "engine": means.engine,
            "model": means.model,
            "precision": means.precision,
            "begin_s": round(line.begin_s, 4),
            "per_s": None if line.per_s is None else round(line.per_s, 6),
            "load_s": round(line.load_s, 3),
        }
        for means, line in [*known.items()][-MOST:]
    ]
    return json.dumps({"version": 1, "paces": lines}, indent=1).encode()


def parsed(data: bytes) -> dict[Means, Line]:
    """What a file says.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        said = json.loads(data)
        if said["version"] != 1:
            raise ValueError(f"version {said['version']!r}")
        return dict(_entry(one) for one in said["paces"][-MOST:])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _entry(said: dict[str, Any]) -> tuple[Means, Line]:
    means = Means(*(str(said[name]) for name in ("engine", "model", "precision")))
    per_s = said["per_s"]
    return means, Line(
        _seconds(said["begin_s"]),
        None if per_s is None else _seconds(per_s),
        _seconds(said["load_s"]),
    )


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_S:
        raise ValueError("a number of seconds that cannot be")
    return float(value)
