"""The sound of two voices, and a server that can be told to fail."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faulty_proxy import FaultyProxy
from moonshine_voice import get_assets_path
from service_process import Server
from upstream_engine_samples import RATE, Sound


@pytest.fixture(scope="session")
def two_voices() -> Sound:
    """Two people, 14 s at 16 kHz and 16 bit."""
    import soxr

    path = Path(get_assets_path()) / "endgame_nagg_nell.wav"
    samples, rate = soundfile.read(path, frames=14 * 24_000, dtype="float32")
    low = soxr.resample(samples, rate, RATE)
    return Sound((np.rint(low * 32768).clip(-32768, 32767) / 32768).astype(np.float32))


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    """Our own service, behind a proxy that does what it is told to."""
    with FaultyProxy(server.port) as running:
        yield running
