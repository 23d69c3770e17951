"""Encrypted capture files: folder, names, limits, writing, owner. Read by `bench.capture_reader`.

Each file begins with a magic number, a salt and the capture's id, which links the two files of a
capture. Small encrypted chunks follow, so that little is lost if the service dies.

All functions here block on the disk: call them in a thread.

Audio that was left out is silence in the WAV, so that times stay correct.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from sidecar import files
from sidecar.audio.audio_format import wav_head
from sidecar.config.settings import Settings, data_folder
from sidecar.errors import CaptureUnreadable
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.storage import encryption

SOUND, EVENTS = ".wav.sealed", ".jsonl.sealed"
"""Suffixes of the two files of a capture."""
MAX_STEM_LENGTH = 80


@dataclass(frozen=True, slots=True)
class CaptureInfo:
    """Stored capture: the stem of its file names, its last write (seconds since 1970), and the
    bytes of both files."""

    stem: str
    written: float
    size: int


MAX_CAPTURES = 1000
"""Captures in the folder: each is listed whenever one ends."""


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """Limits of captures: bytes, captures, seconds of age; 0 is no limit."""

    size: int = 0
    count: int = 0
    age_s: float = 0.0


def capture_stem(session: str, at: float) -> str:
    """Return a stem such as `20261121T104641_talk-7`: the local time, and the client's session id
    in characters that file names allow."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", session).strip("_")[:MAX_STEM_LENGTH]
    return f"{time.strftime('%Y%m%dT%H%M%S', time.localtime(at))}_{plain or 'session'}"


def captures_to_delete(
    stored: Sequence[CaptureInfo], now: float, limits: CaptureLimits
) -> list[str]:
    """Return the captures to delete: too old, then too many, then too large; the oldest first."""
    left = sorted(stored, key=lambda one: (one.written, one.stem))
    gone = []
    if limits.age_s:
        gone = [one for one in left if now - one.written > limits.age_s]
        left = left[len(gone) :]
    size = sum(one.size for one in left)
    most, most_bytes = limits.count or inf, limits.size or inf
    while left and (len(left) > most or size > most_bytes):
        oldest = left.pop(0)
        size -= oldest.size
        gone.append(oldest)
    return [one.stem for one in gone]


def capture_head(encoding: SampleEncoding, rate: int, size: int | None = None) -> bytes:
    """Return the WAV header of ``size`` bytes of samples, or of an unknown number."""
    return wav_head(rate, encoding.width, size, floats=encoding is SampleEncoding.FLOAT32)


CAPTURE_MAGIC = b"VIBEVOICE CAPTURE 1\n"
ENCRYPTED_CHUNK_BYTES = {SOUND: 16 << 10, EVENTS: 1 << 10}
"""Bytes that are encrypted at once, and lost if the service dies: half a second, a few events."""
CAPTURE_ID_BYTES = 16
HEADER_CHECK_BYTES = 12 + encryption.TAG_BYTES
CAPTURE_HEADER_BYTES = (
    len(CAPTURE_MAGIC) + encryption.SALT_BYTES + CAPTURE_ID_BYTES + HEADER_CHECK_BYTES
)
KEY_PURPOSE = "captures"
_BLOCK = 1 << 20


class EncryptedCaptureWriter:
    """Writer of one new file; no file of its name may exist."""

    def __init__(self, path: Path, secret: str, capture: bytes, what: str) -> None:
        """``capture``: its id, of `CAPTURE_ID_BYTES` bytes; ``what``: the suffix of this file.

        Raises:
            OSError: the file cannot be created.
        """
        salt, self._prefix = (
            os.urandom(encryption.SALT_BYTES),
            os.urandom(encryption.NONCE_PREFIX_BYTES),
        )
        self._seal = encryption.Cipher(secret, salt, KEY_PURPOSE)
        self._about = _associated_data(capture, what)
        self._number, self._piece = 0, ENCRYPTED_CHUNK_BYTES[what]
        self._waiting = bytearray()
        self._file = files.open_new(path, buffering=0)
        known = self._seal.seal(b"", self._about)  # by which a wrong key is detected at once
        self._file.write(CAPTURE_MAGIC + salt + capture + known + self._prefix)

    def write(self, data: bytes) -> None:
        """Append data.

        Raises:
            OSError: the disk is full.
        """
        self._waiting += data
        while len(self._waiting) > self._piece:  # the last chunk is marked, so one always waits
            self._put(bytes(self._waiting[: self._piece]), last=False)
            del self._waiting[: self._piece]

    def close(self) -> None:
        """End the file.

        Raises:
            OSError: the disk is full.
        """
        if self._file.closed:
            return
        try:
            self._put(bytes(self._waiting), last=True)
        finally:
            self._file.close()

    def _put(self, piece: bytes, *, last: bool) -> None:
        sealed = self._seal.encrypt_chunk(piece, self._prefix, self._number, self._about, last=last)
        self._file.write(sealed)
        self._number += 1


