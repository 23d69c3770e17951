"""Whose fault an error of ffmpeg is: its own, or the recording's."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import pytest
from instrumented_slot import OverheardSlot, queue_on, started
from recordings import Studio
from service_process import new_file, until

from sidecar import errors
from sidecar.audio.audio_format import MP4
from sidecar.audio.audio_info import FFMPEG_DECODER, AudioInfo
from sidecar.audio.audio_source import open_recording_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.errors import Fault
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_runner import Job
from sidecar.workers.audio_probe import AudioProbe

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


@pytest.mark.parametrize("what", ["exit 127", "ulimit -v 20000", "kill -SEGV $$"])
async def test_upload_whose_ffmpeg_decodes_nothing_of_ours_either_is_told_to_come_again(
    what: str, studio: Studio, trouble: Callable[[str], Path]
) -> None:
    path = str(studio.path("m4a"))
    file, probe = trouble(what), AudioProbe(3600.0)
    asked = (
        partial(probe.probe, ANONYMOUS),
        partial(probe.voice, ANONYMOUS, max_s=3600.0),
    )
    for ask in asked:
        with open_recording_file(path) as source:
            with pytest.raises(errors.MachineBusy) as caught:
                await ask(source)
            assert caught.value.fault is Fault.DECODER
            assert caught.value.retry_after
    with (
        open_recording_file(str(Path(__file__))) as no_audio,
        pytest.raises(errors.AudioFormatUnsupported),
    ):
        await probe.probe(ANONYMOUS, no_audio)
    file.unlink()
    with open_recording_file(path) as source:
        assert (await probe.probe(ANONYMOUS, source)).container == MP4.name
    await probe.close()


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
