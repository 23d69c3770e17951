"""Files with secrets, files that other programs hold, and names of devices, on Windows."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from service_process import PATIENCE_S, new_file
from systems import IN_WINDOWS, IN_WINE

from sidecar import errors, files, windows_files
from sidecar.config.secret_settings import resolve_token
from sidecar.plugins import load_settings

SECRET = "a-token-of-enough-letters-for-anybody"
OWNERS = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;S-1-5-21-1-2-3-1001)"
on_windows = pytest.mark.skipif(not IN_WINDOWS, reason="files of Windows")


@pytest.mark.parametrize(
    ("sddl", "readable"),
    [
        (OWNERS, False),
        ("D:AI(A;ID;FA;;;BA)(A;ID;0x1301bf;;;AU)(A;ID;0x1200a9;;;BU)", True),  # D:\ of Windows 11
        (f"{OWNERS}(A;;FR;;;WD)", True),
        (f"{OWNERS}(A;;GRGX;;;IU)", True),
        (f"{OWNERS}(A;;0x100000;;;WD)", False),  # they may wait for it
        (f"{OWNERS}(A;;FW;;;WD)", False),
        (f"{OWNERS}(A;OICIIO;FA;;;BU)", False),  # only of what is in it
        (f"{OWNERS}(D;;FR;;;WD)", False),
        (f"{OWNERS}(A;;FR;;;S-1-5-21-1-2-3-1002)", False),  # somebody who is named
        ("D:NO_ACCESS_CONTROL", True),
    ],
)
def test_others_may_read_what_a_list_allows_to_users_it_does_not_name(
    sddl: str, readable: bool
) -> None:
    assert windows_files.lets_others_read(sddl) is readable


@contextmanager
def held(path: Path, doing: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """Another program that has a file open, until its standard input says a word or is closed."""
    code = f"import msvcrt, sys; file = open(sys.argv[1], 'r+b'); {doing}print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        yield holder


@on_windows
@pytest.mark.system
def test_file_that_another_program_holds_is_replaced_once_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(file := new_file(tmp_path / "issued", "old")) as holder:
        monkeypatch.setattr("time.sleep", lambda _: holder.poll() or holder.communicate(b"go\n"))
        files.write(file, b"new")
        assert holder.returncode == 0
    assert file.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["issued"]


@on_windows
@pytest.mark.system
@pytest.mark.parametrize("held_s", [0.2, pytest.param(12.0, marks=pytest.mark.slow)])
def test_folder_that_another_process_has_locked_is_waited_for(
    tmp_path: Path, held_s: float
) -> None:
    """The C library's own call that waits gives up after 10 s."""
    lock, got = new_file(tmp_path / ".lock", b""), threading.Event()

    def wait() -> None:
        with files.lock_folder(tmp_path):
            got.set()

    with held(lock, "msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1); ") as holder:
        with lock.open("ab") as file:
            assert not files.try_lock(file)
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.wait(held_s)  # real time: it has not got it, however long that takes
        holder.communicate(b"go\n")
        waiter.join(PATIENCE_S)
    assert got.is_set()


@on_windows
@pytest.mark.system
def test_token_file_that_others_may_read_is_said_once_with_the_command_that_restricts_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = new_file(tmp_path / "token", SECRET, 0o644)
    for _ in range(2):
        token = resolve_token(load_settings(token=f"@{file}")).token
        assert token is not None
        assert token.get_secret_value() == SECRET
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert f"other users may read the file {file}" in said
    assert f'icacls "{file}" /inheritance:r /grant "' in said
    assert SECRET not in said


@on_windows
def test_token_file_of_its_owner_alone_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolve_token(load_settings(token=f"@{new_file(tmp_path / 'token', SECRET, 0o600)}"))
    assert caplog.records == []


@on_windows
def test_secrets_and_private_folders_are_for_their_owner_whoever_may_read_the_folder_above(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    files.write(folder / "key", SECRET.encode())
    files.write(folder / "certificate", b"for all", files.PUBLIC)
    assert not windows_files.others_may_read(folder / "key")
    assert (folder / "key").read_text("utf-8") == SECRET
    if IN_WINE:  # its temporary folder is for all
        assert windows_files.others_may_read(folder / "certificate")
        assert windows_files.others_may_read(folder)
    files.private_folder(folder)
    assert not windows_files.others_may_read(folder)


@on_windows
@pytest.mark.parametrize("name", ["NUL", "nul.txt", "CON", "COM1"])
def test_name_of_a_device_is_no_file_with_a_secret(tmp_path: Path, name: str) -> None:
    new_file(tmp_path / "key", SECRET, 0o600)
    with pytest.raises(errors.SettingsInvalid, match=r"not a regular file|cannot be read"):
        files.read(tmp_path / name, 100, private=True)


@on_windows
@pytest.mark.system
def test_library_is_loaded_while_the_end_of_standard_input_is_waited_for() -> None:
    code = (
        "import sys, threading, time; from sidecar import files; "
        "waiter = threading.Thread(target=files.wait_for_writers, args=(0,)); waiter.start(); "
        "time.sleep(1); import numpy; print('loaded', flush=True); waiter.join(); print('ended')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        assert process.communicate("what a host writes\n")[0] == "ended\n"
