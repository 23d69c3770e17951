"""Tokens, keys and lists in a folder: made, listed, revoked, and read while they change."""

import datetime
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from service_process import is_private, new_file
from systems import IN_WINDOWS

from sidecar import errors, file_watcher
from sidecar.auth import signed_tokens
from sidecar.auth.authentication import create_authenticator
from sidecar.auth.identity import RequestOrigin
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings

BEGIN = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
DAY_S = 86400.0


def test_tokens_are_listed_and_revoked_by_name_or_id(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path / "tokens", lambda: BEGIN)
    token, first = issuer.create("anna", 90 * DAY_S, ("reload",))
    _, second = issuer.create("ben")
    assert issuer.issued() == [first, second]
    assert first.expires == BEGIN + datetime.timedelta(days=90)
    assert second.expires is None
    said = jwt.decode(token, options={"verify_signature": False})
    assert said == {
        "sub": "anna", "jti": first.token_id, "aud": "vibevoice-asr", "scope": "reload",
        "iat": int(BEGIN.timestamp()), "exp": int(first.expires.timestamp()),
    }  # fmt: skip
    assert issuer.revoke("anna") == [first.token_id]
    assert issuer.revoke(second.token_id) == [second.token_id]
    assert issuer.revoke("f" * 32) == ["f" * 32], "one that was made elsewhere"
    assert issuer.revoked() == {first.token_id, second.token_id, "f" * 32}
    for nobody in ("carl", "f" * 31, "", "anna\n"):
        with pytest.raises(errors.SettingsInvalid, match="No token"):
            issuer.revoke(nobody)


def test_hotwords_of_a_token_are_its_identitys_unless_they_are_too_many(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path / "tokens", lambda: BEGIN)
    token, _ = issuer.create("anna", hotwords="Acme; Okonkwo\nAcme")
    keys = signed_tokens.read_public_keys(issuer.keys.public)
    verifier = signed_tokens.TokenVerifier(lambda: keys, frozenset)
    assert verifier.verify(token).hotwords == ("Acme", "Okonkwo")
    made = issuer.issued()
    with pytest.raises(errors.SettingsInvalid, match="no room for so many hotwords"):
        issuer.create("anna", hotwords="x" * 2000)
    assert issuer.issued() == made
    name, key = issuer.keys.signer()
    claims = {"sub": "anna", "jti": "f" * 32, "aud": "vibevoice-asr", "hotwords": ["Acme"]}
    listed = jwt.encode(claims, key, "ES256", headers={"kid": name})
    with pytest.raises(errors.TokenInvalid):
        verifier.verify(listed)


@pytest.mark.parametrize("lasts", [0.0, -1.0, 1e12, float("inf"), float("nan")])
def test_invalid_lifetime_makes_no_token(tmp_path: Path, lasts: float) -> None:
    with pytest.raises(errors.SettingsInvalid):
        TokenIssuer(tmp_path).create("anna", lasts)
    assert TokenIssuer(tmp_path).issued() == []


def test_issued_token_is_not_stored_and_key_files_are_readable_by_their_user_only(
    tmp_path: Path,
) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    token, _ = issuer.create("anna")
    files = [path for path in issuer.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]
    secret = [*issuer.keys.private.iterdir(), issuer.folder / "issued.jsonl"]
    assert [is_private(path) for path in (issuer.folder, *secret)] == [True] * 3
    if os.name == "nt":
        return
    secret[0].chmod(0o640)
    with pytest.raises(errors.SettingsInvalid, match="Other users may read"):
        issuer.create("ben")


def test_only_public_keys_on_the_right_curve_are_accepted(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    issuer.rotate()
    assert list(signed_tokens.read_public_keys(issuer.keys.public)) == issuer.keys.names()
    with pytest.raises(errors.SettingsInvalid, match="private key"):
        signed_tokens.read_public_keys(issuer.keys.private)
    other = tmp_path / "other.pem"
    other.write_bytes(
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(errors.SettingsInvalid, match="P-256"):
        signed_tokens.read_public_keys(other)
    for broken in (b"", b"-----BEGIN PUBLIC KEY-----\n", b"x" * 20_000):
        other.write_bytes(broken)
        with pytest.raises(errors.SettingsInvalid):
            signed_tokens.read_public_keys(other)
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(errors.SettingsInvalid):
            signed_tokens.read_public_keys(nothing)


def test_broken_revocation_list_keeps_the_last_one_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = new_file(tmp_path / "revoked.txt", "# who lost a laptop\n\n  abc  \n")
    seen = file_watcher.WatchedFiles("revoked tokens", [file], signed_tokens.RevocationFile(file))
    assert seen.value == {"abc"}
    for broken in (b"", b"abc\n\xff\n", b"abc\nnot an id\n", b"x" * 100, b"y" * (9 << 20), None):
        caplog.clear()
        file.unlink() if broken is None else file.write_bytes(broken)
        assert not seen.reload_if_changed()
        assert seen.value == {"abc"}, "the last good one counts"
        assert "cannot be used" in caplog.text
        caplog.clear()
        assert not seen.reload_if_changed()
        assert not caplog.text, "said once for each change"
    file.write_text("abc\r\ndef", "utf-8")
    assert seen.reload_if_changed()
    assert seen.value == {"abc", "def"}
    file.write_text("# nobody any more\n", "utf-8")
    assert seen.reload_if_changed()
    assert seen.value == frozenset()
    assert "2 tokens are valid again" in caplog.text


class NotingWatcher(file_watcher.FileWatcher):
    """Has what it watches, so that a test says when it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.added = list[file_watcher.WatchedFiles[Any]]()

    def add(
        self, what: str, paths: Iterable[Path], read: Callable[[], Any]
    ) -> file_watcher.WatchedFiles[Any]:
        self.added.append(super().add(what, paths, read))
        return self.added[-1]


def test_revocation_list_written_after_the_start_counts_also_after_it_is_deleted(
    tmp_path: Path,
) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    issuer.rotate()
    watcher = NotingWatcher()
    known = create_authenticator(Settings(token_keys=issuer.keys.public), watcher)
    token, issued = issuer.create("anna")
    asked = RequestOrigin(["localhost"], [], [f"Bearer {token}"], peer="127.0.0.1")
    (*_, listed) = watcher.added
    assert known.identify(asked).subject == "anna"
    issuer.revoke("anna")
    assert listed.reload_if_changed()
    with pytest.raises(errors.TokenInvalid):
        known.identify(asked)
    issuer.revoked_file.unlink()
    assert not listed.reload_if_changed()
    assert listed.value == {issued.token_id}, "the last good one counts"


def test_concurrent_revocations_are_read_whole_and_none_is_lost(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    issuer.create("anna")
    ids = [f"{number:032x}" for number in range(40)]
    halves = [threading.Thread(target=lambda part: [issuer.revoke(each) for each in part],
                               args=(ids[begin::2],)) for begin in (0, 1)]  # fmt: skip
    for thread in halves:
        thread.start()
    before: frozenset[str] = frozenset()
    while any(thread.is_alive() for thread in halves):
        now = signed_tokens.read_revocations(issuer.revoked_file)
        assert before <= now
        before = now
        if IN_WINDOWS:  # it replaces no file that is open, as this one always would be
            time.sleep(0.05)  # real time: a pause between two reads
    assert issuer.revoked() == set(ids)
