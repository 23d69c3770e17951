"""Transcripts of a folder are known by the path and the content of their recordings."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from command_terminal import start_command
from full_disk import fill_disk, small_disk
from recordings import wav
from scripted_speech import recorded, talk
from service_process import PATIENCE_S, new_file

from sidecar.cli.audio_input import STANDARD_INPUT
from sidecar.cli.output import name_key
from sidecar.cli.transcript_manifest import (
    MANIFEST,
    TranscriptManifest,
    identify,
)

MONDAY, TUESDAY = b"what was said on Monday", b"what was said on Tuesday"


class Transcripts:
    """A folder of recordings, one of transcripts, and what each run of the command does."""

    def __init__(self, home: Path) -> None:
        self.box, self.out = home / "box", home / "out"
        self.out.mkdir()

    def put(self, name: str, content: bytes) -> Path:
        """Put a recording there, older than all transcripts."""
        path = self.box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1, 1))
        return path

    def run(self, fmt: str = "text", files: Sequence[Path] = ()) -> list[str]:
        """Transcribe what is left of all files, or of these, with --resume; return the outputs."""
        return self.run_all(fmt, files, resume=True)

    def run_all(
        self, fmt: str = "text", files: Sequence[Path] = (), *, resume: bool = False
    ) -> list[str]:
        """Transcribe all files, or these; return the outputs."""
        manifest = TranscriptManifest(self.out, fmt)
        files = files or sorted(path for path in self.box.rglob("*") if path.is_file())
        files = [path for path in files if not (resume and manifest.has_transcript(path))]
        manifest.check_writable()
        return [
            manifest.write(path, name, path.read_text("utf-8"), identify(path))
            for path, name in manifest.reserve_names(files)
        ]

    def read(self) -> dict[str, str]:
        """The transcripts by name."""
        return {
            path.name: path.read_text("utf-8")
            for path in self.out.iterdir()
            if path.name != MANIFEST
        }


@pytest.fixture
def transcripts(tmp_path: Path) -> Transcripts:
    return Transcripts(tmp_path)


def test_namesake_in_another_folder_gets_its_own_transcript(transcripts: Transcripts) -> None:
    transcripts.put("tuesday/call.wav", TUESDAY)
    assert transcripts.run() == ["call.txt"]
    transcripts.put("monday/call.wav", MONDAY)  # and sorts before
    transcripts.put("tuesday/call.mp3", MONDAY + b"!")
    assert sorted(transcripts.run()) == ["call-2.txt", "call-3.txt"]
    assert transcripts.run() == []
    texts = {TUESDAY.decode(), MONDAY.decode(), MONDAY.decode() + "!"}
    assert set(transcripts.read().values()) == texts


def test_transcript_of_a_deleted_recording_is_kept_and_a_namesake_gets_its_own(
    transcripts: Transcripts,
) -> None:
    archived = transcripts.put("tuesday/call.wav", TUESDAY)
    transcripts.run()
    archived.unlink()
    transcripts.put("monday/call.wav", MONDAY)
    assert transcripts.run() == ["call-2.txt"]
    assert transcripts.read() == {"call.txt": TUESDAY.decode(), "call-2.txt": MONDAY.decode()}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("text", [MONDAY.decode(), "by hand"])
def test_transcript_of_a_recording_that_was_replaced_at_its_path_is_kept_edited_or_not(
    transcripts: Transcripts, capsys: pytest.CaptureFixture[str], resume: bool, text: str
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    (transcripts.out / "call.txt").write_text(text, "utf-8")
    assert transcripts.run() == []
    path = transcripts.put("call.wav", TUESDAY)  # of a date before the transcript
    assert transcripts.run_all(resume=resume) == ["call-2.txt"]
    assert transcripts.run() == []
    assert transcripts.read() == {"call.txt": text, "call-2.txt": TUESDAY.decode()}
    told = f"{path}: call.txt exists and is kept; the output is call-2.txt.\n"
    assert capsys.readouterr().err == f"vibevoice-asr: {told}"


def test_recording_transcribed_again_replaces_its_transcript_until_a_person_edits_that(
    transcripts: Transcripts,
) -> None:
    transcripts.put("one/call.wav", MONDAY)
    transcripts.put("two/call.wav", TUESDAY)
    for _ in range(2):
        assert transcripts.run_all() == ["call.txt", "call-2.txt"]
    (transcripts.out / "call.txt").write_text("by hand", "utf-8")
    for _ in range(2):
        assert transcripts.run_all() == ["call-3.txt", "call-2.txt"]
    assert transcripts.run() == []
    assert transcripts.read() == {
        "call.txt": "by hand", "call-2.txt": TUESDAY.decode(), "call-3.txt": MONDAY.decode(),
    }  # fmt: skip


def test_transcript_edited_while_its_recording_is_transcribed_again_is_kept(
    transcripts: Transcripts, capsys: pytest.CaptureFixture[str]
) -> None:
    path = transcripts.put("call.wav", MONDAY)
    transcripts.run()
    manifest = TranscriptManifest(transcripts.out, "text")
    (transcripts.out / "call.txt").write_text("by hand", "utf-8")
    assert manifest.write(path, "call.txt", "again", identify(path)) == "call-2.txt"
    assert transcripts.read() == {"call.txt": "by hand", "call-2.txt": "again"}
    assert "call.txt exists and is kept; the output is call-2.txt" in capsys.readouterr().err


def test_transcript_whose_line_cannot_be_written_leaves_the_folder_as_it_was(
    transcripts: Transcripts,
) -> None:
    old, new = transcripts.put("old.wav", MONDAY), transcripts.put("new.wav", TUESDAY)
    transcripts.run(files=[old])
    manifest = TranscriptManifest(transcripts.out, "text")
    file = transcripts.out / MANIFEST
    lines = file.read_bytes()
    file.unlink()
    file.mkdir()
    for path in (old, new):
        with pytest.raises(OSError, match=r"directory|denied"):
            manifest.write(path, f"{path.stem}.txt", "again", identify(path))
        with pytest.raises(OSError, match=r"directory|denied"):
            manifest.check_writable()
    assert transcripts.read() == {"old.txt": MONDAY.decode()}
    file.rmdir()
    file.write_bytes(lines)
    assert transcripts.run() == ["new.txt"]


@pytest.mark.system
@pytest.mark.parametrize("pages", [0, 1], ids=["no transcript", "no line behind it"])
def test_full_disk_leaves_no_half_transcript_and_resume_writes_a_whole_one(
    transcripts: Transcripts, pages: int
) -> None:
    path = transcripts.put("call.wav", MONDAY)
    with small_disk(transcripts.out, 1):
        fill_disk(transcripts.out, free=pages * os.sysconf("SC_PAGE_SIZE"))
        with pytest.raises(OSError, match="No space"):
            transcripts.run()
        (transcripts.out / "ballast").unlink()
        assert set(transcripts.read()) == set()
        assert transcripts.run() == ["call.txt"]
        assert transcripts.run() == []
        (transcripts.out / "call.txt").write_text("by hand", "utf-8")
        fill_disk(transcripts.out)
        with pytest.raises(OSError, match="No space"):
            transcripts.run_all(files=[path])
        (transcripts.out / "ballast").unlink()
        assert transcripts.read() == {"call.txt": "by hand"}


@pytest.mark.system
@pytest.mark.parametrize("named", ["-", "talk.wav"], ids=["standard input", "a file"])
def test_transcript_is_printed_where_the_disk_is_full(named: str, tmp_path: Path) -> None:
    (folder := tmp_path / "out").mkdir()
    recording = wav(recorded(talk(0.3)))
    file = named if named == "-" else new_file(tmp_path / named, recording)
    with small_disk(folder, 1):
        fill_disk(folder)
        alone = {"VIBEVOICE_ENGINE": "scripted"}
        process = start_command(tmp_path, "transcribe", file, "-o", folder, environment=alone)
        said, complained = process.communicate(recording, PATIENCE_S)
        assert list(folder.iterdir()) == [folder / "ballast"]
    assert process.returncode == 1
    assert b"No space left on device" in complained
    assert b"Speaker_0: " in said


def test_crash_between_the_line_and_its_transcript_has_the_recording_transcribed_again(
    transcripts: Transcripts,
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    (transcripts.out / "call.txt").write_bytes(b"")  # its name is taken first, then its line
    assert transcripts.run() == ["call.txt"]
    assert transcripts.read() == {"call.txt": MONDAY.decode()}


@pytest.mark.parametrize("same", [True, False], ids=["one recording", "two recordings"])
def test_commands_that_write_into_one_folder_at_once_lose_no_transcript(
    transcripts: Transcripts, same: bool
) -> None:
    both = [transcripts.put(f"{day}/call.wav", day.encode()) for day in ("one", "two")]
    files = [both[0] if same else both[number % 2] for number in range(8)]
    start = threading.Barrier(len(files))

    def transcribe(path: Path) -> None:
        manifest = TranscriptManifest(transcripts.out, "text")
        start.wait()
        manifest.write(path, "call.txt", path.read_text(encoding="utf-8"), identify(path))

    threads = [threading.Thread(target=transcribe, args=(path,)) for path in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(transcripts.read().values()) == ({"one"} if same else {"one", "two"})
    assert len(transcripts.run(files=both)) == same


@pytest.mark.not_in_wine("its files are of Linux")
def test_name_too_long_for_its_ending_is_cut_and_another_of_that_beginning_gets_a_number(
    transcripts: Transcripts,
) -> None:
    stems = ["字" * 83 + end for end in ("", "a", "b")]  # of 249 and 250 bytes
    paths = [transcripts.put(f"{stem}.wav", stem.encode()) for stem in stems]
    manifest = TranscriptManifest(transcripts.out, "text")
    for path in paths:
        manifest.write(path, f"{path.name}.txt", path.read_text("utf-8"), identify(path))
    assert set(transcripts.read().values()) == set(stems)
    assert all(name.startswith("字" * 80) and name.endswith(".txt") for name in transcripts.read())
    assert transcripts.run() == []


@pytest.mark.posix("names that Windows does not take")
def test_name_that_the_disk_does_not_take_is_written_with_other_characters(
    transcripts: Transcripts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touch = Path.touch

    def touch_as_a_share_of_windows(path: Path, **how: Any) -> None:
        if set(path.name) & {*':?"'}:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        touch(path, **how)

    monkeypatch.setattr(Path, "touch", touch_as_a_share_of_windows)
    for name, content in (("call 10:30.wav", MONDAY), ("call 10?30.wav", TUESDAY)):
        transcripts.put(name, content)
    assert transcripts.run() == ["call 10_30.txt", "call 10_30-2.txt"]
    assert "call 10:30.txt is no name here; the output is call 10_30.txt" in capsys.readouterr().err
    assert transcripts.read() == {
        "call 10_30.txt": MONDAY.decode(), "call 10_30-2.txt": TUESDAY.decode()
    }  # fmt: skip
    assert transcripts.run() == []


@pytest.mark.parametrize("content", [MONDAY[::-1], MONDAY])
def test_recording_rewritten_with_same_size_and_date_is_done_again_only_if_content_changed(
    transcripts: Transcripts, content: bytes
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    transcripts.put("call.wav", content)
    assert transcripts.run() == ([] if content == MONDAY else ["call-2.txt"])


def test_moved_recording_is_not_transcribed_again_and_a_copy_is(transcripts: Transcripts) -> None:
    first = transcripts.put("inbox/call.wav", MONDAY)
    transcripts.run()
    (transcripts.out / "call.txt").write_text("by hand", "utf-8")
    transcripts.box.joinpath("archive").mkdir()
    first.rename(transcripts.box / "archive/call.wav")
    transcripts.put("inbox/call.wav", TUESDAY)  # in its place
    assert transcripts.run() == ["call-2.txt"]
    transcripts.put("zoo/call.wav", MONDAY)
    assert transcripts.run() == ["call-3.txt"]
    assert transcripts.run() == []
    assert transcripts.read() == {
        "call.txt": "by hand", "call-2.txt": TUESDAY.decode(), "call-3.txt": MONDAY.decode(),
    }  # fmt: skip


def test_emptied_transcript_is_written_again_unless_nothing_was_said(
    transcripts: Transcripts,
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.put("quiet.wav", b"")
    (transcripts.out / "call.txt").mkdir()  # no transcript
    assert transcripts.run() == ["call-2.txt", "quiet.txt"]
    (transcripts.out / "call-2.txt").write_text("", "utf-8")
    assert transcripts.run() == ["call-2.txt"]
    assert (transcripts.out / "call-2.txt").read_text("utf-8") == MONDAY.decode()


def test_each_format_is_resumed_by_its_own_transcripts(transcripts: Transcripts) -> None:
    transcripts.put("call.wav", MONDAY)
    assert transcripts.run("text") == ["call.txt"]
    assert transcripts.run("srt") == ["call.srt"]
    (transcripts.out / "call.srt").unlink()
    assert transcripts.run("text") == []
    assert transcripts.run("srt") == ["call.srt"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines + lines[:40].lstrip(),  # killed while it wrote
        lambda lines: b'[]\n{"output": 1}\n\xff\n' + lines,
    ],
    ids=["half a line", "other lines"],
)
def test_unreadable_line_of_a_manifest_is_ignored_and_the_others_count(
    transcripts: Transcripts, spoil: Callable[[bytes], bytes]
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    file = transcripts.out / MANIFEST
    file.write_bytes(spoil(file.read_bytes()))
    transcripts.put("talk.wav", TUESDAY)
    assert transcripts.run() == ["talk.txt"]
    assert transcripts.run() == []


def test_manifest_of_an_earlier_version_is_read(transcripts: Transcripts) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    file = transcripts.out / MANIFEST
    file.write_bytes(file.read_bytes().replace(b'"recording"', b'"format": "text", "recording"'))
    assert transcripts.run() == []


def test_transcript_that_another_command_wrote_meanwhile_is_kept(transcripts: Transcripts) -> None:
    recording = transcripts.put("monday.wav", MONDAY)
    transcripts.run()
    manifest = TranscriptManifest(transcripts.out, "text")
    other = TranscriptManifest(transcripts.out, "text")
    assert other.write(recording, "monday.txt", "anew", identify(recording)) == "monday.txt"
    name = manifest.write(recording, "monday.txt", "again", identify(recording))
    assert name == "monday-2.txt"
    assert transcripts.read() == {"monday.txt": "anew", "monday-2.txt": "again"}


def test_recording_may_be_renamed_while_it_is_identified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = new_file(tmp_path / "monday.wav", MONDAY)
    digest = hashlib.file_digest

    def renamed(file: BinaryIO, how: str) -> Any:
        recording.rename(tmp_path / "tuesday.wav")
        return digest(file, how)

    monkeypatch.setattr(hashlib, "file_digest", renamed)
    known = identify(recording)
    assert known is not None
    assert known.sha256 == hashlib.sha256(MONDAY).hexdigest()


@pytest.mark.posix("file descriptors by number")
def test_standard_input_is_transcribed_each_time_under_a_new_name(transcripts: Transcripts) -> None:
    """A file that is redirected there looks like a regular file of that path."""
    for content, name in ((MONDAY, "stdin.txt"), (TUESDAY, "stdin-2.txt")):
        with standard_input_from(transcripts.put("redirected", content)):
            assert transcripts.run(files=[STANDARD_INPUT]) == [name]
    assert set(transcripts.read().values()) == {MONDAY.decode(), TUESDAY.decode()}


@contextmanager
def standard_input_from(file: Path) -> Iterator[None]:
    """As a shell redirects it."""
    saved = os.dup(0)
    try:
        with file.open("rb") as redirected:
            os.dup2(redirected.fileno(), 0)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_file_that_no_command_wrote_is_kept_also_if_it_is_newer_than_the_recording(
    transcripts: Transcripts, capsys: pytest.CaptureFixture[str]
) -> None:
    path = transcripts.put("interview.wav", MONDAY)
    (transcripts.out / "interview.txt").write_text("my notes", "utf-8")
    assert transcripts.run() == ["interview-2.txt"]
    assert transcripts.run_all() == ["interview-2.txt"]
    assert transcripts.read() == {"interview.txt": "my notes", "interview-2.txt": MONDAY.decode()}
    told = f"{path}: interview.txt exists and is kept; the output is interview-2.txt."
    assert capsys.readouterr().err.count(told) == 2


def test_names_that_differ_in_case_only_get_separate_outputs(transcripts: Transcripts) -> None:
    names = ("a/Talk.wav", "b/talk.mp3", "talk-2.wav", "c/talk.wav")
    made = transcripts.run(files=[transcripts.put(name, name.encode()) for name in names])
    assert len({name.casefold() for name in made}) == len(names)
    assert made[:2] == ["Talk.txt", "talk-2.txt"]


def test_file_that_appeared_while_a_recording_was_transcribed_is_kept(
    transcripts: Transcripts,
) -> None:
    path = transcripts.put("call.wav", MONDAY)
    manifest = TranscriptManifest(transcripts.out, "text")
    (transcripts.out / "call.txt").write_text("by another program", "utf-8")
    assert manifest.write(path, "call.txt", "again", identify(path)) == "call-2.txt"
    assert transcripts.read() == {"call.txt": "by another program", "call-2.txt": "again"}


def test_folders_of_recordings_and_transcripts_that_were_moved_go_on_where_they_were(
    transcripts: Transcripts,
) -> None:
    for name in ("one/call.wav", "two/call.wav", "two/copy.wav"):
        transcripts.put(name, MONDAY if name == "one/call.wav" else TUESDAY)
    assert transcripts.run() == ["call.txt", "call-2.txt", "copy.txt"]
    (transcripts.out / "call.txt").write_text("by hand", "utf-8")
    transcripts.box = transcripts.box.rename(transcripts.box.with_name("archive"))
    transcripts.out = transcripts.out.rename(transcripts.out.with_name("texts"))
    assert transcripts.run() == []
    transcripts.put("two/other.wav", TUESDAY)
    assert transcripts.run() == ["other.txt"]
    assert transcripts.read()["call.txt"] == "by hand"


def test_recordings_whose_names_differ_in_unicode_form_only_get_separate_transcripts(
    transcripts: Transcripts,
) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    transcripts.put(f"monday/{composed}.wav", MONDAY)
    transcripts.put(f"tuesday/{decomposed}.wav", TUESDAY)
    (transcripts.out / f"{composed}.txt").write_text("by an earlier version", "utf-8")
    made = transcripts.run()
    assert len({name_key(name) for name in (*made, f"{composed}.txt")}) == 3
