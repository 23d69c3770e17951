"""Where voices are downloaded from, on this machine: plain files, and what can go wrong there."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from http_file_server import FileHost
from service_process import PATIENCE_S

STRONG = "x-goog-hash"


@dataclass
class VoiceServer(FileHost):
    """``sent`` counts bytes by file, ``begins`` has where each answer began. A fault names a file:
    ``cut`` closes the connection once after so many bytes, ``stall`` waits there until ``go_on``,
    ``alter`` changes a byte on the way."""

    heads: ClassVar = True
    files: dict[str, bytes]
    header: str = STRONG
    """What it tells checksums by; '' for a server that tells none."""
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    alter: set[str] = field(default_factory=set)
    swap: dict[str, bytes] = field(default_factory=dict)
    """What a file is after its ``cut``."""
    gone_after_cut: bool = False
    """After a ``cut`` it answers nothing any more."""
    page: bytes | None = None
    """What every question is answered with."""
    status: int | None = None
    sent: Counter[str] = field(default_factory=Counter)
    begins: dict[str, list[int]] = field(default_factory=dict)
    asked: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tts/"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        if self.gone_after_cut and self.begins and not self.cut:
            request.close_connection = True
            return None
        key = request.path.removeprefix("/tts/")
        content = self.files.get(key)
        if self.status is not None or content is None:
            return self._head(request, self.status or 404, 0, {})
        if self.page is not None:
            return self._head(request, 200, len(self.page), {"content-type": "text/html"})
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        begin = int(found[1]) if found and request.headers.get("if-range", tag) == tag else 0
        headers = {"etag": tag, "content-type": "application/octet-stream"}
        if begin:
            headers["content-range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        headers |= self._checksum(content)
        self._head(request, 206 if begin else 200, len(content) - begin, headers)
        if request.command == "GET":
            self.begins.setdefault(key, []).append(begin)
            self._body(request, key, content, begin)
        return None

    def _checksum(self, content: bytes) -> dict[str, str]:
        if not self.header:
            return {}
        if self.header == "repr-digest":
            sha = base64.b64encode(hashlib.sha256(content).digest()).decode()
            return {self.header: f"sha-256=:{sha}:"}
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {self.header: f"crc32c=AAAAAA==,md5={md5}" if self.header == STRONG else md5}

    def _head(
        self, request: BaseHTTPRequestHandler, status: int, length: int, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "content-length": str(length)}.items():
            request.send_header(name, value)
        request.end_headers()

    def _body(self, request: BaseHTTPRequestHandler, key: str, content: bytes, begin: int) -> None:
        if key in self.alter:
            content = content[:-1] + bytes([content[-1] ^ 1])
        stop = self.cut.pop(key, None) or self.stall.get(key) or len(content)
        self.sent[key] += max(0, stop - begin)
        request.wfile.write(content[begin:stop])
        request.wfile.flush()
        if stop < len(content):
            self.files[key] = self.swap.pop(key, self.files[key])
            if key in self.stall:
                self.stalled.set()
                self.go_on.wait(PATIENCE_S)
            request.close_connection = True
            request.connection.close()
