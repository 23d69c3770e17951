"""A command that waits for a service in an outage says so, once."""

import json
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from http_file_server import FileHost
from service_process import new_file

from sidecar.cli import run


@dataclass
class Outage(FileHost):
    """A service that answers ``codes``, one for each recording that is sent."""

    codes: list[str]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.read_body(request)
        code = self.codes.pop(0) if request.command == "POST" else ""
        status = {"": 200, "audio_undecodable": 422}.get(code, 503)
        said = {"code": code, "detail": f"{code}.", "hint": ""} if code else {"status": "ok"}
        kind = "application/problem+json" if code else "application/json"
        headers = {"Content-Type": kind, "Retry-After": "0"}
        self.reply(request, status, json.dumps(said).encode(), headers)


@pytest.mark.parametrize(
    ("codes", "told"), [(["journal_unreachable", "journal_unreachable"], 1), (["queue_full"], 0)]
)
def test_transcribe_tries_again_and_reports_an_outage_once_and_a_full_queue_not_at_all(
    codes: list[str], told: int, tmp_path: Path, voice: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = new_file(tmp_path / "talk.wav", voice)
    with Outage([*codes, "audio_undecodable"]) as service:
        assert run(["transcribe", str(recording), "--server", service.url]) == 1
    *notices, last = capsys.readouterr().err.splitlines()
    line = "vibevoice-asr: the service answers journal_unreachable; trying again."
    assert notices == [line] * told
    assert "audio_undecodable" in last
    assert service.codes == []
