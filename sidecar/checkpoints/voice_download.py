"""Download of TTS voices from a plain HTTP file server.

A checksum counts where it is said to be one: `Repr-Digest` (RFC 9530), `x-goog-hash` of Google's
storage, `Content-MD5`. An `ETag` may be anything, so it only tells versions apart.
"""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from filelock import FileLock, Timeout

from sidecar import __version__, errors
from sidecar.checkpoints.download_files import (
    Growing,
    Interrupted,
    Meter,
    receive,
    side_by_side,
    unwritable,
)
from sidecar.checkpoints.installed_checkpoints import Pulled, PulledFile, PulledVoice

TIMEOUT_S = 10.0
"""Longest silence of the server."""
SHA256, MD5, SIZE = "sha256", "md5", "size"
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that are worth another try."""
_LENGTHS = {SHA256: 32, MD5: 16}


class Sums:
    """SHA-256 for our own list, and MD5, which is what servers of files know."""

    def __init__(self) -> None:
        self._all = {SHA256: hashlib.sha256(), MD5: hashlib.md5(usedforsecurity=False)}

    def update(self, data: bytes) -> None:
        """Go on with ``data``."""
        for one in self._all.values():
            one.update(data)

    def of(self, kind: str) -> str:
        """The sum by its name, in hex."""
        return self._all[kind].hexdigest()


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file at the server: ``key`` is its path there and here.

    ``version`` tells it from what was there before, '' where the server does not say; ``kind`` is
    how it can be checked, ``digest`` the checksum ('' for `SIZE`).
    """

    key: str
    size: int
    version: str = ""
    kind: str = SIZE
    digest: str = ""

    def __post_init__(self) -> None:
        if any(part in ("", ".", "..") or "\\" in part for part in self.key.split("/")):
            raise ValueError(f"no file of a voice: {self.key!r}")

    @property
    def mark(self) -> str:
        """A few letters for this version, for names of files."""
        return hashlib.sha256(f"{self.size} {self.version}".encode()).hexdigest()[:8]

    def hasher(self) -> Sums:
        """Sums of nothing yet."""
        return Sums()

    def is_met(self, hasher: Sums) -> bool:
        """Whether it is the file, as far as the server says what that is."""
        return self.kind == SIZE or hasher.of(self.kind) == self.digest


class FileServer:
    """What is below an address; owns its connections."""

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/")
        self._client = httpx.Client(
            timeout=TIMEOUT_S,
            follow_redirects=True,
            headers={
                "User-Agent": f"vibevoice-asr/{__version__}",
                "Accept-Encoding": "identity",  # ranges count the bytes of the file itself
            },
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def look_up(self, key: str) -> ServedFile:
        """What the server says of a file.

        Raises:
            errors.RepositoryNotFound: it has none.
            errors.HubUnreachable: what it says is nothing of a file.
        """
        answer = self._client.head(self._url(key))
        self._check(answer, key)
        length = answer.headers.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,15}", length) or "html" in _kind(answer):
            raise errors.HubUnreachable(
                f"What answers at {self._base} is no server of voices.",
                hint="Check VIBEVOICE_VOICES_URL, the proxy, and whether the network asks for a "
                "login.",
            )
        version = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        kind, digest = promised(answer.headers)
        return ServedFile(key, int(length), version, kind, digest)

    def read(self, file: ServedFile, start: int) -> Iterator[tuple[int, bytes]]:
        """As `growing.Read`; begins at 0 where there is another version by now."""
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if file.version and not file.version.startswith("W/"):
                headers["If-Range"] = file.version
        try:
            with self._client.stream("GET", self._url(file.key), headers=headers) as answer:
                if answer.status_code in _PASSING:
                    raise httpx.RemoteProtocolError(f"it answers with {answer.status_code}")
                self._check(answer, file.key)
                place = _begin(answer, start)
                for data in answer.iter_bytes():
                    yield place, data
                    place += len(data)
            if place < file.size:
                raise httpx.RemoteProtocolError("the connection ended early")
        except httpx.TransportError as error:
            raise Interrupted from error

    def _url(self, key: str) -> str:
        return f"{self._base}/{quote(key)}"

    def _check(self, answer: httpx.Response, key: str) -> None:
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise errors.RepositoryNotFound(
                f"{self._base} has no {key}.",
                hint="Choose another voice: vibevoice-asr pull voice --list",
            )
        if answer.is_error:
            raise errors.HubUnreachable(
                f"{self._base} answered {answer.status_code} for {key}.",
                hint="Try again later; the same command goes on where it stopped.",
            )


def promised(headers: httpx.Headers) -> tuple[str, str]:
    """What a server says the sum of a file is: which, and in hex; (`SIZE`, '') if it says none."""
    said = {
        SHA256: (r"sha-256=:([^:]+):", headers.get("repr-digest", "")),
        MD5: (r"md5=([^,\s]+)", headers.get("x-goog-hash", "")),
        "": (r"(\S+)", headers.get("content-md5", "")),
    }
    for kind, (pattern, text) in said.items():
        if found := re.search(pattern, text):
            name = kind or MD5
            try:
                raw = base64.b64decode(found[1], validate=True)
            except (binascii.Error, ValueError):
                continue
            if len(raw) == _LENGTHS[name]:
                return name, raw.hex()
    return SIZE, ""


