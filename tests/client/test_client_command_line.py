"""Many recordings by the command line: folders, what is left out, what goes on, what arrives."""

import asyncio
import contextlib
import ctypes
import errno
import io
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import moonshine_voice
import pytest
from service_process import Server, StartServer, halted, new_file, wait_until
from systems import IN_WINDOWS, NO_LINKS
from vibevoice_asr_client import Client

from sidecar import errors
from sidecar.cli import transcribe
from sidecar.cli.audio_input import expand_folders, idempotency_key, list_folder, open_file
from sidecar.cli.backends import ServiceTarget, TranscribeRecording, open_backend
from sidecar.cli.output import check_writable, numbered_names, write_atomically
from sidecar.cli.transcribe import TranscribeCommandOptions, run
from sidecar.cli.transcript_manifest import RecordingIdentity, identify
from sidecar.cli.watch_folder import FileSettling, FolderWatch
from sidecar.transcripts.transcript import Segment, Transcript

pytestmark = pytest.mark.usefixtures("no_settings")
TALK = Path(moonshine_voice.get_assets_path()) / "success.wav"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("b.wav", "a.WAV", "more/c.wav", ".hidden/d.wav", ".e.wav", "notes.txt"):
        shutil.copy(TALK, folder / name)
    return folder


def test_folder_stands_for_all_recordings_below_it_but_hidden_ones_in_order_of_names(
    inbox: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    found = expand_folders([TALK, inbox, tmp_path / "empty", tmp_path / "gone.wav"])
    assert found == [
        TALK, inbox / "a.WAV", inbox / "b.wav", inbox / "more/c.wav", tmp_path / "empty",
        tmp_path / "gone.wav",
    ]  # fmt: skip
    assert list_folder(inbox, below=False).recordings == [inbox / "a.WAV", inbox / "b.wav"]


def test_recording_that_is_named_twice_or_is_in_a_named_folder_is_transcribed_once(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inbox)
    named = Path("b.wav"), inbox / "b.wav", TALK, inbox, inbox / "more"
    found = [Path("b.wav"), TALK, inbox / "a.WAV", inbox / "more/c.wav"]
    assert expand_folders(named) == found


def test_idempotency_key_changes_with_recording_or_options(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"

    def key(**options: str) -> str:
        with open_file(path) as source:
            return idempotency_key(path, source, options)

    shutil.copy(TALK, path)
    first = key()
    assert key() == first
    assert key(language="de") != first
    os.utime(path, (1, 1))
    assert (older := key()) != first
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, (1, 1))  # rewritten, with its size and date
    assert key() != older


def test_output_file_has_its_text_and_a_failed_write_leaves_no_partial_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "Grüße")
    assert (tmp_path / "a.txt").read_text("utf-8") == "Grüße"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


@pytest.mark.posix("file descriptors by number")
def test_output_that_is_a_link_stays_one_and_a_device_is_written_to(tmp_path: Path) -> None:
    (link := tmp_path / "link.txt").symlink_to(tmp_path / "text.txt")
    for text in ("first", "second"):
        check_writable(link)
        write_atomically(link, text)
        assert link.is_symlink()
        assert (tmp_path / "text.txt").read_text("utf-8") == text
    read, write = os.pipe()
    device = Path(f"/dev/fd/{write}")
    check_writable(device)
    write_atomically(device, "to a pipe")
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        assert pipe.read() == "to a pipe"
    assert set(tmp_path.iterdir()) == {link, tmp_path / "text.txt"}


