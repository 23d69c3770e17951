"""An engine in this process, and the sound of two voices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S
from upstream_engine_samples import RATE, Engine, Sound

from sidecar.upstream import chunk_requests, load_balancer, upstream_client


@pytest.fixture(scope="session")
def two_voices() -> Sound:
    """Two people, 14 s at 16 kHz and 16 bit."""
    import soxr

    path = Path(get_assets_path()) / "endgame_nagg_nell.wav"
    samples, rate = soundfile.read(path, frames=14 * 24_000, dtype="float32")
    low = soxr.resample(samples, rate, RATE)
    return Sound((np.rint(low * 32768).clip(-32768, 32767) / 32768).astype(np.float32))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a server that is gone, waits for a moment; one that is there and has no
    processor for a while is not taken for gone, nor for too slow."""
    monkeypatch.setattr(load_balancer, "MIN_BACKOFF_S", 0.05)
    monkeypatch.setattr(load_balancer, "UNREACHABLE_WAIT_S", 0.5)
    monkeypatch.setattr(upstream_client, "PROBE_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(upstream_client, "STREAM_SILENCE_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(chunk_requests, "EXTRA_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def start() -> Callable[..., Engine]:
    """Makes engines; their connections end with this process, as they do with a worker."""
    return Engine
