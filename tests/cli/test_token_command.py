"""`vibevoice-asr token`, as people type it."""

import os
import sys
from pathlib import Path

import pytest
from service_process import run_command

from sidecar.auth import signed_tokens
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli import run


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(tmp_path))


def test_token_is_created_listed_and_revoked_and_signing_key_added_by_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["token", "create", "--subject", "anna", "--expires", "90d"]
    words += ["--scope", "reload", "--scope", "now"]
    assert run(words) == 0
    said = capsys.readouterr()
    (token,) = said.out.split()
    issuer = TokenIssuer(tmp_path / "tokens")
    public = signed_tokens.read_public_keys(issuer.keys.public)
    claims = signed_tokens.TokenVerifier(lambda: public, issuer.revoked).verify(token)
    assert claims is not None
    assert claims.credential is not None
    assert (claims.subject, claims.scopes) == ("anna", {"reload", "now"})
    assert claims.credential.token_id in said.err
    assert token not in said.err
    assert run(["token", "list"]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == [claims.credential.token_id, "counts", "anna"]
    for counts in ("1 revoked in ", "0 revoked (already: 1) in "):
        assert run(["token", "revoke", "anna"]) == 0
        assert counts in capsys.readouterr().err
    assert run(["token", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert run(["token", "keys"]) == 0
    assert run(["token", "keys", "--new"]) == 0
    said = capsys.readouterr()
    assert said.err.count("ids of the keys, the last one signs:") == 2
    first, *both = said.out.split()
    assert both[0] == first
    assert issuer.keys.names() == both


@pytest.mark.posix("a terminal of POSIX")
def test_token_list_has_a_header_on_a_terminal() -> None:
    import pty

    assert run(["token", "create", "--subject", "anna"]) == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sidecar.main", "token", "list"]
    run_command(command, stdout=theirs, check=True)
    os.close(theirs)
    with open(ours, encoding="utf-8") as terminal:
        head, row = terminal.readline(), terminal.readline()
    assert head.split("  ")[0] == "id"
    assert head.index("name") == row.index("anna")
    assert head.index("until") == row.index("for ever")
