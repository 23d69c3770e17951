"""A server of HTTP in a thread of this process, for tests of those who fetch files."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self


class FileHost:
    """Answers GET while it is open, and HEAD where it ``heads``. Who derives from it says what;
    ``go_on`` is what its answers may wait for, and set at the end."""

    heads: ClassVar = False
    go_on: threading.Event
    _server: ThreadingHTTPServer

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one of them."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    host.answer(self)

            def log_message(self, *words: object) -> None:
                """Nobody wants to know."""

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
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])
