"""Recordings for jobs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from instrumented_slot import job_of
from service_process import new_file

from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_runner import Job


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    return new_file(tmp_path / "voice.wav", voice)


class Hold:
    """Has engines stop behind the first second of each attempt, until it is released."""

    def __init__(self, file: Path, patch: pytest.MonkeyPatch) -> None:
        self._file, self._patch = file, patch
        file.touch()
        patch.setenv("VIBEVOICE_SCRIPTED_HOLD", str(file))
        patch.delenv("VIBEVOICE_SCRIPTED_SPEED", raising=False)

    def release(self) -> None:
        """All go on."""
        self._file.unlink()

    def spare_new_workers(self) -> None:
        """Only those of worker processes that there are now stop."""
        self._patch.delenv("VIBEVOICE_SCRIPTED_HOLD")


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    return Hold(tmp_path / "hold", monkeypatch)


@pytest.fixture
def new_job(recording: Path) -> Callable[..., Job]:
    """Makes jobs of the recording."""

    def make(
        path: Path = recording, options: TranscribeOptions | None = None, **more: object
    ) -> Job:
        return job_of(path, options or TranscribeOptions(), **more)

    return make
