"""One session on its way to its two files: sound as a WAV, all that passed as lines of JSON.

Sound that never got here is silence in the WAV, so that times stay what they were.

All that is here waits for a disk: it is called in the writer's thread.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.interfaces.live import Encoding
from sidecar.live.sessions.names import EVENTS, SOUND
from sidecar.live.sessions.sealed import ID, SealedWriter
from sidecar.live.sessions.wav import head

_SILENCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Sound:
    """It came ``at`` so many seconds behind the session's begin."""

    at: float
    raw: bytes
    encoding: Encoding
    rate: int


@dataclass(frozen=True, slots=True)
class Line:
    """Something else that passed, as the plain values that ``make`` gives."""

    at: float
    make: Callable[[], Mapping[str, Any]]


Item = Sound | Line


@dataclass(slots=True)
class LeftOut:
    """What did not get here since it was said last: bytes of sound in so many chunks, and lines."""

    sound: int = 0
    chunks: int = 0
    lines: int = 0


class Recording:
    """The files of one session, which are made with this."""

    def __init__(self, folder: Path, stem: str, secret: str) -> None:
        """Both begin with ``stem``, or with the first of its like that is free.

        Raises:
            OSError: they cannot be made.
        """
        self._form: tuple[Encoding, int] | None = None
        self._owed = 0
        """Bytes of sound that never got here, and are silence."""
        capture = os.urandom(ID)
        self._folder, self.stem, self._secret, self._id = folder, stem, secret, capture
        for number in range(2, 1000):
            try:
                self._sound = SealedWriter(self._path(SOUND), secret, capture, SOUND)
                break
            except FileExistsError:
                self.stem = f"{stem}-{number}"
        else:
            raise FileExistsError(stem)
        self._events = SealedWriter(self._path(EVENTS), secret, capture, EVENTS)

    def write(self, item: Item, before: LeftOut) -> None:
        """One more; ``before`` it some were left out.

        Raises:
            OSError: there is no room for it.
        """
        self._say_left_out(item.at, before)
        if isinstance(item, Line):
            self._say(item.at, item.make())
            return
        line: dict[str, Any] = {"sound": len(item.raw)}
        line |= {"encoding": item.encoding.value, "rate": item.rate}
        if self._form is None:
            self._form = item.encoding, item.rate
            self._sound.write(head(item.encoding, item.rate))
        if (item.encoding, item.rate) == self._form:
            self._pay()
            self._sound.write(item.raw)
        else:
            line["unlike"] = True  # a WAV has one form, that of its first chunk
        self._say(item.at, line)

    def close(self, at: float, before: LeftOut) -> None:
        """That was all; a session without sound leaves nothing.

        Raises:
            OSError: there is no room for the rest.
        """
        try:
            self._say_left_out(at, before)
            if self._form is not None:
                self._pay()
        finally:
            with contextlib.ExitStack() as both:
                both.callback(self._events.close)
                both.callback(self._sound.close)
        if self._form is None:
            self._path(SOUND).unlink()
            self._path(EVENTS).unlink()

    def _say_left_out(self, at: float, before: LeftOut) -> None:
        if not (before.chunks or before.lines):
            return
        self._owed += before.sound
        lost = {"sound": before.sound, "chunks": before.chunks, "lines": before.lines}
        self._say(at, {"left_out": lost})

    def _pay(self) -> None:
        while self._owed:
            piece = min(_SILENCE, self._owed)
            self._sound.write(bytes(piece))
            self._owed -= piece

    def _say(self, at: float, values: Mapping[str, Any]) -> None:
        line = json.dumps({"t": round(at, 4), **values}, ensure_ascii=False, separators=(",", ":"))
        self._events.write(line.encode() + b"\n")

    def _path(self, end: str) -> Path:
        return self._folder / f"{self.stem}{end}"
