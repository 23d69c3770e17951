"""Work that nobody waits for: what goes wrong in it is said, and does not end what must go on."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from service_process import until

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.gpu_memory import gpu_devices
from sidecar.gpu_memory.memory_admission import LoadPlan
from sidecar.interfaces.engine_interface import Precision
from sidecar.service.facade import Service
from sidecar.workers.engine_memory import EngineMemory

TOO_LARGE = "CUDA out of memory: the model takes 16.5 GB, 3.0 GB are free."


@pytest.fixture(autouse=True)
def clean(caplog: pytest.LogCaptureFixture) -> None:
    """What earlier tests left is said before."""
    gc.collect()
    caplog.clear()


def lines(caplog: pytest.LogCaptureFixture, least: int = logging.ERROR) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= least]


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Service]:
    """A service with the scripted engine."""
    given = Settings(engine="scripted", **settings)
    service = Service(given, choose_engine(given))
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def test_preload_of_engine_that_does_not_fit_in_memory_is_logged_and_service_starts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(self: object, precision: Precision) -> LoadPlan:
        raise errors.WontFit(TOO_LARGE)

    monkeypatch.setattr(EngineMemory, "place", place)
    async with opened(preload=True):
        await until(lambda: lines(caplog))
        gc.collect()
    (line,) = lines(caplog)
    assert TOO_LARGE in line
    assert "first request" in line


async def test_failed_background_task_is_logged_with_its_cause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go_on(self: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(gpu_devices.GpuMonitor, "go_on", go_on)
    async with opened():
        await until(lambda: lines(caplog))
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "query of the GPU" in record.message
    assert record.exc_info is not None
    assert "nobody thought of this" in str(record.exc_info[1])
