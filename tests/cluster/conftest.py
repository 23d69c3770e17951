"""Recordings for jobs of several services."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path
