"""Recordings for jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from instrumented_slot import job_of

from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_runner import Job


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


@pytest.fixture
def new_job(recording: Path) -> Callable[..., Job]:
    """Makes jobs of the recording."""

    def make(
        path: Path = recording, options: TranscribeOptions | None = None, **more: object
    ) -> Job:
        return job_of(path, options or TranscribeOptions(), **more)

    return make