class EncryptedCaptureReader:
    """Reader of one file."""

    def __init__(self, path: Path, secret: str, what: str) -> None:
        """Read the header.

        Raises:
            errors.CaptureUnreadable: it is not a capture, missing, or encrypted with another key.
        """
        self._path, self._piece = path, ENCRYPTED_CHUNK_BYTES[what]
        self.whole = False
        """True once the file was read completely up to its end mark."""
        try:
            with path.open("rb") as file:
                head = file.read(CAPTURE_HEADER_BYTES)
        except OSError as error:
            raise CaptureUnreadable(f"{path} cannot be read: {error.strerror}.") from None
        if len(head) < CAPTURE_HEADER_BYTES or not head.startswith(CAPTURE_MAGIC):
            raise CaptureUnreadable(f"{path} is not a capture.")
        salt = head[len(CAPTURE_MAGIC) :][: encryption.SALT_BYTES]
        self.capture = head[-CAPTURE_ID_BYTES - HEADER_CHECK_BYTES : -HEADER_CHECK_BYTES]
        self._seal = encryption.Cipher(secret, salt, KEY_PURPOSE)
        self._about = _associated_data(self.capture, what)
        try:
            self._seal.opened(head[-HEADER_CHECK_BYTES:], self._about)
        except encryption.DecryptionFailed:
            raise CaptureUnreadable(
                f"{path} was encrypted with another key.",
                hint=(
                    "Use the key that it was captured with: VIBEVOICE_JOURNAL_KEY, or "
                    "--journal-key @FILE."
                ),
            ) from None

    def pieces(self) -> Iterator[bytes]:
        """Yield the chunks in order, as far as they are intact."""
        with self._path.open("rb") as file:
            file.seek(CAPTURE_HEADER_BYTES)
            blocks = iter(lambda: file.read(_BLOCK), b"")
            try:
                yield from self._seal.decrypt_chunks(blocks, self._about, self._piece)
                self.whole = True
            except encryption.DecryptionFailed:
                pass  # the service died during a write: the caller checks `whole`


def _associated_data(capture: bytes, what: str) -> str:
    return f"{capture.hex()} {what}"


_SILENCE = 1 << 16


@dataclass(frozen=True, slots=True)
class CapturedAudio:
    """Captured audio, received ``at`` seconds after the session's begin."""

    at: float
    raw: bytes
    encoding: SampleEncoding
    rate: int


@dataclass(frozen=True, slots=True)
class CapturedEntry:
    """Captured entry other than audio, as the plain values that ``make`` returns."""

    at: float
    make: Callable[[], Mapping[str, Any]]


CaptureItem = CapturedAudio | CapturedEntry


@dataclass(slots=True)
class CaptureGap:
    """Gap of a capture since the last note: bytes and chunks of audio, and lines."""

    sound: int = 0
    chunks: int = 0
    lines: int = 0


class CaptureFileSet:
    """Files of one captured session, created with this object."""

    def __init__(self, folder: Path, stem: str, secret: str) -> None:
        """Create the files with ``stem``, or with the first free variant of it.

        Raises:
            OSError: they cannot be created.
        """
        self._form: tuple[SampleEncoding, int] | None = None
        self._owed = 0
        """Bytes of audio that were left out and become silence."""
        capture = os.urandom(CAPTURE_ID_BYTES)
        self._folder, self.stem, self._secret, self._id = folder, stem, secret, capture
        for number in range(2, 1000):
            if not self._path(EVENTS).exists():
                with contextlib.suppress(FileExistsError):
                    self._sound = EncryptedCaptureWriter(self._path(SOUND), secret, capture, SOUND)
                    break
            self.stem = f"{stem}-{number}"
        else:
            raise FileExistsError(stem)
        self._events = EncryptedCaptureWriter(self._path(EVENTS), secret, capture, EVENTS)

    def write(self, item: CaptureItem, before: CaptureGap) -> None:
        """Write an item; ``before``: the gap before it.

        Raises:
            OSError: the disk is full.
        """
        self._say_left_out(item.at, before)
        if isinstance(item, CapturedEntry):
            self._say(item.at, item.make())
            return
        line: dict[str, Any] = {"sound": len(item.raw)}
        line |= {"encoding": item.encoding.value, "rate": item.rate}
        if self._form is None:
            self._form = item.encoding, item.rate
            self._sound.write(capture_head(item.encoding, item.rate))
        if (item.encoding, item.rate) == self._form:
            self._pay()
            self._sound.write(item.raw)
        else:
            line["unlike"] = True  # a WAV has one encoding, that of its first chunk
        self._say(item.at, line)

    def close(self, at: float, before: CaptureGap) -> None:
        """End the files; a session without audio leaves none.

        Raises:
            OSError: the disk is full.
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

    def _say_left_out(self, at: float, before: CaptureGap) -> None:
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


def capture_owner(events: Path, secret: str) -> str | None:
    """Return the owner of the session in a capture with these ``events``. None if they cannot be
    read, or have no owner: an older version wrote them."""
    first = b""
    try:
        for piece in EncryptedCaptureReader(events, secret, EVENTS).pieces():
            first += piece
            if b"\n" in piece:
                break
        owner = json.loads(first.partition(b"\n")[0])["owner"]
    except (CaptureUnreadable, OSError, ValueError, KeyError, TypeError):
        return None
    return str(owner)


def list_captures(folder: Path) -> list[CaptureInfo]:
    """Return the stored captures, those too of which one file is left."""
    files: dict[str, list[os.stat_result]] = {}
    for end in (SOUND, EVENTS):
        for path in folder.glob(f"*{end}"):
            with suppress(FileNotFoundError):
                files.setdefault(path.name.removesuffix(end), []).append(path.stat())
    return [
        CaptureInfo(stem, found[0].st_mtime, sum(one.st_size for one in found))
        for stem, found in files.items()
    ]


def captures_folder(settings: Settings) -> Path:
    """Return the folder of captures."""
    return data_folder(settings, "captures")
