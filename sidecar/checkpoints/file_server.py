"""A web server with plain files: what it says of one before it comes, and its bytes from a place.

A checksum counts where it is said to be one: `Repr-Digest` (RFC 9530), `x-goog-hash` of Google's
storage, `Content-MD5`. An `ETag` may be anything, so it only tells versions apart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from sidecar import __version__, errors
from sidecar.checkpoints.destination import unwritable
from sidecar.checkpoints.growing import Interrupted

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
