"""The recording on standard input where `vibevoice-asr transcribe -` does not transcribe it."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command_terminal import NOHUP, ended, interrupt, say, start_command
from full_disk import fill_disk, small_disk
from recordings import wav
from scripted_speech import recorded, talk
from service_process import PATIENCE_S, new_file, wait_until
from systems import IN_WINDOWS

from sidecar.audio.audio_format import WAV_HEAD_BYTES
from sidecar.cli.named_recordings import KEPT_NAME, new_recording_file
from sidecar.transcripts.transcript import (
    LOOP_SKIPPED,
    SPEECH_MISSED,
    TRUNCATED,
    Finished,
    Notice,
    Segment,
    Transcript,
    to_wire,
)

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


def test_recording_of_stdin_that_is_transcribed_or_is_empty_leaves_no_file(
    transcribe: Starts, tmp_path: Path
) -> None:
    code, complained = given(transcribe(environment=ALONE), RECORDING)
    assert (code, complained) == (0, "")
    code, complained = given(transcribe(environment=ALONE), b"")
    assert code == 1
    assert "kept" not in complained
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("recording", "why"),
    [
        (RECORDING[WAV_HEAD_BYTES:], "not audio in a supported format"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(4000), "Repair it"),
    ],
    ids=["raw samples", "mp4 without its index"],
)
def test_recording_of_stdin_that_cannot_be_decoded_here_is_kept_as_a_file(
    recording: bytes, why: str, transcribe: Starts, tmp_path: Path
) -> None:
    code, complained = given(transcribe(environment=ALONE), recording)
    assert code == 1
    assert why in complained
    assert (tmp_path / "here" / KEPT_NAME).read_bytes() == recording


@pytest.mark.parametrize("code", [TRUNCATED, SPEECH_MISSED, LOOP_SKIPPED])
def test_recording_of_stdin_of_which_words_are_missing_is_kept_as_a_file(
    code: str, transcribe: Starts, tmp_path: Path
) -> None:
    lacking = Transcript((Segment(0.0, 1.0, "Some"),), "en", 2.0, "scripted", "fp32")
    events = [Finished(lacking.with_notice(Notice(code, "Words are missing.")))]
    script = new_file(tmp_path / "events", json.dumps([to_wire(one) for one in events]))
    process = transcribe(environment=ALONE | {"VIBEVOICE_SCRIPTED_EVENTS": str(script)})
    words, complained = process.communicate(RECORDING, PATIENCE_S)
    assert b"Some" in words
    assert b"Words are missing." in complained
    assert (tmp_path / "here" / KEPT_NAME).read_bytes() == RECORDING


def test_recording_of_stdin_on_a_disk_that_has_room_for_one_copy_is_kept(
    transcribe: Starts, tmp_path: Path
) -> None:
    recording = wav(recorded(talk(*[0.3] * 100)))
    with small_disk(tmp_path / "here", 10) as disk:
        process = transcribe(*NOBODY, environment={"TMPDIR": str(disk)})
        fill_disk(disk, free=len(recording) + (1 << 16))
        _, complained = given(process, recording)
        assert f"is kept: {KEPT_NAME}." in complained
        assert (disk / KEPT_NAME).read_bytes() == recording


def test_what_a_full_disk_takes_of_a_recording_of_stdin_is_kept(
    transcribe: Starts, tmp_path: Path
) -> None:
    recording = wav(recorded(talk(*[0.3] * 100)))
    with small_disk(tmp_path / "here", 10) as disk:
        process = transcribe(environment=ALONE | {"TMPDIR": str(disk)})
        fill_disk(disk, free=len(recording) // 2)
        _, complained = given(process, recording)
        assert "not enough disk space" in complained
        begun = (disk / KEPT_NAME).read_bytes()
        assert len(begun) > len(recording) // 3
        assert recording.startswith(begun)


@pytest.mark.posix("SIGKILL")
def test_recording_of_stdin_of_a_killed_command_is_kept(transcribe: Starts, tmp_path: Path) -> None:
    process = transcribe(environment=ALONE)
    said = wav(recorded(talk(*[0.3] * 10)))
    say(process, said)  # more than a pipe holds, so some of it is read
    kept = tmp_path / "here" / KEPT_NAME
    wait_until(lambda: kept.exists() and kept.stat().st_size, "some of it is written")
    process.kill()
    process.wait(PATIENCE_S)
    assert said.startswith(kept.read_bytes())


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (("--track", "3"), {}),
        (("--language", "12345"), {}),
        ((), {"VIBEVOICE_MAX_AUDIO_HOURS": "0.00001"}),
        ((), {"VIBEVOICE_MAX_UPLOAD_MB": "1"}),
    ],
    ids=["no such track", "no such language", "too long", "too large"],
)
def test_all_of_a_recording_that_is_not_taken_is_kept_for_its_owner_alone(
    words: tuple[str, ...], settings: dict[str, str], transcribe: Starts, tmp_path: Path
) -> None:
    recording = wav(recorded(talk(*[0.3] * 100)))
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


def test_recording_of_stdin_is_in_the_first_folder_that_takes_a_file_and_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_file(tmp_path / KEPT_NAME, b"mine")
    monkeypatch.chdir(tmp_path)
    (spool := tmp_path / "spool").mkdir()
    for folder, path in (
        (spool, spool / KEPT_NAME),
        (tmp_path / KEPT_NAME, Path("stdin-2.rec")),
        (None, Path("stdin-3.rec")),
    ):
        found, file = new_recording_file(folder)
        file.close()
        assert found == path
    assert (tmp_path / KEPT_NAME).read_bytes() == b"mine"
