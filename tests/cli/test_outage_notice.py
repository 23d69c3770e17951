"""A command that waits for a service in an outage says so, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sidecar.cli import run


class Outage(BaseHTTPRequestHandler):
    """A service that answers ``codes``, one for each recording that is sent."""

    codes: list[str]

    def do_GET(self) -> None:
        self._answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        code = self.codes.pop(0)
        status = 422 if code == "audio_undecodable" else 503
        self._answer(status, {"code": code, "detail": f"{code}.", "hint": ""})

    def _answer(self, status: int, body: dict[str, str]) -> None:
        said = json.dumps(body).encode()
        self.send_response(status)
        kind = "json" if status == 200 else "problem+json"
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Outage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("codes", "told"), [(["journal_unreachable", "journal_unreachable"], 1), (["queue_full"], 0)]
)
def test_outage_is_reported_once_and_a_full_queue_not_at_all(
    codes: list[str],
    told: int,
    service: str,
    tmp_path: Path,
    voice: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Outage, "codes", [*codes, "audio_undecodable"], raising=False)
    recording = tmp_path / "talk.wav"
    recording.write_bytes(voice)
    assert run(["transcribe", str(recording), "--server", service]) == 1
    *notices, last = capsys.readouterr().err.splitlines()
    line = "vibevoice-asr: the service answers journal_unreachable; trying again."
    assert notices == [line] * told
    assert "audio_undecodable" in last
    assert Outage.codes == []
