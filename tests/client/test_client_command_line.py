"""Many recordings by the command line: folders, what is left out, what goes on, what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import moonshine_voice
import pytest
from service_process import PATIENCE_S, Server, halted, wait_until
from vibevoice_asr_client import Client

from sidecar import errors
from sidecar.cli import watch_folder
from sidecar.cli.audio_input import expand_folders, idempotency_key, list_recordings, open_file
from sidecar.cli.backends import ServiceTarget, open_backend
from sidecar.cli.output import write_atomically
from sidecar.cli.transcribe import TranscribeCommandOptions, run
from sidecar.cli.watch_folder import FileSettling, FileSnapshot
from sidecar.transcripts.transcript import Transcript

TALK = Path(moonshine_voice.get_assets_path()) / "success.wav"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if "VIBEVOICE" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("b.wav", "a.WAV", "more/c.wav", ".hidden/d.wav", ".e.wav", "notes.txt"):
        shutil.copy(TALK, folder / name)
    return folder


def test_folder_is_its_recordings_recursively_by_name(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = expand_folders([TALK, inbox, tmp_path / "empty", tmp_path / "gone.wav"])
    assert found == [
        TALK, inbox / "a.WAV", inbox / "b.wav", inbox / "more/c.wav", tmp_path / "empty",
        tmp_path / "gone.wav",
    ]  # fmt: skip
    assert list_recordings(inbox, below=False) == [inbox / "a.WAV", inbox / "b.wav"]


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
    assert key() != first


def test_output_file_is_written_atomically(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "Grüße")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_folder_is_transcribed_in_parallel_and_resume_does_the_rest(
    inbox: Path, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {job["id"] for job in server.jobs()}
    url, to = server.url, tmp_path / "out"
    assert run(TranscribeCommandOptions([inbox, TALK], where=ServiceTarget(url))) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert heads == ["# a.WAV", "# b.wav", "# c.wav", "# success.wav"]
    order = TranscribeCommandOptions(
        [inbox], format="srt", output=to, where=ServiceTarget(url), resume=True
    )
    assert run(order) == 0
    dates = {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    assert set(dates) == {"a.srt", "b.srt", "c.srt"}
    (to / "b.srt").unlink()
    assert run(order) == 0
    assert {path.name for path in to.iterdir()} == set(dates)
    assert (to / "a.srt").stat().st_mtime_ns == dates["a.srt"], "it is left as it was"
    with pytest.raises(errors.SettingsInvalid):  # there is nothing to go by
        run(TranscribeCommandOptions([inbox], resume=True))
    assert {job["id"] for job in server.jobs()} <= before, "no job is left behind"


@pytest.fixture
def watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watched folder is looked at often, and a recording counts soon."""
    for name, seconds in {"POLL_S": 0.02, "SETTLED_S": 0.1, "RETRY_S": 0.02}.items():
        monkeypatch.setattr(watch_folder, name, seconds)


@contextlib.asynccontextmanager
async def watching(folder: Path, where: ServiceTarget) -> AsyncIterator[asyncio.Task[int]]:
    async with open_backend(where, {}) as transcribe:
        task = asyncio.get_running_loop().create_task(
            watch_folder.FolderWatch(folder, folder, "srt", transcribe, 2).run()
        )
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition, PATIENCE_S, "the folder is as it should be")


async def test_watched_folder_transcribes_arrivals_and_sets_failures_aside(
    inbox: Path, server: Server, watches: None
) -> None:
    (inbox / "junk.mp3").write_bytes(b"this is no recording" * 100)
    shutil.copy(TALK, inbox / f"{'a' * 248}.wav")  # for whose transcript there is no name
    async with watching(inbox, ServiceTarget(server.url, leave=True)):
        await until((inbox / "a.WAV.srt").exists)
        await until((inbox / "failed/junk.mp3.reason.txt").exists)
        shutil.copy(TALK, inbox / "late.wav")
        await until((inbox / "late.wav.srt").exists)
    reason = (inbox / "failed/junk.mp3.reason.txt").read_text("utf-8")
    assert "(audio_format_unsupported)" in reason
    assert (inbox / "failed/junk.mp3").exists()
    assert not (inbox / "junk.mp3").exists()


@pytest.mark.slow
async def test_watch_resumes_the_job_that_it_left(
    tmp_path: Path, start_server: Callable[..., Server], watches: None
) -> None:
    server = start_server(preload=True)
    await until(lambda: server.health()["engine_state"] == "ready")
    shutil.copy(TALK, tmp_path / "talk.wav")
    where = ServiceTarget(server.url, leave=True)
    with Client(where.server or "") as client:
        with halted(server.health()["worker_pid"]):
            async with watching(tmp_path, where):
                await until(lambda: client.jobs().jobs)
            (left,) = client.jobs().jobs
        async with watching(tmp_path, where):
            await until((tmp_path / "talk.wav.srt").exists)
        assert client.jobs().jobs == (), "it was that one, and it is forgotten"
    assert left.state in ("queued", "running")


async def test_invalid_options_end_a_watch_and_move_nothing(
    inbox: Path, server: Server, watches: None
) -> None:
    where = ServiceTarget(server.url)
    async with open_backend(where, {"language": "!!"}) as transcribe:
        with pytest.raises(errors.LanguageInvalid):
            await asyncio.wait_for(
                watch_folder.FolderWatch(inbox, inbox, "srt", transcribe, 2).run(), PATIENCE_S
            )
    assert not (inbox / "failed").exists()


async def test_unwritable_transcript_is_tried_again_and_does_not_end_the_watch(
    inbox: Path,
    watches: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, failures = watch_folder.write_atomically, [OSError(errno.ENOSPC, "No space left")]

    def fill_the_disk(path: Path, text: str) -> None:
        if failures:
            raise failures.pop()
        write(path, text)

    monkeypatch.setattr(watch_folder, "write_atomically", fill_the_disk)

    async def transcribe(path: Path, _: object) -> Transcript:
        return Transcript((), "en", 1.0, "scripted", "int8")

    watch = asyncio.create_task(watch_folder.FolderWatch(inbox, inbox, "text", transcribe, 2).run())
    await until((inbox / "a.WAV.txt").exists)
    watch.cancel()
    assert "was not written: No space left." in capsys.readouterr().err


def test_recording_counts_once_it_no_longer_changes() -> None:
    settling, path, empty = FileSettling(3.0), Path("a.wav"), Path("b.wav")
    looks = {path: FileSnapshot(10, 1), empty: FileSnapshot(0, 1)}
    assert settling.settled(looks, 0.0) == []
    assert settling.settled(looks, 2.9) == []
    assert settling.settled({path: FileSnapshot(11, 2)}, 3.0) == [], "it grew"
    assert settling.settled({path: FileSnapshot(11, 2)}, 6.0) == [path]
    assert settling.settled({}, 7.0) == []
    assert settling.settled({path: FileSnapshot(11, 2)}, 8.0) == [], "it came back"
