"""What is kept is sealed: whose key it is, and what becomes of what was altered."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    new_file,
    popen,
    run_command,
    service_environment,
)
from systems import IN_WINDOWS

from sidecar import errors, files
from sidecar.config.settings import Settings
from sidecar.storage import encryption
from sidecar.storage.encrypted_sqlite import create_cipher, verify_cipher
from sidecar.storage.job_journal import JOURNAL_LABELS

KEY = "0123456789abcdef0123456789abcdef"
SEAL = encryption.Cipher(KEY, b"salt")
SMALL_CHUNKS = encryption.Cipher(KEY, b"salt", chunk_bytes=10)
HEAD = encryption.NONCE_PREFIX_BYTES


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 8))
def test_encrypted_stream_is_decrypted_whatever_its_chunks(parts: list[bytes], size: int) -> None:
    sealed = b"".join(SEAL.encrypt_recording(parts, "name"))
    cuts = [sealed[at : at + size + 1] for at in range(0, len(sealed), size + 1)]
    assert b"".join(SEAL.decrypt_recording(cuts, "name")) == b"".join(parts)


def test_each_recording_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)  # chance gives all of them the same nonces
    sound = [b"0123456789" * 3]
    one, other = (b"".join(SEAL.encrypt_recording(sound, name)) for name in ("one", "other"))
    assert one[:HEAD] == other[:HEAD]
    assert not {one[at : at + 8] for at in range(HEAD, len(one) - 7)} & {
        other[at : at + 8] for at in range(HEAD, len(other) - 7)
    }
    assert b"".join(SEAL.decrypt_recording([one], "one")) == sound[0]
    for seal, name in ((SEAL, "other"), (encryption.Cipher(KEY, b"another"), "one")):
        with pytest.raises(encryption.DecryptionFailed):
            b"".join(seal.decrypt_recording([one], name))


def opened(path: Path) -> encryption.LocalObject:
    return encryption.LocalObject(files.open_to_read(path))


def read_all(seal: encryption.Cipher, path: Path, about: str) -> bytes:
    """The whole of a sealed file, a piece at a time from its end."""
    with closing(encryption.EncryptedFile(seal, opened(path), about)) as file:
        begins = range(0, max(file.size, 1), seal.chunk_bytes)
        return b"".join([file.read(at) for at in reversed(begins)][::-1])


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 35])
def test_encrypted_file_is_read_from_any_position(size: int, tmp_path: Path) -> None:
    data, path = os.urandom(size), tmp_path / "sealed"
    path.write_bytes(b"".join(SMALL_CHUNKS.encrypt_recording([data], "name")))
    assert read_all(SMALL_CHUNKS, path, "name") == data
    with closing(encryption.EncryptedFile(SMALL_CHUNKS, opened(path), "name")) as file:
        assert file.size == size
        for at in range(size + 2):
            assert file.read(at, 3) == data[at : min(at + 3, at - at % 10 + 10)]


HARMS: dict[str, Callable[[bytes, list[bytes]], bytes]] = {
    "empty": lambda sealed, pieces: b"",
    "head": lambda sealed, pieces: sealed[:HEAD],
    "cut": lambda sealed, pieces: sealed[:-1],
    "piece less": lambda sealed, pieces: sealed[:-26],
    "swapped": lambda sealed, pieces: sealed[:HEAD] + pieces[1] + pieces[0] + pieces[2],
    "first bit": lambda sealed, _: sealed[:HEAD] + bytes([sealed[HEAD] ^ 1]) + sealed[HEAD + 1 :],
    "last bit": lambda sealed, pieces: sealed[:-1] + bytes([sealed[-1] ^ 1]),
    "more": lambda sealed, pieces: sealed + pieces[0],
    "name": lambda sealed, pieces: sealed,
    "key": lambda sealed, pieces: sealed,
}
"""What somebody makes of a recording that was sealed in three pieces, or of how it is opened."""


@pytest.mark.parametrize("harm", HARMS)
def test_recording_that_is_altered_or_opened_with_another_name_or_key_is_not_decrypted(
    harm: str, tmp_path: Path
) -> None:
    sealed = b"".join(SMALL_CHUNKS.encrypt_recording([b"0123456789" * 3], "name"))
    path, name = tmp_path / "sealed", "other" if harm == "name" else "name"
    pieces = [sealed[at : at + 26] for at in range(HEAD, len(sealed), 26)]
    assert len(pieces) == 3
    path.write_bytes(HARMS[harm](sealed, pieces))
    other_key = encryption.Cipher(KEY[::-1], b"salt", chunk_bytes=SMALL_CHUNKS.chunk_bytes)
    seal = other_key if harm == "key" else SMALL_CHUNKS
    with pytest.raises(encryption.DecryptionFailed):
        b"".join(seal.decrypt_recording([path.read_bytes()], name))
    with pytest.raises(encryption.DecryptionFailed):
        read_all(seal, path, name)
    if harm not in ("swapped", "first bit"):  # before anything of it is given out
        with pytest.raises(encryption.DecryptionFailed):
            encryption.EncryptedFile(seal, opened(path), name)


@pytest.mark.slow_except("none")
@pytest.mark.parametrize(
    "how",
    [
        *("none", "short"),
        pytest.param("open file", marks=pytest.mark.posix("permissions of POSIX")),
    ],
)
def test_start_with_missing_short_or_world_readable_journal_key_is_refused_with_a_hint(
    how: str, tmp_path: Path
) -> None:
    file = new_file(
        tmp_path / "key", "short" if how == "short" else KEY, 0o644 if how == "open file" else 0o600
    )
    given = {"journal_key": f"@{file}"} if how != "none" else {}
    ended = run_command(
        [sys.executable, "-m", "sidecar.main"],
        env=service_environment(tmp_path, data_dir=tmp_path, keep_jobs=True, port=0, **given)
        | {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"},
    )
    (line,) = ended.stdout.splitlines()
    said = json.loads(line)
    assert ended.returncode == 78
    assert "settings_invalid" in line.decode()
    made = "64 random characters" if IN_WINDOWS else "openssl"
    assert {"none": made, "open file": "chmod", "short": made}[how] in json.dumps(said)
    assert not (tmp_path / "jobs" / "jobs.db").exists()


KEYRING = """
import os, time
from pathlib import Path
folder = Path(os.environ["KEYRING_OF_A_TEST"])
asked = False