def test_folder_is_transcribed_in_order_of_names_and_resume_does_only_what_is_missing(
    inbox: Path, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {job["id"] for job in server.jobs()}
    url, to = server.url, tmp_path / "out"
    assert run(TranscribeCommandOptions([inbox, TALK], target=ServiceTarget(url))) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert heads == ["# a.WAV", "# b.wav", "# c.wav", "# success.wav"]
    order = TranscribeCommandOptions(
        [inbox], format="srt", output=to, target=ServiceTarget(url), resume=True
    )
    assert run(order) == 0
    dates = {name: (to / name).stat().st_mtime_ns for name in written(to)}
    assert set(dates) == {"a.srt", "b.srt", "c.srt"}
    (to / "b.srt").unlink()
    assert run(order) == 0
    assert set(written(to)) == set(dates)
    assert (to / "a.srt").stat().st_mtime_ns == dates["a.srt"], "it is left as it was"
    with pytest.raises(errors.SettingsInvalid):  # there is nothing to go by
        run(TranscribeCommandOptions([inbox], resume=True))
    assert {job["id"] for job in server.jobs()} <= before, "no job is left behind"


class QuickWatch(FolderWatch):
    poll_s, settled_s, retry_s = 0.02, 0.1, 0.02


def written(folder: Path) -> dict[str, str]:
    """The transcripts in a folder, by name."""
    return {
        path.name: path.read_text("utf-8")
        for path in folder.iterdir()
        if path.suffix not in (".jsonl", ".part")  # a part is renamed at any time
    }


def nothing_said() -> Transcript:
    return Transcript((), "en", 1.0, "scripted", "int8")


@contextlib.asynccontextmanager
async def said_of(path: Path, _: object) -> AsyncIterator[Transcript]:
    """The content of a recording is what is said in it; in a broken one nothing can be."""
    text = await asyncio.to_thread(path.read_text, "utf-8")
    if text == "broken":
        raise errors.AudioUndecodable
    yield replace(nothing_said(), segments=(Segment(0.0, 1.0, text),))


@contextlib.asynccontextmanager
async def ended(task: asyncio.Task[int]) -> AsyncIterator[asyncio.Task[int]]:
    """The task, until the end of the block."""
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def watched(
    folder: Path, transcribe: TranscribeRecording = said_of, output: Path | None = None
) -> AsyncIterator[asyncio.Task[int]]:
    """A watch of a folder."""
    watch = QuickWatch(folder, output or folder, "text", transcribe, 1)
    async with ended(asyncio.create_task(watch.run())) as task:
        yield task


@contextlib.asynccontextmanager
async def watched_by_service(folder: Path, server: Server) -> AsyncIterator[None]:
    """The same by the command, whose recordings go to a service."""
    order = TranscribeCommandOptions(watch=folder, target=ServiceTarget(server.url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcribe, "FolderWatch", QuickWatch)
        async with ended(asyncio.create_task(transcribe.transcribe_arrivals(order, folder))):
            yield


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition, "the folder is as it should be")


async def test_watched_folder_transcribes_arrivals_and_moves_failures_aside_with_their_reason(
    inbox: Path, server: Server
) -> None:
    (inbox / "junk.mp3").write_bytes(b"this is no recording" * 100)
    shutil.copy(TALK, inbox / f"{'a' * 248}.wav")  # so long that '.txt' does not fit behind it
    (inbox / f"{'b' * 251}.mp3").write_bytes(b"this is no recording" * 100)
    async with watched_by_service(inbox, server):
        await until((inbox / "a.WAV.txt").exists)
        await until((inbox / "failed/junk.mp3.reason.txt").exists)
        shutil.copy(TALK, inbox / "late.wav")
        await until((inbox / "late.wav.txt").exists)
        await until((inbox / f"{'a' * 248}.wa.txt").exists)
        await until((inbox / f"failed/{'b' * 251}.txt").exists)
    reason = (inbox / "failed/junk.mp3.reason.txt").read_text("utf-8")
    assert "(audio_format_unsupported)" in reason
    assert (inbox / "failed/junk.mp3").exists()
    assert not (inbox / "junk.mp3").exists()


@pytest.mark.slow
async def test_watch_resumes_the_job_that_it_left(
    tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(preload=True)
    await until(lambda: server.health()["engine_state"] == "ready")
    shutil.copy(TALK, tmp_path / "talk.wav")
    with Client(server.url) as client:
        with halted(server.health()["worker_pid"]):
            async with watched_by_service(tmp_path, server):
                await until(lambda: client.jobs().jobs)
            (left,) = client.jobs().jobs
        async with watched_by_service(tmp_path, server):
            await until((tmp_path / "talk.wav.txt").exists)
        assert client.jobs().jobs == (), "it was that one, and it is forgotten"
    assert left.state in ("queued", "running")


async def test_invalid_options_end_a_watch_and_move_nothing(inbox: Path, server: Server) -> None:
    where = ServiceTarget(server.url)
    async with open_backend(where, {"language": "!!"}) as transcribe:
        with pytest.raises(errors.LanguageInvalid):
            await QuickWatch(inbox, inbox, "srt", transcribe, 2).run()
    assert not (inbox / "failed").exists()


async def test_unwritable_transcript_is_tried_again_and_does_not_end_the_watch(
    inbox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (to := tmp_path / "out").mkdir()

    @contextlib.asynccontextmanager
    async def transcribe(path: Path, _: object) -> AsyncIterator[Transcript]:
        if not kept.exists():
            to.rename(kept)  # the share is unmounted
        try:
            yield nothing_said()
        except OSError:
            left.append(path)
            raise

    kept, left = tmp_path / "kept", list[Path]()
    async with watched(inbox, transcribe, to):
        await until(kept.exists)
        await until(lambda: "No such file" in capsys.readouterr().err)
        kept.rename(to)
        kept.touch()
        await until(lambda: set(written(to)) == {"a.WAV.txt", "b.wav.txt"})
    assert left, "the job stays while its words are not written"


async def test_watch_keeps_files_of_others_edited_transcripts_and_those_of_replaced_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.wav").write_text("monday", "utf-8")
    (tmp_path / "talk.wav.txt").write_text("my notes", "utf-8")
    async with watched(tmp_path):
        await until((tmp_path / "talk.wav-2.txt").exists)
        (tmp_path / "talk.wav").write_text("tuesday", "utf-8")
        await until((tmp_path / "talk.wav-3.txt").exists)
        (tmp_path / "talk.wav-3.txt").write_text("corrected", "utf-8")
    (tmp_path / "talk.wav").rename(tmp_path / "moved.wav")
    (tmp_path / "next.wav").write_text("next", "utf-8")
    async with watched(tmp_path):
        await until((tmp_path / "next.wav.txt").exists)
    texts = {name: text.strip() for name, text in written(tmp_path).items() if "txt" in name}
    assert {name: text.rpartition(" ")[2] for name, text in texts.items()} == {
        "talk.wav.txt": "notes",
        "talk.wav-2.txt": "monday",
        "talk.wav-3.txt": "corrected",
        "next.wav.txt": "next",
    }
    told = capsys.readouterr().err
    assert told.count("talk.wav.txt exists and is kept; the output is talk.wav-2.txt") == 1
    assert told.count("talk.wav.txt exists and is kept; the output is talk.wav-3.txt") == 1


def submissions(server: Server) -> str:
    metrics: str = server.client.get("/metrics").text
    return next(
        one for one in metrics.splitlines() if one.startswith("vibevoice_jobs_submitted_total")
    )


def test_job_of_an_unwritable_transcript_is_kept_for_resume_and_without_resume_is_deleted(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {job["id"] for job in server.jobs()}
    where, to = ServiceTarget(server.url), tmp_path / "out"
    for resume in (True, False):
        order = TranscribeCommandOptions([TALK], output=to, target=where, resume=resume)
        with monkeypatch.context() as patch:
            patch.setattr("sidecar.cli.output.create_file", full)
            with pytest.raises(OSError, match="No space"):
                run(order)
        left = {job["id"] for job in server.jobs()} - before
        assert len(left) == resume, "only what is resumed stays"
        submitted = submissions(server)
        assert run(order) == 0
        assert (submissions(server) == submitted) == resume
        assert {job["id"] for job in server.jobs()} == before
        shutil.rmtree(to)


def test_watch_takes_a_recording_only_after_it_has_not_changed_for_a_time() -> None:
    settling, path, empty = FileSettling(3.0), Path("a.wav"), Path("b.wav")
    looks = {path: (10, 1), empty: (0, 1)}
    assert settling.settled(looks, 0.0) == []
    assert settling.settled(looks, 2.9) == []
    assert settling.settled({path: (11, 2)}, 3.0) == [], "it grew"
    assert settling.settled({path: (11, 2)}, 6.0) == [path]
    assert settling.settled({}, 7.0) == []
    assert settling.settled({path: (11, 2)}, 8.0) == [], "it came back"


async def test_watch_transcribes_a_recording_whose_rest_came_while_its_half_was_refused(
    tmp_path: Path,
) -> None:
    (arriving := tmp_path / "arriving.wav").write_text("broken", "utf-8")

    @contextlib.asynccontextmanager
    async def transcribe(path: Path, told: object) -> AsyncIterator[Transcript]:
        try:
            async with said_of(path, told) as transcript:
                yield transcript
        except errors.AudioUndecodable:
            await asyncio.to_thread(path.write_text, "the whole talk", "utf-8")
            raise

    async with watched(tmp_path, transcribe):
        await until((tmp_path / "arriving.wav.txt").exists)
    assert arriving.exists()
    assert not (tmp_path / "failed").exists()


async def test_watch_goes_on_if_a_recording_cannot_be_moved_and_moves_it_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (obstacle := tmp_path / "failed").touch()  # on Windows a file that is open elsewhere is one
    (tmp_path / "broken.wav").write_text("broken", "utf-8")
    asked: list[str] = []

    def transcribe(path: Path, told: object) -> contextlib.AbstractAsyncContextManager[Transcript]:
        asked.append(path.name)
        return said_of(path, told)

    async with watched(tmp_path, transcribe):
        await until(lambda: asked)
        (tmp_path / "next.wav").write_text("next", "utf-8")
        await until((tmp_path / "next.wav.txt").exists)
        obstacle.unlink()
        await until((tmp_path / "failed/broken.wav.reason.txt").exists)
    assert asked == ["broken.wav", "next.wav"], "only the move is tried again"
    assert capsys.readouterr().err.count("cannot be moved to 'failed' yet") == 1


@pytest.mark.parametrize(
    "stem",
    [
        pytest.param("a" * 252, id="letters"),
        pytest.param(
            "ü" * 252 + "😀", id="others", marks=pytest.mark.not_in_wine("its files are of Linux")
        ),
    ],
)
def test_name_of_a_transcript_is_cut_to_what_a_file_of_the_folder_may_have(
    stem: str, tmp_path: Path
) -> None:
    name = next(numbered_names(tmp_path, f"{stem}.wav.txt"))
    assert name.startswith(stem[:9])
    assert name.endswith(".txt")
    new_file(tmp_path / name, "")


async def test_watch_tells_once_which_recording_it_may_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.wav").write_text("secret", "utf-8")
    tries: list[Path] = []

    def may_not_read(path: Path) -> RecordingIdentity | None:  # root may read every file
        if path.name != "secret.wav" or len(tries) > 2:
            return identify(path)
        tries.append(path)
        return None

    monkeypatch.setattr("sidecar.cli.watch_folder.identify", may_not_read)
    async with watched(tmp_path):
        await until((tmp_path / "secret.wav.txt").exists)
    assert capsys.readouterr().err.count("secret.wav: it cannot be read yet") == 1


@pytest.mark.skipif(not IN_WINDOWS, reason="no program keeps others from a file elsewhere")
async def test_watch_takes_a_recording_once_the_program_that_keeps_it_to_itself_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = new_file(tmp_path / "talk.wav", "talk")
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    async with watched(tmp_path):
        with kept_to_itself(recording):
            await until(lambda: "talk.wav: it cannot be read yet" in said.getvalue())
        await until((tmp_path / "talk.wav.txt").exists)
    assert not (tmp_path / "failed").exists()


@contextlib.contextmanager
def kept_to_itself(path: Path) -> Iterator[None]:
    """A file that is open so that nobody else may open it, as some recorders do."""
    kernel = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - of Windows
    kernel.CreateFileW.restype = ctypes.c_void_p
    read, open_existing = ctypes.c_uint(0x80000000), 3
    handle = ctypes.c_void_p(kernel.CreateFileW(str(path), read, 0, None, open_existing, 0, None))
    yield
    kernel.CloseHandle(handle)


async def test_watch_goes_on_if_a_rejected_recording_is_removed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failed").touch()
    broken = new_file(tmp_path / "broken.wav", "broken")
    tries: list[Path] = []

    def remove_at_last(path: Path) -> RecordingIdentity | None:
        recording = identify(path)
        if path == broken:
            tries.append(path)
            if len(tries) == 2:
                path.unlink()
        return recording

    monkeypatch.setattr("sidecar.cli.watch_folder.identify", remove_at_last)
    async with watched(tmp_path) as task:
        await until(lambda: len(tries) == 2)
        (tmp_path / "next.wav").write_text("next", "utf-8")
        await until(lambda: task.done() or (tmp_path / "next.wav.txt").exists())
        assert not task.done()


@pytest.mark.not_in_wine(NO_LINKS)
def test_folder_tells_what_it_skips(inbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("memo.qta", "rec.weba", "call.awb", "film.m4v", "call.xyz", "done.srt", "._b.wav"):
        (inbox / name).touch()
    (inbox / "elsewhere").symlink_to(inbox.parent)
    files = expand_folders([inbox])
    assert {path.suffix for path in files} == {".qta", ".weba", ".awb", ".m4v", ".wav", ".WAV"}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ": .e.wav, call.xyz, elsewhere. To transcribe one" in said


def test_recordings_that_are_still_in_the_cloud_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "Recordings" / "2026").mkdir(parents=True)
    shutil.copy(TALK, folder / "here.wav")
    placeholders = (".talk.m4a.icloud", "Film.MOV.nextcloud", "memo.mp3.owncloud")
    for name in (*placeholders, ".notes.txt.icloud", ".hidden.icloud", "letter.docx.nextcloud"):
        (folder / name).write_bytes(b"bplist00")
    assert expand_folders([folder.parent]) == [folder / "here.wav"]
    told = capsys.readouterr().err.splitlines()
    names = ", ".join(str(Path("2026", one)) for one in ("Film.MOV", "memo.mp3", "talk.m4a"))
    assert f"still in the cloud: {names}. Download them." in told[1]
    assert f"{Path('2026/letter.docx.nextcloud')}. To transcribe" in told[0]
    for name in ("talk.m4a", "Film.MOV", "memo.mp3", *placeholders):
        with pytest.raises(errors.AudioPathNotFound, match="still in the cloud"):
            open_file(folder / name)


async def test_watch_tells_once_what_it_skips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "call.xyz").touch()
    (tmp_path / ".later.m4a.icloud").touch()
    for name in ("2026-11-28", "failed", ".hidden", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "talk.wav").write_text("talk", "utf-8")
    async with watched(tmp_path, output=tmp_path / "texts"):
        await until((tmp_path / "texts/talk.wav.txt").exists)
        shutil.copytree(tmp_path / "2026-11-28", tmp_path / "2026-11-29")
        (tmp_path / "next.wav").write_text("next", "utf-8")
        await until((tmp_path / "texts/next.wav.txt").exists)
    told = capsys.readouterr().err
    assert ": 2026-11-28, call.xyz. To transcribe" in told
    assert ": 2026-11-29. To transcribe" in told
    assert told.count("To transcribe one") == 2
    assert told.count("still in the cloud: later.m4a.") == 1


async def test_watch_says_once_that_its_folder_is_away_and_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "inbox").mkdir()
    away, said = tmp_path / "away", io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    async with watched(folder):
        folder.rename(away)
        await until(lambda: "cannot be read" in said.getvalue())
        away.rename(folder)
        (folder / "talk.wav").write_text("talk", "utf-8")
        await until((folder / "talk.wav.txt").exists)
    assert said.getvalue().count(f"{folder}: the folder cannot be read now.\n") == 1


@pytest.mark.parametrize("there", [False, True])
def test_output_named_as_a_file_is_refused(there: bool, tmp_path: Path) -> None:
    output = tmp_path / "talk.srt"
    if there:
        output.touch()
    with pytest.raises(errors.SettingsInvalid, match="the name of a file"):
        run(TranscribeCommandOptions([TALK], format="srt", output=output))
    assert output.is_file() == there
