"""The recording on standard input where `vibevoice-asr transcribe -` does not transcribe it."""

import errno
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from command_terminal import NOHUP, ended, interrupt, say, start_command
from recordings import wav
from scripted_speech import recorded, talk
from service_process import PATIENCE_S
from systems import IN_WINDOWS

from sidecar import errors
from sidecar.audio.upload_spool import UploadSpool
from sidecar.cli.named_recordings import KEPT_NAME, keep_recording

Starts = Callable[..., "subprocess.Popen[bytes]"]
RECORDING = wav(recorded(talk(0.3, 0.2)))
NOBODY = ("--server", "http://127.0.0.1:9")
ALONE = {"VIBEVOICE_ENGINE": "scripted"}


@pytest.fixture
def transcribe(tmp_path: Path) -> Starts:
    """Starts the command, in a folder of its own, with a recording on standard input."""
    (tmp_path / "here").mkdir()
    return partial(start_command, tmp_path, "transcribe", "-", cwd=tmp_path / "here")


def given(process: "subprocess.Popen[bytes]", recording: bytes) -> tuple[int, str]:
    """The exit code and the messages of a command that gets all of a recording."""
    _, complained = process.communicate(recording, PATIENCE_S)
    return process.returncode, complained.decode()


def test_recording_of_stdin_is_kept_as_a_file_if_no_service_answers(
    transcribe: Starts, tmp_path: Path
) -> None:
    kept = tmp_path / "here" / KEPT_NAME
    for path in (kept, kept.with_stem("stdin-2")):
        code, complained = given(transcribe(*NOBODY), RECORDING)
        assert code == 1
        assert f"The recording of standard input is kept: {path.name}." in complained
        assert path.read_bytes() == RECORDING


def test_recording_of_stdin_that_is_transcribed_or_is_none_is_not_kept(
    transcribe: Starts, tmp_path: Path
) -> None:
    code, complained = given(transcribe(environment=ALONE), RECORDING)
    assert (code, complained) == (0, "")
    code, complained = given(transcribe(environment=ALONE), b"<html>There is no such page.</html>")
    assert code == 1
    assert "kept" not in complained
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (("--track", "3"), {}),
        (("--language", "12345"), {}),
        ((), {"VIBEVOICE_MAX_AUDIO_HOURS": "0.00001"}),
        ((), {"VIBEVOICE_MAX_UPLOAD_MB": "1"}),
        ((), {"VIBEVOICE_SPOOL_DIR": __file__}),
    ],
    ids=["no such track", "no such language", "too long", "too large", "no space"],
)
def test_all_of_a_recording_that_is_not_taken_is_kept_for_its_owner_alone(
    words: tuple[str, ...], settings: dict[str, str], transcribe: Starts, tmp_path: Path
) -> None:
    recording = wav(recorded(talk(*[0.3] * 100)))
    assert len(recording) > 2 * UploadSpool.MEMORY_BYTES
    code, complained = given(transcribe(*words, environment=ALONE | settings), recording)
    assert code
    kept = tmp_path / "here" / KEPT_NAME
    assert complained.count("\n") == 2, complained
    assert kept.read_bytes() == recording
    assert IN_WINDOWS or kept.stat().st_mode & 0o777 == 0o600


def test_what_stdin_had_until_ctrl_c_is_kept_as_a_file(transcribe: Starts, tmp_path: Path) -> None:
    process = transcribe(environment=ALONE)
    said = wav(recorded(talk(*[0.3] * 10)))
    say(process, said)  # more than a pipe holds, so some of it is read
    interrupt(process)
    _, complained = ended(process, 130)
    assert KEPT_NAME in complained
    begun = (tmp_path / "here" / KEPT_NAME).read_bytes()
    assert begun
    assert said.startswith(begun)


@pytest.mark.posix("signals")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", pytest.param("SIGHUP", marks=NOHUP)])
def test_what_stdin_has_at_a_signal_is_kept_as_a_file(
    how: str, transcribe: Starts, tmp_path: Path
) -> None:
    process = transcribe(environment=ALONE)
    said = wav(recorded(talk(*[0.3] * 10)))
    say(process, said)  # more than a pipe holds, so some of it is read
    process.send_signal(signal.SIGSTOP)
    say(process, b"the end")
    process.send_signal(getattr(signal, how))
    process.send_signal(signal.SIGCONT)
    _, complained = ended(process, 130)
    assert KEPT_NAME in complained
    assert (tmp_path / "here" / KEPT_NAME).read_bytes() == said + b"the end"


@pytest.mark.posix("signals")
@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("SIGHUP", marks=NOHUP)])
def test_recording_of_stdin_that_waits_for_a_service_at_a_signal_is_kept_as_a_file(
    how: str, transcribe: Starts, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        process = transcribe("--server", f"http://127.0.0.1:{service.getsockname()[1]}")
        say(process, RECORDING)
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        with service.accept()[0]:
            process.send_signal(getattr(signal, how))
            assert process.wait(PATIENCE_S) == 130
    assert (tmp_path / "here" / KEPT_NAME).read_bytes() == RECORDING


def test_recording_that_cannot_be_kept_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"begun"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert keep_recording(pieces) is None
    assert capsys.readouterr().err.count("cannot be kept") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.posix("limits of processes")
def test_upload_whose_disk_is_full_in_the_middle_of_a_write_still_has_all_its_bytes(
    tmp_path: Path,
) -> None:
    import resource

    spool = UploadSpool(tmp_path)
    spool.add(b"a" * 3000)
    spool.spill()
    spool.add(b"b" * 3000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(errors.DiskFull):
            spool.spill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert b"".join(spool.held()) == b"a" * 3000 + b"b" * 3000
    spool.close()
