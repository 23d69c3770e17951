"""Download of TTS voices from a plain HTTP file server.

A checksum counts where it is said to be one: `Repr-Digest` (RFC 9530), `x-goog-hash` of Google's
storage, `Content-MD5`. An `ETag` may be anything, so it only tells versions apart.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx

from sidecar import __version__, errors
from sidecar.checkpoints.download_files import (
    MD5,
    PASSING,
    SHA256,
    SIZE,
    DownloadDestination,
    DownloadInterrupted,
    DownloadProgress,
    HubFile,
    check_room,
    chunks,
    explained_by,
    fetch,
    locked,
    run_in_parallel,
)
from sidecar.checkpoints.installed_checkpoints import PulledFile, PulledVoice, PulledVoices

VOICE_SERVER_TIMEOUT_S = 10.0
"""Longest silence of the server."""
_DIGEST_BYTES = {SHA256: 32, MD5: 16}
_NO_ROOM = "Free some space, or set VIBEVOICE_DATA_DIR to a folder on another disk."


class VoiceFileServer:
    """What is below an address; owns its connections."""

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/")
        self._client = httpx.Client(
            timeout=VOICE_SERVER_TIMEOUT_S,
            follow_redirects=True,
            headers={
                "User-Agent": f"vibevoice-asr/{__version__}",
                "Accept-Encoding": "identity",  # ranges count the bytes of the file itself
            },
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def look_up(self, key: str) -> HubFile:
        """What the server says of a file.

        Raises:
            errors.RepositoryNotFound: it has none.
            errors.HubUnreachable: what it says is nothing of a file.
        """
        answer = self._client.head(self._url(key))
        self._check(answer, key)
        length = answer.headers.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,15}", length) or "html" in _content_type(answer):
            raise errors.HubUnreachable(
                f"What answers at {self._base} is no server of voices.",
                hint="Check VIBEVOICE_VOICES_URL, the proxy, and whether the network asks for a "
                "login.",
            )
        version = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        kind, digest = announced_checksum(answer.headers)
        return HubFile(key, int(length), kind, digest, version)

    def read(self, file: HubFile, start: int) -> Iterator[tuple[int, bytes]]:
        """As `download_files.Read`; begins at 0 where there is another version by now."""
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if file.version and not file.version.startswith("W/"):
                headers["If-Range"] = file.version
        try:
            with self._client.stream("GET", self._url(file.name), headers=headers) as answer:
                if answer.status_code in PASSING:
                    raise DownloadInterrupted(f"it answers with {answer.status_code}")
                self._check(answer, file.name)
                yield from chunks(answer, start, file.size)
        except httpx.TransportError as error:
            raise DownloadInterrupted from error

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


def announced_checksum(headers: httpx.Headers) -> tuple[str, str]:
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
            if len(raw) == _DIGEST_BYTES[name]:
                return name, raw.hex()
    return SIZE, ""


def _content_type(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", ""))


def pull_voice(
    folder: Path, url: str, voice: PulledVoice, meter: DownloadProgress | None = None
) -> PulledVoices:
    """Bring the files of ``voice`` from below ``url`` to ``folder``; what is there of them in all.

    What is here is checked by the list and not fetched again; with all of it here nobody is asked.
    What an interruption leaves is used by the next call.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound: no answer, or no such file.
        errors.CheckpointDamaged: a file came damaged.
        errors.DiskFull, errors.CheckpointUnwritable: there is no room, or no right to it.
        errors.PullRunning: another process is at it.
    """
    meter = meter or DownloadProgress()
    wrong = (DownloadInterrupted, httpx.HTTPError, httpx.InvalidURL)
    with (
        explained_by(url, wrong, "Set VIBEVOICE_DATA_DIR to a folder that can be."),
        locked(DownloadDestination(folder), "Another 'vibevoice-asr pull voice' is at work."),
    ):
        pulled = _download_voice_files(PulledVoices.read(folder), url, voice, meter).with_voice(
            voice
        )
        pulled.write()
    return pulled


def _download_voice_files(
    pulled: PulledVoices, url: str, voice: PulledVoice, meter: DownloadProgress
) -> PulledVoices:
    wanted = [key for key in voice.files if not pulled.sound(key)]
    for key in wanted:
        if key in pulled.files and pulled.path(key).exists():
            meter.notice(f"{key} is damaged: it is fetched anew.")
            pulled.path(key).unlink()
    if not wanted:
        return pulled
    stop = threading.Event()
    with closing(VoiceFileServer(url)) as server:
        files = list(run_in_parallel([partial(server.look_up, key) for key in wanted], stop))
        place = DownloadDestination(pulled.folder)
        check_room(place, files, "voice", "MB", _NO_ROOM)
        meter.begin(voice.name, sum(file.size for file in files))
        work = [partial(_fetch, server, file, place, meter, stop) for file in files]
        for key, came in run_in_parallel(work, stop):
            pulled = pulled.with_file(key, came)
            pulled.write()  # so that what is whole stays so, whatever becomes of the others
    return pulled


def _fetch(
    server: VoiceFileServer,
    file: HubFile,
    place: DownloadDestination,
    meter: DownloadProgress,
    stop: threading.Event,
) -> tuple[str, PulledFile]:
    sha256 = fetch(file, place, server.read, meter, stop)
    return file.name, PulledFile(file.size, sha256, file.kind)
