"""Command `status`: whose token is sent, until when, and what is refused."""

import re
import sys
from pathlib import Path

from service_process import StartServer, run_command, service_environment

from sidecar.auth.token_issuing import TokenIssuer
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
