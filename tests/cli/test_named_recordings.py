"""The recording on standard input where `vibevoice-asr transcribe -` does not transcribe it."""

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command_terminal import ended, interrupt, say, start_command
from recordings import wav
from scripted_speech import recorded, talk
from service_process import PATIENCE_S

from sidecar.cli.named_recordings import KEPT_NAME

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
