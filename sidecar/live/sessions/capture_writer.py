"""Capture of live sessions for debugging: observer and writer thread with a budget."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from sidecar import clock, errors, files
from sidecar.audio.upload_spool import storage_error
from sidecar.config.settings import Settings
from sidecar.interfaces.live_events import to_wire
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.live.sessions.capture_files import (
    EVENTS,
    MAX_CAPTURES,
    SOUND,
    CapturedAudio,
    CapturedEntry,
    CaptureFileSet,
    CaptureGap,
    CaptureInfo,
    CaptureItem,
    CaptureLimits,
    capture_owner,
    capture_stem,
    captures_folder,
    captures_to_delete,
    list_captures,
)
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.live.sessions.session import Session
from sidecar.storage.encryption import SALT_BYTES, Cipher, journal_key
from sidecar.version import __version__

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64 << 20
"""Bytes of audio that wait at most, whatever the number of chunks is."""


class PendingCapture:
    """Captured session with the items that wait to be written."""

    def __init__(self, stem: str, first: CapturedEntry) -> None:
        self.stem, self.first = stem, first
        self.items: deque[CaptureItem] = deque()
        self.bytes = 0
        self.left_out = CaptureGap()
        """Items that were left out before the first of ``items``."""
        self.lost = CaptureGap()
        """All items that were left out."""
        self.over_at: float | None = None
        self.ready = False
        """True if the writer has been notified of waiting items."""
        self.recording: CaptureFileSet | None = None
        self.failed = False


class CaptureWriter:
    """Writer of captures; owns the folder and the thread, which ends with `close`."""

    def __init__(
        self,
        folder: Path,
        secret: str,
        limits: CaptureLimits,
        most: int,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``most``: chunks and events of one session that may wait."""
        self._folder, self._secret, self._limits, self._most = folder, secret, limits, most
        self._now = now
        self._changed = threading.Condition()
        self._ready: deque[PendingCapture | Callable[[], None]] = deque()
        """Sessions with waiting items, and deletions, in order."""
        self._bytes = 0
        self._open: set[PendingCapture] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
        self._thread.start()

    def put(self, entry: PendingCapture, item: CaptureItem) -> None:
        """Queue an item; if the budget is exceeded, drop the oldest audio of the session."""
        with self._changed:
            entry.items.append(item)
            self._weigh(entry, item, 1)
            while len(entry.items) > self._most or (
                entry.bytes and self._bytes > MAX_PENDING_BYTES
            ):
                self._drop_oldest(entry)
            self._wake(entry)

    def end(self, entry: PendingCapture, at: float) -> None:
        """End a capture."""
        with self._changed:
            entry.over_at = at
            self._wake(entry)

    def forget(self, owner: str) -> Future[None]:
        """Delete the captures of an owner's ended sessions, after the items that wait already are
        written.

        Raises:
            errors.ShuttingDown: the service shuts down.
        """
        done = Future[None]()
        with self._changed:
            if self._closing:
                raise errors.ShuttingDown()
            self._ready.append(partial(self._forget, owner, done))
            self._changed.notify()
        return done

    def close(self, patience_s: float) -> None:
        """Write the waiting items, for at most ``patience_s`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _wake(self, entry: PendingCapture) -> None:
        if not entry.ready:
            entry.ready = True
            self._ready.append(entry)
            self._changed.notify()

    def _weigh(self, entry: PendingCapture, item: CaptureItem, sign: int) -> None:
        size = sign * len(item.raw) if isinstance(item, CapturedAudio) else 0
        entry.bytes += size
        self._bytes += size

    def _drop_oldest(self, entry: PendingCapture) -> None:
        """Drop the oldest audio, or else the oldest event or command: a replay needs those."""
        sounds = (at for at, item in enumerate(entry.items) if isinstance(item, CapturedAudio))
        place = next(sounds, 0)
        item = entry.items[place]
        del entry.items[place]
        self._weigh(entry, item, -1)
        for lost in (entry.left_out, entry.lost):
            if isinstance(item, CapturedAudio):
                lost.sound += len(item.raw)
                lost.chunks += 1
            else:
                lost.lines += 1

    def _run(self) -> None:
        self._guarded(self._retain)
        while (work := self._next()) is not None:
            work()
        for entry in list(self._open):
            self._finish(entry, 0.0, CaptureGap())

    def _next(self) -> Callable[[], None] | None:
        """Return the next work; None once there is no more."""
        with self._changed:
            while not (self._ready or self._closing):
                self._changed.wait()
            if not self._ready:
                return None
            entry = self._ready.popleft()
            if not isinstance(entry, PendingCapture):
                return entry
            entry.ready = False
            items, entry.items = entry.items, deque()
            before, entry.left_out = entry.left_out, CaptureGap()
            self._bytes -= entry.bytes
            entry.bytes = 0
            return partial(self._write_all, entry, items, before, entry.over_at)

    def _write_all(
        self,
        entry: PendingCapture,
        items: deque[CaptureItem],
        before: CaptureGap,
        over_at: float | None,
    ) -> None:
        for item in items:
            if not entry.failed:  # otherwise its files cannot be written
                entry.failed = not self._guarded(partial(self._write, entry, item, before))
            before = CaptureGap()
        if over_at is not None:
            self._finish(entry, over_at, before)

    def _write(self, entry: PendingCapture, item: CaptureItem, before: CaptureGap) -> None:
        if entry.recording is None:
            entry.recording = CaptureFileSet(self._folder, entry.stem, self._secret)
            self._open.add(entry)
            entry.recording.write(entry.first, CaptureGap())
        entry.recording.write(item, before)

    def _finish(self, entry: PendingCapture, over_at: float, before: CaptureGap) -> None:
        self._open.discard(entry)
        recording, lost = entry.recording, entry.lost
        if recording is not None:
            self._guarded(lambda: recording.close(over_at, before))
        if lost.chunks or lost.lines:
            log.warning(
                "the disk is too slow for a capture: %d chunks of audio and %d events are "
                "missing in it",
                *(lost.chunks, lost.lines),
            )
        self._guarded(self._retain)

    def _guarded(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except OSError as error:
            log.warning("the capture of a live session stopped: %s", error.strerror)
            return False
        except Exception:
            log.exception("internal error: the capture of a live session stopped")
            return False
        return True

    def _retain(self) -> None:
        """Delete captures that exceed a limit."""
        for stem in captures_to_delete(self._written(), self._now(), self._limits):
            self._delete(stem)

    def _forget(self, owner: str, done: Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return  # the caller does not wait any more
        try:
            for one in self._written():
                if capture_owner(self._folder / f"{one.stem}{EVENTS}", self._secret) == owner:
                    self._delete(one.stem)
            done.set_result(None)
        except OSError as error:
            done.set_exception(storage_error(error))

    def _written(self) -> list[CaptureInfo]:
        """Return the complete captures, without those that are being written."""
        busy = {entry.recording.stem for entry in self._open if entry.recording is not None}
        return [one for one in list_captures(self._folder) if one.stem not in busy]

    def _delete(self, stem: str) -> None:
        for end in (SOUND, EVENTS):
            (self._folder / f"{stem}{end}").unlink(missing_ok=True)


CAPTURED_GREETING = {"captured": True}
CAPTURE_FORMAT_VERSION = 1
"""Version of the format of the lines."""
MAX_QUEUED_CHUNKS = 256
"""Chunks and events of one captured session that may wait for the disk; then audio is left out."""
CLOSE_TIMEOUT_S = 3.0
"""Seconds that the shutdown waits for the disk."""


class CaptureObserver:
    """Factory of capture observers (`live.sessions.session.SessionObserverFactory`)."""

    greeting: Mapping[str, Any] = CAPTURED_GREETING

    def __init__(self, settings: Settings, engine: str, now: clock.Clock = clock.wall_time) -> None:
        """``engine``: the name of the live engine.

        Raises:
            errors.SettingsInvalid: the folder or the key cannot be used.
        """
        folder, secret = captures_folder(settings), journal_key(settings)
        Cipher(secret, bytes(SALT_BYTES))  # reports a missing package at the start
        files.make_folder(folder)
        limits = CaptureLimits(settings.capture_mb << 20, MAX_CAPTURES, settings.capture_age)
        self._engine, self._now = engine, now
        self._writer = CaptureWriter(folder, secret, limits, MAX_QUEUED_CHUNKS, now)
        log.warning("capture is on: audio and text of every live session are written to %s", folder)

    def begin(self, session: Session) -> SessionCapture:
        """Begin the capture of a session."""
        at = self._now()
        options = session.options.spoken.to_wire()  # no speaker embeddings beside the transcript
        first = {
            "capture": CAPTURE_FORMAT_VERSION,
            "session": session.id,
            "owner": session.owner,
            "began": clock.format_utc(at),
            "engine": self._engine,
            "version": __version__,
            "options": options,
        }
        entry = PendingCapture(capture_stem(session.id, at), CapturedEntry(0.0, lambda: first))
        return SessionCapture(self._writer, entry)

    async def forget(self, owner: str) -> None:
        """Delete the captures of an owner's ended sessions.

        Raises:
            errors.SidecarError: a capture cannot be deleted.
        """
        await asyncio.wrap_future(self._writer.forget(owner))

    def close(self) -> None:
        """Write the waiting items; blocks on the disk."""
        self._writer.close(CLOSE_TIMEOUT_S)


class SessionCapture:
    """Capture observer of one session."""

    def __init__(self, writer: CaptureWriter, entry: PendingCapture) -> None:
        self._writer, self._entry = writer, entry
        self._began = time.monotonic()

    def sound(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """Capture audio."""
        self._writer.put(self._entry, CapturedAudio(self._at(), raw, encoding, rate))

    def ordered(self, order: Mapping[str, Any]) -> None:
        """Capture a command of the client."""
        self.say({"order": order})

    def told(self, numbered: NumberedEvent) -> None:
        """Capture an event for the client; it becomes plain values only in the writer's thread."""

        def make() -> Mapping[str, Any]:
            return {"number": numbered.number, "event": to_wire(numbered.event)}

        self._writer.put(self._entry, CapturedEntry(self._at(), make))

    def over(self, wrong: errors.SidecarError | None) -> None:
        """End the capture."""
        self.say({"ended": wrong.code if wrong is not None else None})
        self._writer.end(self._entry, self._at())

    def say(self, values: Mapping[str, Any]) -> None:
        """Capture a line."""
        self._writer.put(self._entry, CapturedEntry(self._at(), lambda: values))

    def _at(self) -> float:
        return time.monotonic() - self._began
