"""Patterns of files, which shells of Windows leave to programs; names of any script."""

import shutil
from pathlib import Path

import pytest
from command_terminal import Terminal
from recordings import Studio
from service_process import new_file
from systems import IN_WINDOWS

from sidecar.cli.audio_input import expand_folders

on_windows = pytest.mark.skipif(not IN_WINDOWS, reason="shells of POSIX expand patterns")


@pytest.mark.parametrize(("kind", "encoding"), [("m4a", "cp1252"), ("mp4-with-video", "cp932")])
def test_recordings_of_a_telephone_are_transcribed_whatever_their_names_and_the_code_page(
    kind: str, encoding: str, studio: Studio, tmp_path: Path
) -> None:
    made = studio.path(kind)
    data = made.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat"), "the index is at the end"
    names = "Grüße", "😀 [1]", "录"
    files = [f"{name}{made.suffix}" for name in names]
    for name in files:
        shutil.copy(made, tmp_path / name)
    words = [f"*{made.suffix}"] if IN_WINDOWS else files
    terminal = Terminal(tmp_path, VIBEVOICE_ENGINE="scripted", PYTHONIOENCODING=encoding)
    run = terminal.run("transcribe", *words, fresh=True)
    assert (run.returncode, run.stderr) == (0, "")
    heads = [line for line in run.stdout.splitlines() if line.startswith("#")]
    assert sorted(heads) == sorted(f"# {name}" for name in files)
    assert run.stdout.count("Speaker_0") >= len(files)


@on_windows
def test_pattern_on_windows_is_replaced_by_what_it_stands_for(tmp_path: Path) -> None:
    for name in ("Grün", "a", "b [1]"):
        new_file(tmp_path / f"{name}.m4a", b"")
    (tmp_path / "sub").mkdir()
    inner = new_file(tmp_path / "sub" / "c.m4a", b"")
    all_three = [tmp_path / f"{name}.m4a" for name in ("a", "b [1]", "Grün")]
    assert expand_folders([tmp_path / "*.m4a"]) == all_three
    assert expand_folders([tmp_path / "b [1].m4?"]) == all_three[1:2]
    assert expand_folders([tmp_path / "s*"]) == [inner], "a folder is one of recordings"
    assert expand_folders([tmp_path / "s?b" / "*"]) == [inner]
    long = Path(rf"\\?\{tmp_path}")
    assert expand_folders([long / "a.m4a"]) == [long / "a.m4a"]
    assert expand_folders([long / "a*"]) == [long / "a.m4a"]


@on_windows
def test_pattern_that_stands_for_nothing_is_named_in_the_error(tmp_path: Path) -> None:
    assert expand_folders([tmp_path / "*.m4a"]) == [tmp_path / "*.m4a"]


@pytest.mark.posix("files of POSIX")
def test_name_with_the_characters_of_a_pattern_is_a_name_on_posix(tmp_path: Path) -> None:
    for name in ("*.m4a", "a.m4a"):
        new_file(tmp_path / name, b"")
    assert expand_folders([tmp_path / "*.m4a"]) == [tmp_path / "*.m4a"]
