"""What `--output` names where it cannot be replaced: pipes, devices, files that are open."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from command_terminal import ended, start_command
from recordings import wav
from scripted_speech import recorded, talk
from service_process import PATIENCE_S, new_file
from systems import IN_WINDOWS

from sidecar import cli
from sidecar.audio.sample_recording import find_sample
from sidecar.cli.output import write_atomically
from sidecar.cli.watch_folder import FAILED, set_aside

YAML = Path(__file__).parents[1] / "plugins/grpc_stt/grpc_server.yaml"
TARGETS = (
    (["demo", "--save"], lambda: (find_sample() or Path()).read_bytes()[:100]),
    (["config", "convert", str(YAML), "--output"], lambda: b"#"),
)
posix = pytest.mark.posix("named pipes of POSIX")
commands = pytest.mark.parametrize(
    ("words", "begins"), TARGETS, ids=[words[0] for words, _ in TARGETS]
)


@posix
@commands
@pytest.mark.usefixtures("no_settings_file")
def test_pipe_gets_what_a_command_writes_and_stays_one(
    words: list[str], begins: Callable[[], bytes], tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        command = threading.Thread(target=cli.run, args=([*words, str(pipe)],), daemon=True)
        command.start()
        try:
            said, _ = reader.communicate(timeout=PATIENCE_S)
        finally:
            reader.kill()
        command.join(PATIENCE_S)
    assert said.startswith(begins())
    assert pipe.is_fifo()


@posix
@commands
def test_open_file_gets_what_a_command_writes_behind_what_it_has(
    words: list[str], begins: Callable[[], bytes], tmp_path: Path
) -> None:
    path = new_file(tmp_path / "log", b"Before. ")
    with path.open("ab") as opened:
        assert cli.run([*words, f"/dev/fd/{opened.fileno()}"]) == 0
        assert path.read_bytes().startswith(b"Before. " + begins())
        assert os.path.samestat(path.stat(), os.fstat(opened.fileno()))


@pytest.mark.parametrize(
    "words", [["config", "convert", str(YAML)], ["doctor", "--report"]], ids=["convert", "report"]
)
@pytest.mark.usefixtures("no_settings_file")
def test_file_that_is_there_is_kept_and_the_output_gets_a_number(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = new_file(tmp_path / "mine.x", b"what I wrote")
    cli.run([*words, "--output", str(there)])
    assert "mine.x exists and is kept; the output is mine-2.x." in capsys.readouterr().err
    assert there.read_bytes() == b"what I wrote"
    assert (tmp_path / "mine-2.x").stat().st_size


@pytest.mark.parametrize("fmt", ["text", "srt"])
def test_live_with_the_null_device_as_its_output_succeeds_and_leaves_it(
    fmt: str, tmp_path: Path
) -> None:
    recording = new_file(tmp_path / "talk.wav", wav(recorded(talk(0.3))))
    to = ("--pace", 0, "--format", fmt, "-o", os.devnull)
    alone = {"VIBEVOICE_ENGINE": "scripted"}
    assert ended(start_command(tmp_path, "live", recording, *to, environment=alone)) == ("", "")
    assert IN_WINDOWS or Path(os.devnull).is_char_device()


def test_console_of_windows_is_written_though_it_cannot_be_appended_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, mode: str, **how: Any) -> IO[Any]:
        """As Python opens one."""
        if "a" in mode:
            raise ValueError("a console cannot be appended to")
        return open(shown, mode, **how)

    shown = tmp_path / "shown"
    monkeypatch.setattr(Path, "open", opened)
    write_atomically(Path(os.devnull), "said")
    assert shown.read_bytes() == b"said"


@posix
def test_live_with_an_open_file_as_its_output_writes_behind_what_it_has(tmp_path: Path) -> None:
    recording = new_file(tmp_path / "talk.wav", wav(recorded(talk(0.3))))
    log = new_file(tmp_path / "log", b"Before.\n")
    to = ("--pace", 0, "-o", "/dev/stderr")
    alone = {"VIBEVOICE_ENGINE": "scripted"}
    with log.open("ab") as opened:
        process = start_command(
            tmp_path, "live", recording, *to, environment=alone, stderr=opened.fileno()
        )
        assert process.wait(PATIENCE_S) == 0
        opened.write(b"After.\n")
    lines = log.read_text("utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert "w299" in lines[1]


def test_reason_of_a_recording_that_is_set_aside_replaces_no_file(tmp_path: Path) -> None:
    recording, failed = new_file(tmp_path / "talk.wav", b"x"), tmp_path / FAILED
    failed.mkdir()
    other = new_file(failed / "talk.wav.reason.txt", b"Mine.")
    set_aside(recording, "Damaged.")
    assert other.read_text("utf-8") == "Mine."
    assert (failed / "talk.wav.reason-2.txt").read_text("utf-8") == "Damaged."
    assert (failed / "talk.wav").read_bytes() == b"x"
