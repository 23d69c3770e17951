"""Memory is planned with on the GPU that torch will use, whatever the environment hides."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import gather_facts
from sidecar.gpu_memory.gpu_devices import GpuDevice, first_visible, read_gpu_memory
from sidecar.workers.worker_process import WorkerProcess

GIB = 1 << 30
WHOLE, OTHER = GpuDevice(("GPU-8932f937-1",)), GpuDevice(("GPU-8931aaaa-2",))
SLICES = (
    GpuDevice(("MIG-11110000-1", "MIG-GPU-77770000-3/1/0")),
    GpuDevice(("MIG-11220000-2", "MIG-GPU-77770000-3/2/0")),
)
CUT = GpuDevice(("GPU-77770000-3",), slices=SLICES)
CARDS = (WHOLE, OTHER, CUT)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        (None, WHOLE),
        ("0", WHOLE),
        ("1", OTHER),
        ("1,0", OTHER),
        (" 1 , 0", OTHER),
        ("2", SLICES[0]),
        ("3", None),
        ("3,0", None),
        ("-1", None),
        ("-1,0", None),
        ("", None),
        (" ", None),
        ("NoDevFiles", None),
        ("GPU-8932f937-1", WHOLE),
        ("GPU-8931", OTHER),
        ("GPU-893", None),  # two of them
        ("GPU-9", None),
        ("GPU-7777", SLICES[0]),
        ("MIG-11110000-1", SLICES[0]),
        ("MIG-1122", SLICES[1]),
        ("MIG-11", None),
        ("MIG-GPU-77770000-3/2/0", SLICES[1]),
    ],
    ids=repr,
)
def test_the_device_is_the_one_that_the_environment_means(
    wanted: str | None, device: GpuDevice | None
) -> None:
    assert first_visible(CARDS, wanted) is device


def test_where_there_is_no_gpu_none_is_visible() -> None:
    assert first_visible((), None) is None
    assert first_visible((), "0") is None


class NvmlError(Exception):
    pass


def nvml() -> SimpleNamespace:
    """Two GPUs: one that somebody fills, one that is cut into halves of different load."""
    used = {"full": 70, "cut": 30, "half": 2, "other half": 28}
    total = {"full": 80, "cut": 80, "half": 40, "other half": 40}
    halves = ["half", "other half"]

    def half(card: str, number: int) -> str:
        if number >= len(halves):
            raise NvmlError("nothing at this place")
        return halves[number]

    def memory(handle: str) -> SimpleNamespace:
        return SimpleNamespace(used=used[handle] * GIB, total=total[handle] * GIB)

    def of_a_card(value: Any) -> Any:
        def answer(handle: str, *_: Any) -> Any:
            if handle in halves:
                raise NvmlError("not of a slice")
            return value

        return answer

    names = {"full": "GPU-a", "cut": "GPU-b", "half": "MIG-c", "other half": "MIG-d"}
    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_MEM=2,
        NVML_DEVICE_MIG_ENABLE=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=["full", "cut"].__getitem__,
        nvmlDeviceGetUUID=names.__getitem__,
        nvmlDeviceGetMigMode=lambda handle: (int(handle == "cut"), 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=half,
        nvmlDeviceGetGpuInstanceId=halves.index,
        nvmlDeviceGetComputeInstanceId=lambda handle: 0,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetName=str,
        nvmlDeviceGetCudaComputeCapability=of_a_card((9, 0)),
        nvmlDeviceGetMaxClockInfo=of_a_card(1000),
        nvmlDeviceGetMemoryBusWidth=of_a_card(256),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [],
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40, memory=10),
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
    )


@pytest.mark.parametrize(
    ("visible", "name", "free_gib", "bandwidth"),
    [
        (None, "full", 10, 64e9),
        ("0", "full", 10, 64e9),
        ("GPU-a", "full", 10, 64e9),
        ("1", "half", 38, 32e9),
        ("GPU-b", "half", 38, 32e9),
        ("MIG-d", "other half", 12, 32e9),
        ("MIG-GPU-b/1/0", "other half", 12, 32e9),
    ],
    ids=str,
)
def test_memory_is_that_of_the_visible_device(
    visible: str | None,
    name: str,
    free_gib: int,
    bandwidth: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = read_gpu_memory()
    assert gpu is not None
    assert (gpu.name, gpu.free_bytes, gpu.bandwidth) == (name, free_gib * GIB, bandwidth)
    assert gpu.bf16


@pytest.mark.parametrize("visible", ["", "-1", "2", "GPU-nobody"])
def test_a_gpu_that_is_hidden_is_none_and_auto_does_not_count_on_it(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    assert read_gpu_memory() is None
    assert gather_facts(Settings()).gpu is None


def test_a_gpu_that_its_driver_refuses_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = nvml()
    uuid = driver.nvmlDeviceGetUUID

    def lost(handle: str) -> str:
        if handle == "full":
            raise NvmlError("fell off the bus")
        return str(uuid(handle))

    driver.nvmlDeviceGetUUID = lost
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    found = {}
    for number in "01":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", number)
        gpu = read_gpu_memory()
        found[number] = gpu and gpu.name
    assert found == {"0": None, "1": "half"}


@pytest.mark.usefixtures("fresh_workers")
async def test_workers_count_gpus_as_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worker = WorkerProcess("intake")
    try:
        environment = psutil.Process(worker.pid).environ()
    finally:
        await worker.close()
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
