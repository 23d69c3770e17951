"""Serve the captions page at port 3000, with tickets for its connections.

    VIBEVOICE_TOKEN=… VIBEVOICE_ALLOWED_ORIGINS=http://localhost:3000 vibevoice-asr serve
    VIBEVOICE_TOKEN=… python3 examples/captions/server.py     # then open http://localhost:3000

Python's standard library only. The token never reaches the page.
"""

import json
import os
import urllib.error
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

SERVICE = os.environ.get("CAPTIONS_SERVICE", "http://127.0.0.1:8765")
PORT = int(os.environ.get("CAPTIONS_PORT", "3000"))
TOKEN = os.environ.get("VIBEVOICE_TOKEN", "")
HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[1] / "clients/js/src"
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The token goes to the service alone, whatever proxy the environment names."""


class Handler(SimpleHTTPRequestHandler):
    """The page, the JavaScript client at /client/, the address of the service, tickets."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
    }

    def translate_path(self, path: str) -> str:
        """Return the file of a path: of the client below /client/, else of this folder."""
        self.directory = str(HERE)
        if path.startswith("/client/"):
            self.directory, path = str(CLIENT), path.removeprefix("/client")
        return super().translate_path(path)

    def do_GET(self) -> None:
        """Answer /settings, or a file."""
        if self.path == "/settings":
            self._answer(200, json.dumps({"service": SERVICE}).encode())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Answer /ticket: here a real server checks first that its user is signed in."""
        if self.path != "/ticket":
            return self.send_error(404)
        headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
        request = urllib.request.Request(SERVICE + "/v1/live/ticket", b"", headers)
        try:
            with WITHOUT_PROXY.open(request, timeout=10) as answer:
                self._answer(200, answer.read())
        except urllib.error.HTTPError as refused:
            self._answer(refused.code, refused.read())
        except OSError as error:
            self._answer(502, json.dumps({"detail": str(error)}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
