"""No room, or no right to write: an honest answer, and the next small job works."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from full_disk import fill_disk
from service_process import MB, StartServer, check_problem, new_file, wait_until
from test_realtime_dialogue import calling

SMALL_UPLOAD = 200 if hasattr(os, "memfd_create") else 507
"""Status of a small recording without a spool: it needs none where Python has files in memory."""


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.posix("programs for Linux")
@pytest.mark.slow_except("6291456")
@pytest.mark.parametrize("size", [4 * MB - 100_000, 6 * MB, 16 * MB])
def test_upload_larger_than_the_free_disk_is_refused_and_frees_what_it_took(
    size: int, start_server: StartServer, tiny_disk: Path, voice: bytes
) -> None:
    server = start_server(spool_dir=tiny_disk)
    (tiny_disk / "ballast").write_bytes(bytes(2 * MB))
    before = used(tiny_disk)
    for _ in range(2):
        check_problem(server.post(bytes(size)), 507, "disk_full")
        assert used(tiny_disk) == before
    response = server.post(voice)
    assert response.status_code == 200, response.text[:500]
    assert used(tiny_disk) == before
    assert "Traceback" not in server.log()


@pytest.mark.posix("programs for Linux")
def test_job_whose_recording_fills_the_disk_runs_on_while_further_uploads_are_refused(
    start_server: StartServer, tiny_disk: Path, tmp_path: Path, voice: bytes
) -> None:
    hold = new_file(tmp_path / "hold", b"")
    server = start_server(spool_dir=tiny_disk, scripted_hold=hold)
    big = voice + bytes(2_200_000)
    first = server.submit(big)
    server.wait_state(first, "running")
    before = used(tiny_disk)
    assert before > 2_200_000
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.post, [big] * 8))
    for answer in answers:
        check_problem(answer, 507, "disk_full")
    assert used(tiny_disk) == before
    assert server.job(first)["state"] == "running"
    server.cancel(first)
    wait_until(lambda: used(tiny_disk) == 0, "the recording is gone from the disk")
    server.wait_state(server.submit(big), "running")


def test_spool_folder_that_is_missing_or_deleted_is_made_anew_by_the_next_upload_that_needs_it(
    start_server: StartServer, tmp_path: Path, voice: bytes
) -> None:
    folder = tmp_path / "spool" / "uploads"
    server = start_server(spool_dir=folder)
    for _ in range(2):
        assert server.post(voice + bytes(2 << 20)).status_code == 200
        assert list(folder.iterdir()) == []
        shutil.rmtree(folder.parent)


def test_impossible_spool_folder_fails_large_uploads_but_not_small_ones_or_paths(
    start_server: StartServer, tmp_path: Path, voice: bytes
) -> None:
    (tmp_path / "file").touch()
    server = start_server(spool_dir=tmp_path / "file" / "folder")
    long = voice + bytes(2 << 20)
    check_problem(server.post(long), 507, "spool_unwritable")
    assert server.post(voice).status_code == SMALL_UPLOAD
    (tmp_path / "voice.wav").write_bytes(long)
    assert server.post_path(str(tmp_path / "voice.wav")).status_code == 200
    (tmp_path / "file").unlink()
    assert server.post(long).status_code == 200
    assert "Traceback" not in server.log()


@pytest.mark.posix("programs for Linux")
def test_read_only_spool_folder_fails_large_uploads_but_not_small_ones_or_paths(
    start_server: StartServer, tiny_disk: Path, tmp_path: Path, voice: bytes
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    server = start_server(spool_dir=tiny_disk)
    check_problem(server.post(voice + bytes(2 << 20)), 507, "spool_unwritable")
    assert server.post(voice).status_code == SMALL_UPLOAD
    (tmp_path / "voice.wav").write_bytes(voice)
    assert server.post_path(str(tmp_path / "voice.wav")).status_code == 200


@pytest.mark.posix("programs for Linux")
@pytest.mark.slow
async def test_conversation_that_a_full_disk_cannot_keep_still_ends_with_its_transcript(
    start_server: StartServer, tiny_disk: Path
) -> None:
    kept = {"keep_jobs": 1, "data_dir": tiny_disk, "journal_key": "0123456789abcdef" * 4}
    server = start_server(voice_engine="scripted", conversations=2, **kept)
    for full in (False, True):
        if full:
            fill_disk(tiny_disk)
        async with calling(server) as caller:
            await caller.answered("Hello there.", output_modalities=["text"])
            codes, ended = await caller.ended(keep=True)
        assert codes == ["disk_full"] * full
        assert (ended["job"] is None) is full
        assert len(ended["transcript"]["segments"]) == 2
