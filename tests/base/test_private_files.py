"""Files with secrets: read before long, or refused with what is wrong."""

import errno
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr
from service_process import PATIENCE_S, new_file

from sidecar import errors, files
from sidecar.auth.tls import create_tls
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config import secret_settings
from sidecar.config.secret_settings import resolve_token
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher, WatchedFiles
from sidecar.plugins import load_settings
from sidecar.plugins.upstream.settings import UpstreamSettings, upstream_options
from sidecar.storage.encryption import journal_key

named_pipes = pytest.mark.posix("pipes of POSIX")
SECRET = "a-token-of-enough-letters-for-anybody"

READERS: dict[str, Callable[[Path], object]] = {
    "a token": lambda path: resolve_token(load_settings(token=f"@{path}")),
    "a journal's key": lambda path: journal_key(load_settings(journal_key=f"@{path}")),
    "another server's key": lambda path: secret_settings.parse_key(SecretStr(f"@{path}"), "llm"),
    "settings": lambda path: load_settings(config=path),
}
OPENED_ELSEWHERE: dict[str, Callable[[Path], object]] = {
    "a certificate": lambda path: create_tls(Settings(tls=str(path)), FileWatcher()),
    "a CA of other servers": lambda path: upstream_options(
        UpstreamSettings(upstream=("http://127.0.0.1:1",), upstream_ca=path)
    ),
}


def refused(read: Callable[[Path], object], path: Path) -> str:
    """What is said of it, before long."""
    said: list[str] = []

    def reads() -> None:
        with pytest.raises(errors.SettingsInvalid) as refused:
            read(path)
        said.append(refused.value.detail)

    reader = threading.Thread(target=reads, daemon=True)  # one that waits does so for ever
    reader.start()
    reader.join(PATIENCE_S)
    assert said
    return said[0]


@named_pipes
@pytest.mark.parametrize("what", READERS)
def test_file_setting_that_is_a_pipe_without_writer_is_refused_after_timeout(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "read", partial(files.read, pipe_s=0.05))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "was not closed within" in refused(READERS[what], pipe)


@named_pipes
@pytest.mark.parametrize("what", OPENED_ELSEWHERE)
def test_certificate_or_ca_in_a_pipe_is_refused(what: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "not a regular file" in refused(OPENED_ELSEWHERE[what], pipe)


@named_pipes
def test_secret_from_a_shell_pipe_can_be_read_twice() -> None:
    end, start = os.pipe()
    try:
        os.write(start, SECRET[:9].encode())
        rest = threading.Timer(
            0.05, lambda: (os.write(start, SECRET[9:].encode()), os.close(start))
        )
        rest.start()
        pipe = Path(f"/dev/fd/{end}")
        found = [files.read(pipe, 100, private=True, pipe_s=PATIENCE_S) for _ in range(2)]
        assert found == [SECRET.encode()] * 2
    finally:
        os.close(end)


@named_pipes
def test_secret_in_pipe_readable_by_others_or_longer_than_limit_is_refused(tmp_path: Path) -> None:
    for mode, most, said in (
        (0o644, 100, "Other users may read"),
        (0o600, 10, "more than 10 bytes"),
    ):
        pipe = tmp_path / str(most)
        os.mkfifo(pipe)
        pipe.chmod(mode)
        writer = threading.Thread(target=pipe.write_text, args=(SECRET,))
        writer.start()
        with pytest.raises(errors.SettingsInvalid, match=said):
            files.read(pipe, most, private=True)
        writer.join(PATIENCE_S)


@named_pipes
def test_watched_pipe_is_read_once_and_not_reloaded_when_its_time_changes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    reads: list[Path] = []
    watched = WatchedFiles("keys", [pipe], lambda: reads.append(pipe))
    os.utime(pipe, (1.0, 1.0))
    assert not watched.reload_if_changed()
    assert reads == [pipe]


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsInvalid, match=r"directory|Permission denied"):
        files.read(tmp_path, 100)


def test_temporary_folder_of_the_system_that_a_cleaner_deleted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows deletes it at the end of a session."""
    folder = tmp_path / "session" / "1"
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with files.temporary() as file:
        file.write(b"a recording")
    assert list(folder.iterdir()) == []


@pytest.mark.posix("permissions of POSIX")
def test_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    public = new_file(tmp_path / "public", SECRET, 0o644)
    with pytest.raises(errors.SettingsInvalid, match="Other users may read") as refused:
        resolve_token(load_settings(token=f"@{public}"))
    assert "chmod 600" in refused.value.hint


def test_signed_token_missing_file_or_token_with_generate_token_is_refused(
    tmp_path: Path,
) -> None:
    signed, _ = TokenIssuer(tmp_path / "tokens").create("anna")
    for given, said, hint in (
        (f"@{new_file(tmp_path / 'signed', signed, 0o600)}", "signed token", "CLIENT_TOKEN"),
        (signed, "signed token", "VIBEVOICE_CLIENT_TOKEN"),
        ("@/no/such/file", "cannot be read", ""),
    ):
        with pytest.raises(errors.SettingsInvalid, match=said) as refused:
            resolve_token(load_settings(token=given))
        assert hint in refused.value.hint
        assert signed not in str(refused.value.to_wire())
    with pytest.raises(errors.SettingsInvalid, match="exclude each other"):
        resolve_token(load_settings(token=SECRET, generate_token=True))


def test_token_setting_with_at_sign_is_read_from_that_file(tmp_path: Path) -> None:
    file = new_file(tmp_path / "token", SECRET, 0o600)
    token = resolve_token(Settings(token=f"@{file}")).token
    assert token is not None
    assert token.get_secret_value() == file.read_text("utf-8")


@pytest.mark.posix("macOS")
@pytest.mark.parametrize("supported", [True, False], ids=["", "file system without it"])
def test_sync_on_macos_uses_full_fsync_and_falls_back_to_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    import fcntl

    asked = list[object]()

    def noted(fd: int, command: int) -> None:
        asked.append(command)
        if not supported:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", noted)
    monkeypatch.setattr(os, "fsync", lambda fd: asked.append("fsync"))
    with (tmp_path / "file").open("wb") as file:
        files.sync(file.fileno())
    assert asked == ([51] if supported else [51, "fsync"])
