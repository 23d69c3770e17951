"""Command `status`: whose token is sent, until when, and what is refused."""

import re
import sys
from pathlib import Path

from service_process import StartServer, run_command, service_environment

from sidecar.api.page import FOLDER
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli.status import standing
from sidecar.engines import moonshine
from sidecar.files import write


def status(url: str, token: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of the command with the token in this file."""
    words = [sys.executable, "-m", "sidecar.main", "status", "--server", url]
    env = service_environment(Path("/nowhere"))
    done = run_command([*words, "--token", f"@{token}"], env=env, text=True)
    return done.returncode, done.stdout, done.stderr


def test_status_names_owner_and_end_of_its_token_and_refuses_bad_ones(
    start_server: StartServer, tmp_path: Path
) -> None:
    issuer, file = TokenIssuer(tmp_path / "tokens"), tmp_path / "anna.token"
    token, issue = issuer.create("anna", lasts_s=86_400)
    server = start_server(token_keys=issuer.keys.public)
    url = f"http://127.0.0.1:{server.port}"
    write(file, token.encode())
    assert issue.expires is not None
    code, output, _ = status(url, file)
    assert code == 0
    assert f"as anna, until {issue.expires:%Y-%m-%d %H:%M} UTC" in output
    file.chmod(0o644)
    code, output, wrong = status(url, file)
    assert (code, output) == (78, "")
    assert str(file) in wrong
    file.chmod(0o600)
    write(file, token[:-9].encode())
    code, output, wrong = status(url, file)
    assert code != 0
    assert "not valid for this service" in wrong
    assert "signed in" not in output


def test_status_of_a_service_without_tokens_says_that_none_is_required(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "some.token"
    write(file, b"correct-horse-battery-staple")
    code, output, _ = status(f"http://127.0.0.1:{start_server().port}", file)
    assert code == 0
    assert re.search(r"signed in +not required", output)


def test_status_names_engine_languages_and_state_in_the_words_of_the_page(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "some.token"
    write(file, b"correct-horse-battery-staple")
    code, output, _ = status(f"http://127.0.0.1:{start_server(engine='moonshine').port}", file)
    assert code == 0
    rows = {line[:15].strip(): line[15:].strip() for line in output.splitlines()}
    assert rows["engine"] == f"{moonshine.SPEC.title} (moonshine)"
    assert (rows["languages"], rows["waiting"]) == ("English", "0 recordings")
    assert rows["loaded"] == "no; it loads with the next recording"
    assert "int8" not in output, "it is not loaded"


def test_status_of_a_service_that_requires_a_token_has_the_name_of_its_engine(
    start_server: StartServer,
) -> None:
    url = f"http://127.0.0.1:{start_server(token='correct-horse-battery-staple').port}"
    words = [sys.executable, "-m", "sidecar.main", "status", "--server", url]
    done = run_command(words, env=service_environment(Path("/nowhere")), text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:15].strip(): line[15:].strip() for line in done.stdout.splitlines()}
    assert rows["engine"] == "scripted"
    assert "languages" not in rows


def test_standing_of_a_service_is_that_of_its_page() -> None:
    found = [
        standing({"status": "stopping", "engine_state": "busy"}),
        standing({"status": "loading", "load_percent": 40, "engine_state": "loading"}),
        standing({"status": "ok", "engine_state": "stuck"}),
        standing({"status": "ok", "engine_state": "busy"}),
        standing({"status": "ok", "engine_state": "absent"}),
    ]
    does_not = "The engine does not respond"
    assert found == ["Stopping", "Loading, 40 %", does_not, "Transcribing", "Ready"]
    page = (FOLDER / "bar.js").read_text("utf-8")
    assert all(one.split(",")[0] in page for one in found)
