"""The sound of two voices, a server that can be told to fail, and little patience."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faulty_proxy import FaultyProxy
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S, Server
from upstream_engine_samples import RATE, Sound

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
    longer_than_any_test = 2 * PATIENCE_S
    monkeypatch.setattr(upstream_client, "STREAM_SILENCE_TIMEOUT_S", longer_than_any_test)
    monkeypatch.setattr(chunk_requests, "EXTRA_TIMEOUT_S", longer_than_any_test)


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    """Our own service, behind a proxy that does what it is told to."""
    with FaultyProxy(server.port) as running:
        yield running
