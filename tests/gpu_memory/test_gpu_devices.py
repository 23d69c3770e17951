"""What a GPU's driver says, and what follows for the jobs: a driver made up, the service real."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from released_vibevoice_config import TEXT
from service_process import PATIENCE_S, until

from sidecar.audio.audio_source import open_recording_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory import gpu_devices
from sidecar.gpu_memory.gpu_devices import (
    EngineMemoryHolding,
    GpuMemory,
    GpuMonitor,
    read_gpu_memory,
)
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.service.facade import Service

GIB = 1 << 30
WHO = "files"


class Driver:
    """Says what it is told to, one thing after the other; the last again and again."""

    def __init__(self, *says: GpuMemory | None) -> None:
        self.says = list(says)
        self.asked = 0

    def __call__(self) -> GpuMemory | None:
        self.asked += 1
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]


def card(used_gib: float, processes: dict[int, int] | None = None) -> GpuMemory:
    used, known = round(used_gib * 1024), processes or {}
    return GpuMemory("a card", used, 48 << 10, processes=known, busy=40, memory_busy=10, celsius=61)


CARD = card(4, {7: 3 * GIB})


def watch(
    driver: Callable[[], GpuMemory | None], engine: EngineMemoryHolding | None = None
) -> GpuMonitor:
    gpu = GpuMonitor(driver)
    if engine is not None:
        gpu.ledger.register_engine(WHO, lambda: engine)
    return gpu


async def test_a_driver_that_falls_silent_is_asked_again_and_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu_devices, "GPU_POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr(gpu_devices, "SILENT_GPU_POLL_INTERVAL_S", 0.001)
    driver = Driver(card(1), None, None, None, card(5))
    believed: list[GpuMemory | None] = []

    def asked() -> GpuMemory | None:
        believed.append(gpu.seen)
        return driver()

    gpu = watch(asked, EngineMemoryHolding())
    with caplog.at_level(logging.INFO, gpu_devices.__name__):
        going_on = asyncio.ensure_future(gpu.go_on())
        await until(lambda: gpu.seen == card(5))
        going_on.cancel()
    assert believed[:5] == [None, *[card(1)] * 4], "what it said last"
    assert gpu.ledger.strangers_bytes == 5 * GIB
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_where_there_is_no_gpu_nobody_goes_on_looking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(None)
    gpu = watch(driver)
    async with asyncio.timeout(PATIENCE_S):
        await gpu.go_on()
    assert (driver.asked, gpu.seen, gpu.own_bytes(WHO)) == (1, None, 0)
    assert not caplog.records


async def test_a_driver_that_hangs_holds_up_nobody_and_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_devices, "DRIVER_TIMEOUT_S", 0.01)
    answers = threading.Event()
    asked: list[int] = []

    def hang() -> GpuMemory | None:
        asked.append(1)
        answers.wait(PATIENCE_S)
        return card(7)

    gpu = watch(hang, EngineMemoryHolding())
    try:
        for _ in range(5):
            await gpu.look()
        assert (len(asked), gpu.seen) == (1, None)
    finally:
        answers.set()
    await until(lambda: gpu.seen == card(7))


async def test_an_engine_that_comes_while_somebody_looks_is_not_taken_for_others() -> None:
    """20 GiB are there all of a sudden: by the time they are seen, they are the engine's."""
    engine = [EngineMemoryHolding()]

    def driver() -> GpuMemory:
        engine[0] = EngineMemoryHolding(7, 17 * GIB)
        return card(21)

    gpu = GpuMonitor(driver)
    gpu.ledger.register_engine(WHO, lambda: engine[0])
    await gpu.look()
    assert (gpu.seen, gpu.ledger.strangers_bytes, gpu.own_bytes(WHO)) == (card(21), 0, 21 * GIB)


class NvmlError(Exception):
    pass


def nvml(**broken: bool) -> SimpleNamespace:
    """A `pynvml` of one card; calls that are named fail."""

    def call(name: str, value: Any) -> Callable[..., Any]:
        def answer(*_: Any) -> Any:
            if broken.get(name):
                raise NvmlError(name)
            return value

        return answer

    running = [
        SimpleNamespace(pid=7, usedGpuMemory=3 * GIB),
        SimpleNamespace(pid=8, usedGpuMemory=None),  # as on Windows
    ]
    values = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetUUID": "GPU-a",
        "nvmlDeviceGetMigMode": (0, 0),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=4 * GIB, total=48 * GIB),
        "nvmlDeviceGetName": "a card",
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlDeviceGetMaxClockInfo": 1000,
        "nvmlDeviceGetMemoryBusWidth": 256,
        "nvmlDeviceGetComputeRunningProcesses": running,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40, memory=10),
        "nvmlDeviceGetTemperature": 61,
    }
    calls = {name: call(name, value) for name, value in values.items()}
    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_MEM=2,
        NVML_DEVICE_MIG_ENABLE=1,
        NVML_TEMPERATURE_GPU=0,
        **calls,
    )


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (None, CARD),
        ("nvmlDeviceGetComputeRunningProcesses", replace(CARD, processes={})),
        ("nvmlDeviceGetUtilizationRates", replace(CARD, busy=None, memory_busy=None)),
        ("nvmlDeviceGetTemperature", replace(CARD, celsius=None)),
        ("nvmlDeviceGetMigMode", CARD),
        ("nvmlShutdown", CARD),
        ("nvmlInit", None),
        ("nvmlDeviceGetCount", None),
        ("nvmlDeviceGetUUID", None),
        ("nvmlDeviceGetMemoryInfo", None),
    ],
)
def test_what_a_driver_does_not_say_is_left_out(
    broken: str | None, seen: GpuMemory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**({broken: True} if broken else {})))
    found = read_gpu_memory()
    assert found == (seen and replace(seen, bandwidth=64e9, bf16=True))


@pytest.mark.parametrize(
    ("tells", "first", "then", "left"),
    [
        pytest.param(True, 1, 13, 35, id="others-come"),
        pytest.param(True, 13, 1, 47, id="others-leave"),
        pytest.param(False, 13, 1, 46, id="others-leave-as-far-as-can-be-told"),
        pytest.param(False, 1, 1, 47, id="nothing-changes"),
    ],
)
async def test_each_job_is_planned_by_what_others_leave_when_it_begins(
    tells: bool,
    first: int,
    then: int,
    left: int,
    voice: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scripted engine with the real one's weights: 34 of 48 GiB. Nobody looks but jobs."""
    held, others, service = 34, first, None

    def driver() -> GpuMemory:
        pid = service.health().files.worker_pid if service else None
        processes = {pid: held * GIB} if pid and tells else {}
        return card(others + (held if pid else 0), processes)

    monkeypatch.setattr(gpu_devices, "read_gpu_memory", driver)
    monkeypatch.setattr(gpu_devices, "GPU_POLL_INTERVAL_S", 3600.0)
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    settings = Settings(precision="fp32", preload=False)
    planned = replace(engine_spec("scripted"), planned=True)
    service = Service(settings, EngineChoice(planned, "", checkpoint))
    await service.open()

    async def available_gib() -> float:
        job = await service.submissions.submit(
            ANONYMOUS, open_recording_file(str(path)), TranscribeOptions()
        )
        await job.result()
        return (service.forecast(60.0, TranscribeOptions()).available_bytes or 0) / GIB

    try:
        assert await available_gib() == 48 - first
        others = then
        assert await available_gib() == pytest.approx(left, abs=0 if tells else 1)
    finally:
        await service.close()
