"""A server of HTTP in a thread of this process, for tests of clients."""

import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self

from service_process import PATIENCE_S


@dataclass(kw_only=True)
class FileHost:
    """Answers GET, PUT, POST and DELETE while it is open, and HEAD where it ``heads``. Who derives
    from it says what.

    ``sent`` counts bytes by file, ``begins`` has the place in the file that each answer began at.
    A fault names a file: ``cut`` closes the connection once after so many bytes, ``stall`` waits
    there until ``go_on``, ``alter`` changes a byte on the way. With ``trickle`` a byte a second
    comes meanwhile: a client gives up a server that is silent for long, as a slow test makes it.
    """

    heads: ClassVar = False
    sent: Counter[str] = field(default_factory=Counter)
    begins: dict[str, list[int]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    alter: set[str] = field(default_factory=set)
    trickle: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    """What answers wait for; set at the end."""
    stalled: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one of them."""
        raise NotImplementedError

    @staticmethod
    def head(
        request: BaseHTTPRequestHandler, status: int, length: int, headers: Mapping[str, str]
    ) -> None:
        """Send what comes before a body of this length."""
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            request.send_header(name, value)
        request.end_headers()

    def reply(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]
    ) -> None:
        """Send a whole answer."""
        self.head(request, status, len(body), headers)
        request.wfile.write(body)

    @staticmethod
    def read_body(request: BaseHTTPRequestHandler) -> bytes:
        """Read what a request brings."""
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))

    def send_from(
        self, request: BaseHTTPRequestHandler, name: str, content: bytes, begin: int
    ) -> None:
        """Send a file from there on, with its faults."""
        self.begins.setdefault(name, []).append(begin)
        if name in self.alter:
            content = content[:-1] + bytes([content[-1] ^ 1])
        stop = self.cut.pop(name, None) or self.stall.get(name) or len(content)
        self.sent[name] += len(content[begin:stop])  # before: who has it all may look at once
        request.wfile.write(content[begin:stop])
        request.wfile.flush()
        if stop < len(content):
            if name in self.stall:
                self.stalled.set()
                self._wait(request, content[max(begin, stop) : -1])
            request.close_connection = True
            request.connection.close()

    def _wait(self, request: BaseHTTPRequestHandler, rest: bytes) -> None:
        for byte in rest if self.trickle else b"":
            if self.go_on.wait(1.0):
                return
            request.wfile.write(bytes([byte]))
        self.go_on.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    host.answer(self)

            def log_message(self, *words: object) -> None:
                """Nobody wants to know."""

            do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        if self.heads:
            Handler.do_HEAD = Handler.do_GET  # type: ignore[attr-defined]

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *about: object) -> None:
                """A client that goes away in the middle is what these tests are about."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"
