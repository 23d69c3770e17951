"""Whose fault an error of ffmpeg is: its own, or the recording's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import pytest
from instrumented_slot import OverheardSlot, queue_on, started
from recordings import Studio
from service_process import new_file, until

from sidecar import errors
from sidecar.audio.audio_format import MP4
from sidecar.audio.audio_info import FFMPEG_DECODER, AudioInfo
from sidecar.errors import Fault
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job

NewJob = Callable[..., Job]
pytestmark = pytest.mark.posix("programs for Linux")


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have a shell do something before each ffmpeg, until the returned file is deleted."""

    def begin(what: str) -> Path:
        real, file = imageio_ffmpeg.get_ffmpeg_exe(), new_file(tmp_path / "trouble", b"")
        exe = tmp_path / "ffmpeg"
        exe.write_text(f'#!/bin/sh\n[ -e {file} ] && {{ {what}; }}\nexec {real} "$@"\n', "utf-8")
        exe.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(exe))
        return file

    return begin


def m4a_job(new_job: NewJob, path: Path) -> Job:
    job = new_job(path)
    job.record = replace(job.record, audio_info=AudioInfo(MP4.name, FFMPEG_DECODER, None))
    return job


@pytest.mark.parametrize("what", ["exit 127", "ulimit -v 20000", "kill -SEGV $$"])
async def test_job_whose_ffmpeg_decodes_nothing_of_ours_either_waits_and_is_done_later(
    what: str, new_job: NewJob, studio: Studio, trouble: Callable[[str], Path]
) -> None:
    path = studio.path("m4a")
    file = trouble(what)
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        (job,) = await started(queue, m4a_job(new_job, path))
        await until(lambda: bool(queue.faults) or job.ended)
        assert job.state is not JobState.FAILED, job.error
        assert [*queue.faults] == [Fault.DECODER]
        file.unlink()
        assert (await job.result()).text
        assert not queue.faults


async def test_damaged_recording_fails_at_once_as_ffmpeg_decodes_our_second(
    new_job: NewJob, studio: Studio, tmp_path: Path
) -> None:
    whole = studio.bytes("m4a")
    path = new_file(tmp_path / "damaged.m4a", whole.replace(b"moov", b"xxxx"))
    async with queue_on(OverheardSlot(), fault_retry_s=0.001) as queue:
        (job,) = await started(queue, m4a_job(new_job, path))
        with pytest.raises(errors.AudioUndecodable):
            await job.result()
        assert job.record.attempts == 1
        assert not queue.faults