def _kind(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", ""))


def _begin(answer: httpx.Response, start: int) -> int:
    """The place in the file that an answer begins at."""
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    if found is None or int(found[1]) != start:
        raise httpx.RemoteProtocolError("another part than was asked for")
    return start


@contextmanager
def explained(url: str) -> Iterator[None]:
    """The errors of the server, the network and the disk, as ours."""
    try:
        try:
            yield
        except Interrupted as error:
            raise _cause(error) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise errors.HubUnreachable(
            f"{url} cannot be reached: {str(error) or type(error).__name__}."
        ) from None
    except OSError as error:
        raise unwritable(error, "Set VIBEVOICE_VOICES_DIR to a folder that can be.") from None


def _cause(error: Interrupted) -> Any:
    return error.__cause__ or error


RESERVE_BYTES = 512 << 20
"""What stays free on the disk."""
LOCK = ".pull.lock"
_PARTIAL = ".incomplete"
_ANY_MARK = "[0-9a-f]" * 8


def pull(folder: Path, url: str, voice: PulledVoice, meter: Meter | None = None) -> Pulled:
    """Bring the files of ``voice`` from below ``url`` to ``folder``; what is there of them in all.

    What is here is checked by the list and not fetched again; with all of it here nobody is asked.
    What an interruption leaves is used by the next call.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound: no answer, or no such file.
        errors.CheckpointDamaged: a file came damaged.
        errors.DiskFull, errors.CheckpointUnwritable: there is no room, or no right to it.
        errors.PullRunning: another process is at it.
    """
    meter = meter or Meter()
    with explained(url):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            with lock:
                pulled = _bring(Pulled.read(folder), url, voice, meter).with_voice(voice)
                pulled.write()
        except Timeout:
            raise errors.PullRunning("Another 'vibevoice-asr pull voice' is at work.") from None
    return pulled


def _bring(pulled: Pulled, url: str, voice: PulledVoice, meter: Meter) -> Pulled:
    wanted = [key for key in voice.files if not pulled.sound(key)]
    for key in wanted:
        if key in pulled.files and pulled.path(key).exists():
            meter.notice(f"{key} is damaged: it is fetched anew.")
            pulled.path(key).unlink()
    if not wanted:
        return pulled
    stop = threading.Event()
    with closing(FileServer(url)) as server:
        files = list(side_by_side([partial(server.look_up, key) for key in wanted], stop))
        _check_room(pulled, files)
        meter.begin(voice.name, sum(file.size for file in files))
        work = [partial(_fetch, server, file, pulled.path(file.key), meter, stop) for file in files]
        for key, came in side_by_side(work, stop):
            pulled = pulled.with_file(key, came)
            pulled.write()  # so that what is whole stays so, whatever becomes of the others
    return pulled


def _fetch(
    server: FileServer, file: ServedFile, path: Path, meter: Meter, stop: threading.Event
) -> tuple[str, PulledFile]:
    """Bring one file here and check it; `growing.Stopped` once ``stop`` is set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = _partial(path, file)
    for old in path.parent.glob(f"{glob.escape(path.name)}.{_ANY_MARK}{_PARTIAL}"):
        if old != begun:  # of another version
            old.unlink()
    with begun.open("a+b") as content:
        growing = Growing(file, content, meter, stop)
        receive(partial(server.read, file), growing, stop)
    if not growing.whole:
        begun.unlink()
        meter.advance(-growing.done)
        raise errors.CheckpointDamaged(
            f"{file.key} came with a wrong checksum and was deleted.",
            hint="Run the same command again; if it stays so, something alters files on the way.",
        )
    os.replace(begun, path)
    return file.key, PulledFile(file.size, growing.hasher.of(SHA256), file.kind)


def _partial(path: Path, file: ServedFile) -> Path:
    """Where a file grows: beside its name to be, by its version."""
    return path.with_name(f"{path.name}.{file.mark}{_PARTIAL}")


def _check_room(pulled: Pulled, files: Sequence[ServedFile]) -> None:
    needed = 0
    for file in files:
        begun = _partial(pulled.path(file.key), file)
        needed += max(0, file.size - (begun.stat().st_size if begun.is_file() else 0))
    free = shutil.disk_usage(pulled.folder).free
    if needed + RESERVE_BYTES > free:
        raise errors.DiskFull(
            f"The voice needs {needed / 1e6:.0f} MB in {pulled.folder}, "
            f"and {free / 1e6:.0f} MB are free there.",
            hint="Free some space, or set VIBEVOICE_VOICES_DIR to a folder on another disk.",
        )
