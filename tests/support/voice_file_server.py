"""Where voices are downloaded from, on this machine: plain files, and what can go wrong there."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from http_file_server import FileHost

STRONG = "x-goog-hash"


@dataclass
class VoiceServer(FileHost):
    """The server and what it was asked."""

    heads: ClassVar = True
    files: dict[str, bytes]
    header: str = STRONG
    """What it tells checksums by; '' for a server that tells none."""
    swap: dict[str, bytes] = field(default_factory=dict)
    """What a file is after its ``cut``."""
    gone_after_cut: bool = False
    """After a ``cut`` it answers nothing any more."""
    page: bytes | None = None
    """What every question is answered with."""
    status: int | None = None
    asked: int = 0

    @property
    def url(self) -> str:
        return f"{super().url}/tts/"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        if self.gone_after_cut and self.begins and not self.cut:
            request.close_connection = True
            return None
        key = request.path.removeprefix("/tts/")
        content = self.files.get(key)
        if self.status is not None or content is None:
            return self.head(request, self.status or 404, 0, {})
        if self.page is not None:
            return self.head(request, 200, len(self.page), {"content-type": "text/html"})
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        begin = int(found[1]) if found and request.headers.get("if-range", tag) == tag else 0
        headers = {"etag": tag, "content-type": "application/octet-stream"}
        if begin:
            headers["content-range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        headers |= self._checksum(content)
        self.head(request, 206 if begin else 200, len(content) - begin, headers)
        if request.command == "GET":
            if key in self.cut:
                self.files[key] = self.swap.pop(key, content)
            self.send_from(request, key, content, begin)
        return None

    def _checksum(self, content: bytes) -> dict[str, str]:
        if not self.header:
            return {}
        if self.header == "repr-digest":
            sha = base64.b64encode(hashlib.sha256(content).digest()).decode()
            return {self.header: f"sha-256=:{sha}:"}
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {self.header: f"crc32c=AAAAAA==,md5={md5}" if self.header == STRONG else md5}
