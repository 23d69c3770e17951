"""Files with secrets: read without waiting, or refused with what is wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import errors, servers
from sidecar.access.certificate import Pair
from sidecar.access.credentials import with_token
from sidecar.host import tls
from sidecar.settings import Settings, load_settings
from sidecar.vault.key import journal_key

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes here")
LONG_S = 20.0
"""Whoever waits for a writer waits for ever."""

READERS: dict[str, Callable[[Path], object]] = {
    "a token": lambda path: with_token(load_settings(token_file=path)),
    "a journal's key": lambda path: journal_key(load_settings(journal_key_file=path)),
    "another server's key": lambda path: servers.key(None, path, "llm"),
    "settings": lambda path: load_settings(config=path),
    "a certificate": lambda path: tls._read(Pair(path, path)),
}


@pytest.mark.parametrize("what", READERS)
def test_a_pipe_that_nobody_writes_to_is_refused_at_once(what: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    said: list[str] = []

    def read() -> None:
        with pytest.raises(errors.SettingsInvalid) as refused:
            READERS[what](pipe)
        said.append(refused.value.detail)

    reader = threading.Thread(target=read, daemon=True)  # one that waits does so for ever
    reader.start()
    reader.join(LONG_S)
    assert said
    assert "not a regular file" in said[0]


def test_a_secret_is_what_its_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-enough-letters-for-anybody")
    file.chmod(0o600)
    token = with_token(Settings(token_file=file)).token
    assert token is not None
    assert token.get_secret_value() == file.read_text()
