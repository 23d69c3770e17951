"""What every wire calls, without a wire."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from recordings import silence
from service_process import Server, new_file, until

from sidecar import errors
from sidecar.audio.audio_source import open_recording_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.config.settings import load_settings
from sidecar.gpu_memory.memory_admission import LoadPlan
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.duration_prediction import DURATION_FILE_NAME
from sidecar.jobs.job_record import JobState
from sidecar.jobs.recovery import jobs_folder
from sidecar.observability import logs
from sidecar.server.app import create_service
from sidecar.service.facade import Service
from sidecar.storage.speaker_store import speaker_folder


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "10")
    service = create_service(load_settings(engine="scripted", data_dir=tmp_path))
    await service.open()
    yield service
    await service.close()


@pytest.mark.parametrize("wrong", ["it has no such precision", "there is no room"])
async def test_refused_reload_does_not_requeue_running_job(
    wrong: str, service: Service, voice: bytes, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "voice.wav", voice)
    job = await service.submissions.submit(
        ANONYMOUS, open_recording_file(str(path)), TranscribeOptions()
    )
    async for _ in job.changes():
        if job.record.segments:
            break
    expected: type[errors.SidecarError] = errors.PrecisionUnavailable
    if wrong == "there is no room":

        def full(precision: Precision) -> LoadPlan:
            raise errors.WontFit()

        service._slot._account.place, expected = full, errors.WontFit
    for _ in range(3):
        heard = len(job.record.segments)
        with pytest.raises(expected):
            await service.reload(
                ANONYMOUS, "int4" if expected is errors.PrecisionUnavailable else "int8", now=True
            )
        await until(lambda: len(job.record.segments) > heard or job.ended)  # noqa: B023
        assert job.record.attempts == 1
    await job.result()
    assert (job.state, job.record.attempts) == (JobState.DONE, 1)


async def test_reload_that_does_not_wait_requeues_running_job(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_file(tmp_path / "long.wav", silence(600))
    job = await service.submissions.submit(
        ANONYMOUS, open_recording_file(str(path)), TranscribeOptions()
    )
    async for _ in job.changes():
        if job.record.segments:
            break
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")  # the next one takes no time
    assert await service.reload(ANONYMOUS, "int8", now=True) is Precision.INT8
    assert (await job.result()).precision == "int8"


async def test_pace_is_stored_for_next_start_without_text_of_transcript(
    service: Service, voice: bytes, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "voice.wav", voice)
    job = await service.submissions.submit(
        ANONYMOUS, open_recording_file(str(path)), TranscribeOptions()
    )
    await job.result()
    await service.close()
    (known,) = json.loads((tmp_path / DURATION_FILE_NAME).read_text())["paces"]
    assert (known["engine"], known["precision"]) == ("scripted", "fp32")
    assert known["per_s"] > 0.0
    again = create_service(load_settings(engine="scripted", data_dir=tmp_path))
    seconds = again._backend._engine.pace.seconds("fp32", 1000.0, 7.0)
    assert seconds == pytest.approx(1000.0 * known["per_s"])


def test_service_of_test_without_folder_writes_nothing_of_user(users_folder: Path) -> None:
    """Who runs the tests has a service perhaps, with its own pace and logs."""
    asked = "from sidecar.observability import logs; print(logs.default_data_folder(None))"
    started = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    settings = load_settings(engine="scripted")
    kept = [jobs_folder(settings), speaker_folder(settings)]
    for folder in [*kept, Path(started.stdout.strip()), logs.default_data_folder(None)]:
        assert folder is not None
        assert folder.is_relative_to(users_folder)


def test_service_of_test_keeps_data_in_folder_of_test(start_server: Callable[..., Server]) -> None:
    """Not with the people of another test; nor, outside of tests, with the user's own."""
    server = start_server(people=True, keep_jobs=True, journal_key="0" * 64)
    assert {path.name for path in server.home.glob("data/*")} >= {"jobs", "people"}


def test_log_has_no_warning_of_missing_packages_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed = ("moonshine", "scripted")
    for module in ("sidecar.server.app", "sidecar.engines", "sidecar.tts.tts_engine_selection"):
        monkeypatch.setattr(
            f"{module}.missing_packages", lambda spec: [] if spec.name in installed else ["torch"]
        )
    monkeypatch.setattr("sidecar.tts.system_tts.is_system_tts_available", lambda: False)
    caplog.set_level(logging.INFO, "sidecar.server.app")
    create_service(load_settings(engine="auto", data_dir=tmp_path))
    shown = [line for line in caplog.messages if "live engine" not in line]
    assert shown == []
    caplog.set_level(logging.DEBUG, "sidecar.server.app")
    create_service(load_settings(engine="auto", data_dir=tmp_path))
    assert "torch" in caplog.text
