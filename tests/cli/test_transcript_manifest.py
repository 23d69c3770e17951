"""Transcripts of a folder are known by the path and the content of their recordings."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.cli import output
from sidecar.cli.audio_input import STANDARD_INPUT
from sidecar.cli.output import is_written, name_key
from sidecar.cli.transcript_manifest import (
    MANIFEST,
    ManifestEntry,
    TranscriptManifest,
    identify,
)
from sidecar.serialization import from_plain

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
        manifest = TranscriptManifest(self.out, fmt)
        files = files or sorted(path for path in self.box.rglob("*") if path.is_file())
        ending = {"text": "txt"}.get(fmt, fmt)
        pairs = manifest.pending(files, [f"{path.stem}.{ending}" for path in files])
        for path, name in pairs:
            manifest.write(name, path.read_text(), identify(path))
        return [name for _, name in pairs]

    def read(self) -> dict[str, str]:
        """The transcripts by name."""
        return {path.name: path.read_text() for path in self.out.iterdir() if path.name != MANIFEST}


@pytest.fixture
def transcripts(tmp_path: Path) -> Transcripts:
    return Transcripts(tmp_path)


def test_namesake_in_another_folder_gets_its_own_transcript(transcripts: Transcripts) -> None:
    transcripts.put("tuesday/call.wav", TUESDAY)
    assert transcripts.run() == ["call.txt"]
    transcripts.put("monday/call.wav", MONDAY)  # and sorts before
    transcripts.put("tuesday/call.mp3", MONDAY + b"!")
    assert transcripts.run() == ["call-2.txt", "call-3.txt"]
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


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        (False, {"call.txt": TUESDAY.decode()}),
        (True, {"call.txt": "by hand", "call-2.txt": TUESDAY.decode()}),
    ],
)
def test_replaced_recording_is_transcribed_and_an_edited_transcript_is_kept(
    transcripts: Transcripts, edited: bool, expected: dict[str, str]
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    if edited:
        (transcripts.out / "call.txt").write_text("by hand")
    assert transcripts.run() == []
    transcripts.put("call.wav", TUESDAY)  # of a date before the transcript
    assert len(transcripts.run()) == 1
    assert transcripts.run() == []
    assert transcripts.read() == expected


@pytest.mark.parametrize("content", [MONDAY[::-1], MONDAY])
def test_recording_rewritten_with_same_size_and_date_is_done_again_only_if_content_changed(
    transcripts: Transcripts, content: bytes
) -> None:
    transcripts.put("call.wav", MONDAY)
    transcripts.run()
    transcripts.put("call.wav", content)
    assert transcripts.run() == ([] if content == MONDAY else ["call.txt"])


def test_moved_recording_is_not_transcribed_again_and_a_copy_is(transcripts: Transcripts) -> None:
    first = transcripts.put("inbox/call.wav", MONDAY)
    transcripts.run()
    (transcripts.out / "call.txt").write_text("by hand")
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
    (transcripts.out / "call-2.txt").write_text("")
    assert transcripts.run() == ["call-2.txt"]
    assert (transcripts.out / "call-2.txt").read_text() == MONDAY.decode()


def test_transcript_of_another_program_is_kept_and_recording_of_that_name_gets_its_own(
    transcripts: Transcripts,
) -> None:
    (transcripts.out / "CALL.txt").write_text("by another program")
    transcripts.put("call.wav", MONDAY)
    assert transcripts.run() == ["call-2.txt"]


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


def test_manifest_line_is_read_once_and_all_lines_only_if_the_file_was_made_anew(
    transcripts: Transcripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def reads(kind: type[ManifestEntry], plain: object) -> ManifestEntry:
        read.append(plain)
        return from_plain(kind, plain)

    monkeypatch.setattr("sidecar.cli.transcript_manifest.from_plain", reads)
    for number in range(50):
        transcripts.put(f"{number}.wav", str(number).encode())
    assert len(transcripts.run()) == 50
    assert len(read) <= 50
    manifest = TranscriptManifest(transcripts.out, "text")
    (transcripts.out / MANIFEST).unlink()  # and it is made anew by another command
    other = transcripts.put("other.wav", b"other")
    assert transcripts.run() == ["other.txt"]
    read.clear()
    assert manifest.write("other.txt", "again", identify(other)) == "other.txt"
    assert len(read) == 51


def test_manifest_made_anew_in_the_same_file_is_read_again(transcripts: Transcripts) -> None:
    recording = transcripts.put("monday.wav", MONDAY)
    assert transcripts.run() == ["monday.txt"]
    manifest = TranscriptManifest(transcripts.out, "text")
    (transcripts.out / "monday.txt").unlink()
    path = transcripts.out / MANIFEST
    other = path.read_bytes().replace(b"monday", b"tuesday")  # a new file can have the same inode
    path.write_bytes(other * 2)
    (transcripts.out / "monday.txt").write_text("of another program")
    assert manifest.write("monday.txt", "again", identify(recording)) == "monday-2.txt"


@pytest.mark.skipif(os.name == "nt", reason="there is no such path")
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


def test_namesake_that_another_command_wrote_meanwhile_is_kept(transcripts: Transcripts) -> None:
    recordings = [transcripts.put(f"{day}/call.wav", day.encode()) for day in ("one", "two")]
    for chosen in ("resume", "each"):
        name = f"{chosen}.txt"
        commands = [TranscriptManifest(transcripts.out, "text") for _ in recordings]
        if chosen == "resume":
            for command, path in zip(commands, recordings, strict=True):
                assert command.pending([path], [name]) == [(path, name)]
        written = [
            command.write(name, path.read_text(), identify(path))
            for command, path in zip(commands, recordings, strict=True)
        ]
        assert written == [name, f"{chosen}-2.txt"]
        texts = transcripts.read()
        assert [texts[each] for each in written] == ["one", "two"]


def test_file_that_appeared_meanwhile_is_kept_and_an_earlier_one_replaced(
    transcripts: Transcripts,
) -> None:
    recording = identify(transcripts.put("call.wav", MONDAY))
    manifest = TranscriptManifest(transcripts.out, "text")
    (transcripts.out / "call.txt").write_text("by another program")
    assert manifest.write("call.txt", "again", recording) == "call-2.txt"
    assert transcripts.read() == {"call.txt": "by another program", "call-2.txt": "again"}
    commands = [TranscriptManifest(transcripts.out, "text") for _ in range(2)]
    for command in commands:
        assert command.write("call.txt", "anew", recording) == "call.txt"
    assert transcripts.read()["call.txt"] == "anew"


def test_recording_older_than_its_transcript_of_a_version_without_a_manifest_is_done(
    transcripts: Transcripts,
) -> None:
    for name in ("done.wav", "left.wav", "one/call.wav", "two/call.wav"):
        transcripts.put(name, name.encode())
    changed = transcripts.put("changed.wav", MONDAY)
    for name in ("done", "call", "changed"):
        (transcripts.out / f"{name}.txt").write_text("by an earlier version")
    os.utime(transcripts.out / "changed.txt", (2, 2))
    os.utime(changed, (3, 3))
    assert transcripts.run() == ["changed-2.txt", "left.txt", "call-2.txt", "call-3.txt"]
    assert transcripts.run() == []
    assert transcripts.read()["done.txt"] == "by an earlier version"


def test_file_of_a_namesake_is_not_taken_over_on_a_disk_that_ignores_case(
    transcripts: Transcripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (transcripts.out / "CALL.txt").write_text("of another recording")
    transcripts.put("call.wav", MONDAY)
    lexists = os.path.lexists

    def real_name(path: Path | str) -> Path:
        found = (one for one in os.scandir(transcripts.out) if one.name.lower() == name_of(path))
        return Path(next(found, path))

    def name_of(path: Path | str) -> str:
        return Path(path).name.lower()

    monkeypatch.setattr(output, "is_written", lambda path, of: is_written(real_name(path), of))
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(real_name(path)))
    assert transcripts.run() == ["call-2.txt"]
    assert transcripts.read()["CALL.txt"] == "of another recording"


def test_recordings_whose_names_differ_in_unicode_form_only_get_separate_transcripts(
    transcripts: Transcripts,
) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    transcripts.put(f"monday/{composed}.wav", MONDAY)
    transcripts.put(f"tuesday/{decomposed}.wav", TUESDAY)
    (transcripts.out / f"{composed}.txt").write_text("by an earlier version")
    made = transcripts.run()
    assert len({name_key(name) for name in (*made, f"{composed}.txt")}) == 3