def get_password(service, name):
    global asked
    found = folder / "password"
    password = found.read_text() if found.exists() else None
    if not asked:  # both services ask before either has made a key
        asked = True
        (folder / f"asked-{os.getpid()}").touch()
        while len(list(folder.glob("asked-*"))) < 2:
            time.sleep(0.01)
    return password

def set_password(service, name, password):
    if os.environ["KEYRING_OF_A_TEST_KEEPS"] == "yes":
        (folder / "password").write_text(password)
"""


@pytest.mark.slow_except("yes")
@pytest.mark.parametrize("keeps", ["yes", "no"])
def test_two_first_starts_at_once_share_one_keyring_key_or_are_refused_if_none_is_kept(
    keeps: str, tmp_path: Path
) -> None:
    package = tmp_path / "path" / "keyring"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(KEYRING, "utf-8")
    (package / "errors.py").write_text("class KeyringError(Exception): pass", "utf-8")
    given = {"KEYRING_OF_A_TEST": str(tmp_path), "KEYRING_OF_A_TEST_KEEPS": keeps}
    given |= {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    code = (
        "from sidecar.config.settings import Settings\n"
        "from sidecar.storage.encryption import journal_key\n"
        "from sidecar.errors import SettingsInvalid\n"
        "try: print(journal_key(Settings()))\n"
        "except SettingsInvalid as refused: print(refused.detail)\n"
    )
    starts = [
        popen(
            [sys.executable, "-c", code],
            env={**os.environ, **given, "PYTHONPATH": f"{package.parent}{os.pathsep}{REPOSITORY}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    one, other = (start.communicate(timeout=PATIENCE_S)[0].strip() for start in starts)
    assert one == other
    if keeps == "yes":
        assert one == (tmp_path / "password").read_text("utf-8")
    else:
        assert "cannot store a key" in one


CREDENTIALS = """
import keyring, sys
from keyring.backends.Windows import WinVaultKeyring
from sidecar.config.settings import Settings
from sidecar.storage.encryption import journal_key

assert type(keyring.get_keyring()) is WinVaultKeyring, "what a service has by itself"

class OfTheTest(WinVaultKeyring):
    '''Beside the key of whoever runs the tests.'''
    def get_password(self, service, username):
        global about
        about = f"{service} {sys.argv[1]}", username
        return super().get_password(*about)

    def set_password(self, service, username, password):
        super().set_password(f"{service} {sys.argv[1]}", username, password)

keyring.set_keyring(OfTheTest())
"""


@pytest.mark.skipif(not IN_WINDOWS, reason="the credential manager of Windows")
def test_key_is_made_once_in_the_credential_manager_of_windows_and_is_there_at_the_next_start(
    tmp_path: Path,
) -> None:
    keys = []
    for ends in ("", "keyring.get_keyring().delete_password(*about)"):
        code = f"{CREDENTIALS}\nprint(journal_key(Settings(), create={not ends}))\n{ends}"
        command = [sys.executable, "-c", code, str(tmp_path)]
        env = {**os.environ, "WIN_PD_OVERRIDE_LOCAL_APPDATA": str(tmp_path)}
        keys.append(run_command(command, env=env, check=True).stdout.split())
    ((first,), (second,)) = keys
    assert (len(first), second) == (64, first)


def test_error_for_wrong_journal_key_says_jobs_and_speakers_share_one_key() -> None:
    _, salt, check_value = create_cipher(KEY, JOURNAL_LABELS)
    with pytest.raises(errors.SettingsInvalid) as refused:
        verify_cipher(salt, check_value, KEY[::-1], JOURNAL_LABELS)
    hint = refused.value.hint
    assert hint.startswith("Set VIBEVOICE_JOURNAL_KEY to the key that they were written with")
    assert "kept jobs and enrolled speakers" in hint
    assert hint.index("empty folder") > hint.index("cannot be read")


def test_hint_for_empty_key_file_suggests_existing_key_before_a_new_one(tmp_path: Path) -> None:
    empty = tmp_path / "key"
    empty.touch(0o600)
    with pytest.raises(errors.SettingsInvalid) as refused:
        encryption.journal_key(Settings(journal_key=SecretStr("@" + str(empty))))
    hint = refused.value.hint
    assert hint.index("use the key that they were written with") < hint.index("make one")


def test_hint_for_missing_journal_key_suits_executable_and_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)

    def hint() -> str:
        with pytest.raises(errors.SettingsInvalid) as refused:
            encryption.journal_key(Settings())
        return refused.value.hint

    monkeypatch.setattr(sys, "platform", "linux")
    assert "openssl rand" in hint()
    assert "package 'keyring'" in hint()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "keyring" not in hint(), "no package can be installed into an executable"
    monkeypatch.setattr(sys, "platform", "win32")
    assert "openssl" not in hint()
    assert "--journal-key @FILE" in hint()
