"""Download of TTS voices from a plain HTTP file server.

Checksums are read from `Repr-Digest` (RFC 9530), `x-goog-hash` of Google's storage, and
`Content-MD5`. An `ETag` may be anything, so it only distinguishes versions.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx

from sidecar import errors, files
from sidecar.checkpoints import resumable_download
from sidecar.plugins.conversation.tts.installed_voices import PulledFile, PulledVoice, PulledVoices
from sidecar.version import __version__

VOICE_SERVER_TIMEOUT_S = 10.0
"""Timeout of connecting and of each read."""
_DIGEST_BYTES = {resumable_download.SHA256: 32, resumable_download.MD5: 16}
_NO_ROOM = "Free some space, or set VIBEVOICE_DATA_DIR to a folder on another disk."


class VoiceFileServer:
    """Client of a server with voice files below a URL; it owns the connections."""

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
        """Close the connections."""
        self._client.close()

    def look_up(self, key: str) -> resumable_download.HubFile:
        """Return size, checksum and version of a file at the server.

        Raises:
            errors.RepositoryNotFound: the server does not have the file.
            errors.HubUnreachable: the response is not that of a file.
        """
        response = self._client.head(self._url(key))
        self._check(response, key)
        length = response.headers.get("content-length", "")
        media_type = response.headers.get("content-type", "")
        if not re.fullmatch(r"[0-9]{1,15}", length) or "html" in media_type:
            raise errors.HubUnreachable(
                f"The server at {self._base} has no voices.",
                hint="Check the address (--from), the proxy, and whether the network requires a "
                "login.",
            )
        version = response.headers.get("etag") or response.headers.get("last-modified") or ""
        checksum, digest = announced_checksum(response.headers)
        return resumable_download.HubFile(key, int(length), checksum, digest, version)

    def read(self, file: resumable_download.HubFile, start: int) -> Iterator[tuple[int, bytes]]:
        """Read a file, as `resumable_download.ChunkReader`; from 0 if its version has changed."""
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if file.version and not file.version.startswith("W/"):
                headers["If-Range"] = file.version
        try:
            with self._client.stream("GET", self._url(file.name), headers=headers) as response:
                if response.status_code in resumable_download.PASSING:
                    raise resumable_download.DownloadInterrupted(
                        f"it answers with {response.status_code}"
                    )
                self._check(response, file.name)
                yield from resumable_download.chunks(response, start, file.size)
        except httpx.TransportError as error:
            raise resumable_download.DownloadInterrupted from error

    def _url(self, key: str) -> str:
        return f"{self._base}/{quote(key)}"

    def _check(self, response: httpx.Response, key: str) -> None:
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise errors.RepositoryNotFound(
                f"{self._base} has no {key}.",
                hint="Choose another voice: vibevoice-asr pull voice --list",
            )
        if response.is_error:
            raise errors.HubUnreachable(
                f"{self._base} answered {response.status_code} for {key}.",
                hint="Try again later; the same command resumes the download.",
            )


def announced_checksum(headers: httpx.Headers) -> tuple[str, str]:
    """Return kind and hex digest of a server's checksum; (`SIZE`, '') if it sends none."""
    patterns = {
        resumable_download.SHA256: (r"sha-256=:([^:]+):", headers.get("repr-digest", "")),
        resumable_download.MD5: (r"md5=([^,\s]+)", headers.get("x-goog-hash", "")),
        "": (r"(\S+)", headers.get("content-md5", "")),
    }
    for kind, (pattern, text) in patterns.items():
        if found := re.search(pattern, text):
            name = kind or resumable_download.MD5
            try:
                raw = base64.b64decode(found[1], validate=True)
            except ValueError:
                continue
            if len(raw) == _DIGEST_BYTES[name]:
                return name, raw.hex()
    return resumable_download.SIZE, ""


def pull_voice(
    folder: Path,
    url: str,
    voice: PulledVoice,
    progress: resumable_download.DownloadProgress | None = None,
    retry_pause_s: float = resumable_download.RETRY_PAUSE_S,
) -> PulledVoices:
    """Download the files of ``voice`` below ``url`` to ``folder``; return all its voices.

    Existing files are checked by the manifest and not fetched again; if all exist, no request is
    sent. An interrupted download is resumed by the next call. ``retry_pause_s``: as of
    `resumable_download.RunningDownload`.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound: no answer, or no such file.
        errors.CheckpointDamaged: a file was damaged on the way.
        errors.DiskFull, errors.CheckpointUnwritable: too little disk space, or no permission.
        errors.PullRunning: another process downloads to the folder.
    """
    progress = progress or resumable_download.DownloadProgress()
    destination = resumable_download.DownloadDestination(folder)
    network_errors = (resumable_download.DownloadInterrupted, httpx.HTTPError, httpx.InvalidURL)
    with (
        resumable_download.explained_by(
            url, network_errors, "Set VIBEVOICE_DATA_DIR to a usable folder."
        ),
        resumable_download.locked(destination, "Another 'vibevoice-asr pull voice' is at work."),
    ):
        download = resumable_download.RunningDownload(destination, progress, retry_pause_s)
        pulled = _download_voice_files(PulledVoices.read(folder), url, voice, download)
        pulled = pulled.with_voice(voice)
        pulled.write()
    return pulled


def _download_voice_files(
    pulled: PulledVoices, url: str, voice: PulledVoice, download: resumable_download.RunningDownload
) -> PulledVoices:
    keys = [key for key in voice.files if not pulled.is_intact(key)]
    for key in keys:
        if key in pulled.files and pulled.path(key).exists():
            download.progress.notice(f"{key} is damaged and is downloaded again.")
            files.remove(pulled.path(key))
    if not keys:
        return pulled
    with closing(VoiceFileServer(url)) as server:
        look_ups = [partial(server.look_up, key) for key in keys]
        found = list(resumable_download.run_in_parallel(look_ups, download.stop))
        resumable_download.check_room(download.destination, found, "voice", "MB", _NO_ROOM)
        download.progress.begin(voice.name, sum(file.size for file in found))

        def fetch(file: resumable_download.HubFile) -> tuple[str, PulledFile]:
            sha256 = resumable_download.fetch(file, server.read, download)
            return file.name, PulledFile(file.size, sha256, file.kind)

        fetches = [partial(fetch, file) for file in found]
        for key, file in resumable_download.run_in_parallel(fetches, download.stop):
            pulled = pulled.with_file(key, file)
            pulled.write()  # complete files stay recorded if others fail
    return pulled
