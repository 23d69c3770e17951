"""The two files of a capture, sealed as they are written and opened again.

Each begins with a mark, a salt and the capture's id, by which the two belong together; then come
small pieces, so that little is lost where the service dies.

All that is here waits for a disk: call it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sidecar.errors import CaptureUnreadable
from sidecar.live.sessions.names import EVENTS, SOUND
from sidecar.storage.sealing import PREFIX, SALT, TAG, Seal, SealBroken

MARK = b"VIBEVOICE CAPTURE 1\n"
PIECES = {SOUND: 16 << 10, EVENTS: 1 << 10}
"""Bytes that are sealed at once, and lost where the service dies: half a second, a few events."""
ID = 16
CHECK = 12 + TAG
HEAD = len(MARK) + SALT + ID + CHECK
PURPOSE = "captures"
_BLOCK = 1 << 20


class SealedWriter:
    """One file that is written, made with this; there must be none with its name."""

    def __init__(self, path: Path, secret: str, capture: bytes, what: str) -> None:
        """``capture``: its id, of `ID` bytes; ``what`` of it this is, by the end of its name.

        Raises:
            OSError: it cannot be made.
        """
        salt, self._prefix = os.urandom(SALT), os.urandom(PREFIX)
        self._seal = Seal(secret, salt, PURPOSE)
        self._about = _about(capture, what)
        self._number, self._piece = 0, PIECES[what]
        self._waiting = bytearray()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        self._file: BinaryIO = os.fdopen(fd, "wb", 0)
        known = self._seal.seal(b"", self._about)  # by which another key is told at once
        self._file.write(MARK + salt + capture + known + self._prefix)

    def write(self, data: bytes) -> None:
        """More of it.

        Raises:
            OSError: there is no room for it.
        """
        self._waiting += data
        while len(self._waiting) > self._piece:  # the last one is marked, so one always waits
            self._put(bytes(self._waiting[: self._piece]), last=False)
            del self._waiting[: self._piece]

    def close(self) -> None:
        """That was all.

        Raises:
            OSError: there is no room for the rest.
        """
        if self._file.closed:
            return
        try:
            self._put(bytes(self._waiting), last=True)
        finally:
            self._file.close()

    def _put(self, piece: bytes, *, last: bool) -> None:
        sealed = self._seal.sealed_piece(piece, self._prefix, self._number, self._about, last=last)
        self._file.write(sealed)
        self._number += 1


class SealedReader:
    """One file that was written."""

    def __init__(self, path: Path, secret: str, what: str) -> None:
        """Look at its beginning.

        Raises:
            errors.CaptureUnreadable: it is none, not there, or of another key.
        """
        self._path, self._piece = path, PIECES[what]
        self.whole = False
        """Whether it was read to its end, once it was read."""
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise CaptureUnreadable(f"{path} cannot be read: {error.strerror}.") from None
        if len(head) < HEAD or not head.startswith(MARK):
            raise CaptureUnreadable(f"{path} is no capture.")
        salt, self.capture = head[len(MARK) :][:SALT], head[-ID - CHECK : -CHECK]
        self._seal, self._about = Seal(secret, salt, PURPOSE), _about(self.capture, what)
        try:
            self._seal.opened(head[-CHECK:], self._about)
        except SealBroken:
            raise CaptureUnreadable(
                f"{path} was encrypted with another key.",
                hint="Give the key that it was captured with: VIBEVOICE_JOURNAL_KEY, or "
                "--journal-key-file.",
            ) from None

    def pieces(self) -> Iterator[bytes]:
        """What was written, in order, as far as it is what it was."""
        with self._path.open("rb") as file:
            file.seek(HEAD)
            blocks = iter(lambda: file.read(_BLOCK), b"")
            try:
                yield from self._seal.opened_pieces(blocks, self._about, self._piece)
                self.whole = True
            except SealBroken:
                pass  # the service died while it wrote: who reads looks at `whole`


def _about(capture: bytes, what: str) -> str:
    return f"{capture.hex()} {what}"
