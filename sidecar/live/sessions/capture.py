"""Every live session captured: what sees it, and gives it to the writer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar import __version__, clock, errors, private
from sidecar.config.settings import Settings
from sidecar.interfaces.live import Encoding
from sidecar.interfaces.live_events import to_wire
from sidecar.live.sessions.names import Limits, stem_of
from sidecar.live.sessions.recording import Line, Sound
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.told import Numbered
from sidecar.live.sessions.writer import Entry, Writer
from sidecar.storage.key import journal_key
from sidecar.storage.sealing import SALT, Seal

log = logging.getLogger(__name__)

GREETING = {"captured": True}
FORM = 1
"""Of the lines."""
PATIENCE_S = 3.0
"""So long the end of the service waits for the disk."""


def captures_folder(settings: Settings) -> Path:
    """Where captures are."""
    if settings.capture_dir is not None:
        return settings.capture_dir
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / "captures"


class Captures:
    """Observes all live sessions (`live.sessions.witness.Observer`)."""

    greeting: Mapping[str, Any] = GREETING

    def __init__(self, settings: Settings, engine: str, now: clock.Clock = clock.wall) -> None:
        """``engine``: what hears them.

        Raises:
            errors.SettingsInvalid: the folder or the key cannot be used.
        """
        folder, secret = captures_folder(settings), journal_key(settings)
        Seal(secret, bytes(SALT))  # a package that is missing is said at the start
        private.make_folder(folder)
        limits = Limits(settings.capture_mb << 20, settings.capture_files, settings.capture_age)
        self._engine, self._now = engine, now
        self._writer = Writer(folder, secret, limits, settings.capture_queue, now)
        log.warning("live sessions are captured, with all that is said in them, in %s", folder)

    def begin(self, session: Session) -> Witnessed:
        """A session begins."""
        at = self._now()
        options = session.options.spoken.to_wire()  # nobody's voice is kept with what was said
        first = {
            "capture": FORM,
            "session": session.id,
            "owner": session.owner,
            "began": clock.for_people(at),
            "engine": self._engine,
            "version": __version__,
            "options": options,
        }
        entry = Entry(stem_of(session.id, at), Line(0.0, lambda: first))
        return Witnessed(self._writer, entry)

    async def forget(self, owner: str) -> None:
        """Delete those of an owner's sessions that are over.

        Raises:
            errors.SidecarError: one cannot be deleted.
        """
        await asyncio.wrap_future(self._writer.forget(owner))

    def close(self) -> None:
        """Write what waits; this waits for the disk."""
        self._writer.close(PATIENCE_S)


class Witnessed:
    """The witness of one session."""

    def __init__(self, writer: Writer, entry: Entry) -> None:
        self._writer, self._entry = writer, entry
        self._began = time.monotonic()

    def sound(self, raw: bytes, encoding: Encoding, rate: int) -> None:
        """More of it."""
        self._writer.put(self._entry, Sound(self._at(), raw, encoding, rate))

    def ordered(self, order: Mapping[str, Any]) -> None:
        """An order of the client's."""
        self.say({"order": order})

    def told(self, numbered: Numbered) -> None:
        """What the client may hear; events are plain values only in the writer's thread."""

        def make() -> Mapping[str, Any]:
            return {"number": numbered.number, "event": to_wire(numbered.event)}

        self._writer.put(self._entry, Line(self._at(), make))

    def over(self, wrong: errors.SidecarError | None) -> None:
        """It has ended."""
        self.say({"ended": wrong.code if wrong is not None else None})
        self._writer.end(self._entry, self._at())

    def say(self, values: Mapping[str, Any]) -> None:
        """A line."""
        self._writer.put(self._entry, Line(self._at(), lambda: values))

    def _at(self) -> float:
        return time.monotonic() - self._began
