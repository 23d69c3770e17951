"""`vibevoice-asr open`: the page in a browser, and who can see the link to it."""

import re
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
from command_terminal import Terminal, browser_that
from service_process import StartServer, is_private

from sidecar.cli import open as commands

TOKEN = "the-secret-token-of-the-service-0123"


@pytest.mark.parametrize("token", ["", TOKEN])
def test_sign_in_code_is_not_in_command_line_of_browser_but_in_a_file_of_its_user(
    token: str, tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(**({"token": token} if token else {}))
    data = tmp_path / "data folder"
    browser = browser_that(tmp_path, "Path('address').write_text(sys.argv[1], 'utf-8')")
    env = {"VIBEVOICE_TOKEN": token, "VIBEVOICE_DATA_DIR": str(data), "BROWSER": browser}
    run = Terminal(tmp_path).run("open", "--server", server.url, **env)
    assert run.returncode == 0, run.stderr
    address = (tmp_path / "address").read_text("utf-8")
    if not token:
        assert address == f"{server.url}/"
        return
    page = data / "open.html"
    assert address == page.as_uri()
    assert is_private(page)
    (link,) = re.findall(r'url=([^"]+)"', page.read_text("utf-8"))
    assert link.startswith(f"{server.url}/#open=")
    word = {"word": link.partition("=")[2]}
    assert server.client.post("/v1/page/sessions", json=word).json()["token"] == TOKEN


@pytest.mark.parametrize(
    ("audio", "language", "sent"),
    [(None, "de", "en"), (None, None, None), (Path("talk.mp3"), "de", None)],
    ids=str,
)
def test_demo_requests_english_only_for_its_own_sample_if_another_language_is_set(
    audio: Path | None, language: str | None, sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def transcribe(options: commands.transcribe.TranscribeCommandOptions) -> int:
        asked.append(asdict(options.request)["language"])
        return 1  # ends the demo

    def start(_: Mapping[str, object]) -> AbstractContextManager[object]:
        return nullcontext((subprocess.Popen, {"port": 9, "url": "http://127.0.0.1:9"}))

    monkeypatch.setattr(commands.transcribe, "run", transcribe)
    monkeypatch.setattr(commands, "start_child_service", start)
    assert commands.demo(audio, language, None, None) == 1
    assert asked == [sent]
