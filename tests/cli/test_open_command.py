"""`vibevoice-asr open`: the page in a browser, and who can see the link to it."""

import re
import stat
import sys
from pathlib import Path

import pytest
from command_terminal import Terminal
from service_process import StartServer, new_file

TOKEN = "the-secret-token-of-the-service-0123"
BROWSER = """#!/bin/sh
printf '%s' "$1" >address
"""


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that notes the address in its command line."""
    return new_file(tmp_path / "browser.sh", BROWSER, 0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="a browser that is a script of a POSIX shell")
@pytest.mark.parametrize("token", ["", TOKEN])
def test_code_of_a_link_is_in_no_command_line_and_in_a_private_file(
    token: str, browser: Path, tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(**({"token": token} if token else {}))
    data = tmp_path / "data folder"
    env = {"VIBEVOICE_TOKEN": token, "VIBEVOICE_DATA_DIR": str(data), "BROWSER": f"{browser} %s"}
    run = Terminal(tmp_path).run("open", "--server", server.url, **env)
    assert run.returncode == 0, run.stderr
    address = (tmp_path / "address").read_text()
    if not token:
        assert address == f"{server.url}/"
        return
    page = data / "open.html"
    assert address == page.as_uri()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    (link,) = re.findall(r'url=([^"]+)"', page.read_text("utf-8"))
    assert link.startswith(f"{server.url}/#open=")
    word = {"word": link.partition("=")[2]}
    assert server.client.post("/v1/page/sessions", json=word).json()["token"] == TOKEN
