"""Benchmarks start, and `bench.accuracy` says in one line what is missing, before it measures."""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import tiny_vibevoice
from service_process import Server, told_by

from bench.accuracy import address_side
from bench.metrics import own_clips, without_text
from bench.serving import free_port

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if "\ndef main(" in path.read_text("utf-8")
)
WITHOUT_JIWER = (
    "import sys; sys.modules['jiwer'] = None; sys.path.insert(0, '.'); "
    "from bench.accuracy import main; main()"
)


def refusal(*arguments: str, env: dict[str, str] | None = None, code: str = "") -> str:
    """The one line with which it ends."""
    start = ["-c", code] if code else ["-m", "bench.accuracy"]
    run = told_by([sys.executable, *start, *arguments], cwd=ROOT, env=os.environ | (env or {}))
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    return line


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no address 127.0.0.2")
def test_free_port_of_benchmarks_is_refused_to_other_sockets_but_can_be_listened_on() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.2", port))
    with socket.create_server(("", port)):
        pass  # it is asked for by its number


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_help_with_its_command(name: str) -> None:
    asked = [sys.executable, "-m", f"bench.{name}", "--help"]
    run = told_by(asked, cwd=ROOT)
    assert (run.returncode, run.stderr) == (0, "")
    assert f"python -m bench.{name}" in " ".join(run.stdout.split())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A recording with its text and its speaker turns beside it, and one without a text."""
    for name in ("talk.wav", "other.wav"):
        shutil.copy(tiny_vibevoice.clip("beckett"), tmp_path / name)
    (tmp_path / "talk.txt").write_text("Ever tried.\n", "utf-8")
    (tmp_path / "talk.rttm").write_text(
        "SPKR-INFO talk 1 <NA> <NA> <NA> unknown A <NA> <NA>\n"
        "SPEAKER talk 1 0.630 3.510 <NA> <NA> A <NA> <NA>\n"
        "SPEAKER talk 1 5.000 1.000 <NA> <NA> B <NA> <NA>\n",
        "utf-8",
    )
    return tmp_path


def test_own_recordings_have_text_and_duration_and_speaker_turns_if_an_rttm_file_is_there(
    mine: Path,
) -> None:
    (clip,) = own_clips(mine)
    assert (clip.name, clip.text, clip.utterances) == ("talk.wav", "Ever tried.", None)
    assert clip.turns == [(0.63, pytest.approx(4.14), "A"), (5.0, 6.0, "B")]
    assert clip.duration_s == pytest.approx(9.963, abs=0.01)
    (mine / "talk.rttm").unlink()
    assert own_clips(mine)[0].turns is None


def test_own_recordings_without_reference_text_are_listed(mine: Path) -> None:
    assert without_text(mine) == ["other.wav"]


def test_benchmark_column_of_server_names_its_engine_and_precision(tmp_path: Path) -> None:
    with Server(tmp_path, engine="scripted") as server:
        name, _ = address_side(server.url)
        assert name == f"{server.url} (scripted, {server.health()['precision']})"


def test_benchmark_sends_the_fields_of_its_options_with_a_recording(
    mine: Path, tmp_path: Path
) -> None:
    (clip,) = own_clips(mine)
    with Server(tmp_path / "data", engine="scripted") as server:
        _, transcribe = address_side(server.url, windows="single")
        assert transcribe(clip)
        _, transcribe = address_side(server.url, windows="sideways")
        with pytest.raises(SystemExit, match="windows"):
            transcribe(clip)


def test_benchmark_folder_without_manifest_is_refused_with_variable_and_flag(
    tmp_path: Path,
) -> None:
    said = refusal(env={"VIBEVOICE_BENCH_AUDIO": str(tmp_path)})
    assert str(tmp_path) in said
    assert "VIBEVOICE_BENCH_AUDIO" in said
    assert "--recordings" in said


def test_benchmark_of_server_that_does_not_answer_is_refused_with_its_url(mine: Path) -> None:
    said = refusal("--recordings", str(mine), "--server", "http://127.0.0.1:1")
    assert said.startswith("No service answers at http://127.0.0.1:1")


def test_benchmark_without_a_package_is_refused_with_package_and_extra(mine: Path) -> None:
    said = refusal("--recordings", str(mine), "--no-library", code=WITHOUT_JIWER)
    assert "jiwer" in said
    assert "pip install -e '.[bench]'" in said
