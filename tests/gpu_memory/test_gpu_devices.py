"""What a GPU's driver says of the GPU that torch will use, and what follows for the jobs."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from instrumented_slot import job_of
from many_cases import parametrize_by_name
from released_vibevoice_config import TEXT
from service_process import PATIENCE_S, new_file, until

from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice, gather_facts, spec_on_device
from sidecar.gpu_memory import gpu_devices
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import VIBEVOICE_7B_SHAPE
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_runner import Job
from sidecar.workers.engine_lease import EXCLUSIVE
from sidecar.workers.engine_memory import MemoryDevices
from sidecar.workers.role_engine import RoleEngine
from sidecar.workers.worker_process import WorkerProcess

GIB = 1 << 30
WHO = "files"


class Driver:
    """Says what it is told to, one thing after the other; the last again and again."""

    def __init__(self, *says: gpu_devices.GpuMemory | None) -> None:
        self.says = list(says)
        self.asked = 0

    def __call__(self) -> gpu_devices.GpuMemory | None:
        self.asked += 1
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]


def card(used_gib: float, processes: dict[int, int] | None = None) -> gpu_devices.GpuMemory:
    used, known = round(used_gib * 1024), processes or {}
    return gpu_devices.GpuMemory(
        "a card", used, 48 << 10, processes=known, busy=40, memory_busy=10, celsius=61
    )


def watch(
    driver: Callable[[], gpu_devices.GpuMemory | None],
    engine: gpu_devices.EngineMemoryHolding | None = None,
    **times: float,
) -> gpu_devices.GpuMonitor:
    gpu = gpu_devices.GpuMonitor(driver, gpu_devices.GpuQueryTimes(**times))
    if engine is not None:
        gpu.ledger.register_engine(WHO, lambda: engine)
    return gpu


async def test_silent_gpu_driver_is_queried_again_warned_of_once_and_its_last_values_hold(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(card(1), None, None, None, card(5))
    believed: list[gpu_devices.GpuMemory | None] = []

    def asked() -> gpu_devices.GpuMemory | None:
        believed.append(gpu.seen)
        return driver()

    often = {"interval_s": 0.001, "silent_interval_s": 0.001}
    gpu = watch(asked, gpu_devices.EngineMemoryHolding(), **often)
    with caplog.at_level(logging.INFO, gpu_devices.__name__):
        going_on = asyncio.ensure_future(gpu.go_on())
        await until(lambda: gpu.seen == card(5))
        going_on.cancel()
    assert believed[:5] == [None, *[card(1)] * 4], "what it said last"
    assert gpu.ledger.strangers_bytes == 5 * GIB
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_query_whose_gpu_driver_raises_an_error_finds_no_gpu_and_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def driver() -> gpu_devices.GpuMemory | None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a name that is none")

    monkeypatch.setattr(gpu_devices, "read_gpu_memory", driver)
    assert gpu_devices.query_gpu() is None
    assert "cannot be queried" in caplog.text


def test_free_host_memory_is_the_last_known_one_if_no_file_descriptor_is_left() -> None:
    resource = pytest.importorskip("resource")
    host = gpu_devices.HostMemoryMonitor()
    before = host.free_bytes(WHO)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        now = host.free_bytes(WHO)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert now == before > 0


async def test_gpu_monitor_without_a_gpu_stops_after_one_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(None)
    gpu = watch(driver)
    await gpu.go_on()
    assert (driver.asked, gpu.seen, gpu.own_bytes(WHO)) == (1, None, 0)
    assert not caplog.records


async def test_hanging_gpu_driver_blocks_only_one_thread_and_its_late_answer_is_taken() -> None:
    answers = threading.Event()
    asked: list[int] = []

    def hang() -> gpu_devices.GpuMemory | None:
        asked.append(1)
        answers.wait(PATIENCE_S)
        return card(7)

    gpu = watch(hang, gpu_devices.EngineMemoryHolding(), timeout_s=0.01)
    try:
        for _ in range(5):
            await gpu.query()
        assert (len(asked), gpu.seen) == (1, None)
    finally:
        answers.set()
    await until(lambda: gpu.seen == card(7))


async def test_engine_that_starts_during_query_is_not_counted_as_other_process() -> None:
    """20 GiB are there all of a sudden: by the time they are seen, they are the engine's."""
    engine = [gpu_devices.EngineMemoryHolding()]

    def driver() -> gpu_devices.GpuMemory:
        engine[0] = gpu_devices.EngineMemoryHolding(7, 17 * GIB)
        return card(21)

    gpu = gpu_devices.GpuMonitor(driver)
    gpu.ledger.register_engine(WHO, lambda: engine[0])
    await gpu.query()
    assert (gpu.seen, gpu.ledger.strangers_bytes, gpu.own_bytes(WHO)) == (card(21), 0, 21 * GIB)


class NvmlError(Exception):
    pass


class NotSupported(NvmlError):
    pass


def two_cards(broken: str | None = None) -> SimpleNamespace:
    """A `pynvml` of two GPUs: one that somebody fills, one that is cut into halves of different
    load. The call that is named fails."""
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

    def fails(*_: Any) -> Any:
        raise NvmlError(broken)

    processes = [
        SimpleNamespace(pid=7, usedGpuMemory=3 * GIB),
        SimpleNamespace(pid=8, usedGpuMemory=None),  # as on Windows
    ]
    calls: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": ["full", "cut"].__getitem__,
        "nvmlDeviceGetUUID": names.__getitem__,
        "nvmlDeviceGetMigMode": lambda handle: (int(handle == "cut"), 0),
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": half,
        "nvmlDeviceGetGpuInstanceId": halves.index,
        "nvmlDeviceGetComputeInstanceId": lambda handle: 0,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetName": str,
        "nvmlDeviceGetCudaComputeCapability": of_a_card((9, 0)),
        "nvmlDeviceGetMaxClockInfo": of_a_card(1000),
        "nvmlDeviceGetMemoryBusWidth": of_a_card(256),
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: processes,
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=40, memory=10),
        "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
    }
    return SimpleNamespace(
        NVMLError=NvmlError,
        NVMLError_NotSupported=NotSupported,
        NVML_CLOCK_MEM=2,
        NVML_DEVICE_MIG_ENABLE=1,
        NVML_TEMPERATURE_GPU=0,
        **(calls | ({broken: fails} if broken else {})),
    )


FULL = replace(card(70, {7: 3 * GIB}), name="full", total_mb=80 << 10, bandwidth=64e9, bf16=True)


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (None, FULL),
        ("nvmlDeviceGetComputeRunningProcesses", replace(FULL, processes={})),
        ("nvmlDeviceGetUtilizationRates", replace(FULL, busy=None, memory_busy=None)),
        ("nvmlDeviceGetTemperature", replace(FULL, celsius=None)),
        ("nvmlDeviceGetMigMode", FULL),
        ("nvmlShutdown", FULL),
        ("nvmlInit", None),
        ("nvmlDeviceGetCount", None),
        ("nvmlDeviceGetUUID", None),
        ("nvmlDeviceGetMemoryInfo", None),
    ],
)
def test_failed_call_of_the_gpu_driver_leaves_out_its_values_and_an_essential_one_the_gpu(
    broken: str | None, seen: gpu_devices.GpuMemory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", two_cards(broken))
    assert gpu_devices.read_gpu_memory() == seen


@pytest.mark.parametrize(
    ("bf16", "free_gib", "wanted"),
    [(True, 45, Precision.BF16), (False, 45, Precision.FP16), (False, 10, Precision.INT4)],
)
def test_gpu_without_bf16_computes_in_fp16_where_others_take_bf16(
    bf16: bool, free_gib: int, wanted: Precision
) -> None:
    gpu = replace(card(48 - free_gib), bf16=bf16)
    spec = spec_on_device(engine_spec("vibevoice"), gpu)
    plain = Precision.BF16 if bf16 else Precision.FP16
    assert {spec.resolve_precision(one) for one in (Precision.BF16, Precision.FP16)} == {plain}
    admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, spec.precisions, None)
    assert admission.first_precision(MemoryState(gpu.free_bytes, None, on_gpu=True)) is wanted


def test_gpu_that_shares_the_memory_of_the_host_has_total_and_free_memory_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(handle: str) -> None:
        raise NotSupported("[N/A]")

    driver = two_cards()
    driver.nvmlDeviceGetMemoryInfo = refused
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    host = SimpleNamespace(total=128 * GIB, available=100 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: host)
    seen = gpu_devices.read_gpu_memory()
    assert seen is not None
    assert (seen.used_mb, seen.total_mb, seen.free_bytes) == (28 << 10, 128 << 10, 100 * GIB)


@pytest.mark.parametrize(
    ("tells", "first", "then", "left"),
    [
        pytest.param(True, 1, 13, 35, id="others-come"),
        pytest.param(True, 13, 1, 47, id="others-leave"),
        pytest.param(False, 13, 1, 46, id="others-leave-without-driver-report"),
        pytest.param(False, 1, 1, 47, id="nothing-changes-without-driver-report"),
    ],
)
async def test_job_is_planned_with_memory_that_is_free_at_its_start(
    tells: bool, first: int, then: int, left: int, voice: bytes, tmp_path: Path
) -> None:
    """The scripted engine with the real one's weights: 34 of 48 GiB. Nobody looks but jobs."""
    held, others, host = 34, first, None

    def driver() -> gpu_devices.GpuMemory:
        pid = host.worker_pid if host else None
        processes = {pid: held * GIB} if pid and tells else {}
        return card(others + (held if pid else 0), processes)

    path = new_file(tmp_path / "voice.wav", voice)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    settings = Settings(precision="fp32", batch=1, data_dir=tmp_path)
    planned = replace(engine_spec("scripted"), planned=True)
    choice = EngineChoice(planned, "", checkpoint)
    devices = MemoryDevices(gpu_devices.GpuMonitor(driver))
    host = RoleEngine(WHO, settings, choice, devices, EXCLUSIVE)
    engine = JobEngine(settings, host)

    async def plan(job: Job, precision: Precision) -> TranscribeOptions:
        return engine.plan(job.record.options, job.record.audio_info.total_s, precision)

    queue = engine.queue(JobEventLog(), plan)
    queue.open()

    async def available_gib() -> float:
        job = job_of(path)
        await queue.submit(job)
        await job.result()
        return (engine.forecast(60.0, TranscribeOptions()).available_bytes or 0) / GIB

    try:
        assert await available_gib() == 48 - first
        others = then
        assert await available_gib() == pytest.approx(left, abs=0 if tells else 1)
    finally:
        await queue.close()
        await host.close()


FILES, LIVE = "files", "live"
CARD_GIB = 24


def ledger(reserved: Mapping[str, int]) -> gpu_devices.DeviceLedger:
    one = gpu_devices.DeviceLedger()
    for who, size in reserved.items():
        one.reserve(who, size)
    return one


def there(weights: int, pid: int) -> gpu_devices.EngineMemoryHolding:
    return gpu_devices.EngineMemoryHolding(pid, weights)


COMING = gpu_devices.EngineMemoryHolding(coming=True)
NOBODY = gpu_devices.EngineMemoryHolding()
ALONE = {LIVE: there(6, 2)}
BOTH = {FILES: there(5, 1), **ALONE}
BESIDE_COMING = {**BOTH, LIVE: COMING}


@parametrize_by_name(
    "reserved, holdings, used, processes, free, own",
    {
        "other-processes-only": ({}, {}, 3, {}, 21, 0),
        "live-engine-reserved": ({LIVE: 6}, {LIVE: NOBODY}, 1, {}, 17, 0),
        "live-engine-loaded": ({LIVE: 6}, ALONE, 7, {2: 6}, 17, 0),
        "live-engine-will-grow": ({LIVE: 9}, ALONE, 7, {2: 6}, 14, 0),
        "live-engine-above-reservation": ({LIVE: 6}, ALONE, 9, {2: 8}, 15, 0),
        "live-engine-without-driver-report": ({LIVE: 6}, ALONE, 7, {}, 17, 0),
        "both-engines-loaded": ({FILES: 9, LIVE: 6}, BOTH, 12, {1: 5, 2: 6}, 12, 5),
        "both-engines-without-driver-report": ({FILES: 9, LIVE: 8}, BOTH, 12, {}, 10, 5),
        "live-engine-loading": ({FILES: 9, LIVE: 8}, BESIDE_COMING, 9, {1: 5}, 7, 8),
        "live-reservation-beyond-free-memory": (
            *({FILES: 9, LIVE: 20}, {**BOTH, FILES: there(9, 1)}, 16, {1: 9, 2: 6}, -6, 9),
        ),
    },
)
def test_memory_for_the_file_engine_excludes_live_reservations_and_other_processes(
    reserved: Mapping[str, int],
    holdings: Mapping[str, gpu_devices.EngineMemoryHolding],
    used: int,
    processes: Mapping[int, int],
    free: int,
    own: int,
) -> None:
    """In GiB of 24; of the first look strangers take 1 (3 where nobody else is there)."""
    one = ledger(reserved)
    one.see({}, 3 if not holdings else 1, {})
    one.see(holdings, used, processes)
    assert (CARD_GIB - used - one.committed_bytes(FILES), one.own_bytes(FILES, used)) == (free, own)


WHOLE, OTHER = (
    gpu_devices.GpuDevice(("GPU-8932f937-1",)),
    gpu_devices.GpuDevice(("GPU-8931aaaa-2",)),
)
SLICES = (
    gpu_devices.GpuDevice(("MIG-11110000-1", "MIG-GPU-77770000-3/1/0")),
    gpu_devices.GpuDevice(("MIG-11220000-2", "MIG-GPU-77770000-3/2/0")),
)
CUT = gpu_devices.GpuDevice(("GPU-77770000-3",), slices=SLICES)
CARDS = (WHOLE, OTHER, CUT)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        *((wanted, WHOLE) for wanted in (None, "0", "GPU-8932f937-1")),
        *((wanted, OTHER) for wanted in ("1", "1,0", " 1 , 0", "GPU-8931")),
        *((wanted, SLICES[0]) for wanted in ("2", "GPU-7777", "MIG-11110000-1")),
        *((wanted, SLICES[1]) for wanted in ("MIG-1122", "MIG-GPU-77770000-3/2/0")),
        *((wanted, None) for wanted in ("3", "3,0", "-1", "-1,0", "", " ", "NoDevFiles", "GPU-9")),
        *((two_of_them, None) for two_of_them in ("GPU-893", "MIG-11")),
    ],
    ids=repr,
)
def test_visible_device_is_the_first_of_cuda_visible_devices_or_none_if_that_is_unknown(
    wanted: str | None, device: gpu_devices.GpuDevice | None
) -> None:
    assert gpu_devices.first_visible(CARDS, wanted) is device


def test_first_visible_device_without_gpu_is_none_even_if_cuda_visible_devices_names_one() -> None:
    assert gpu_devices.first_visible((), None) is None
    assert gpu_devices.first_visible((), "0") is None


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
def test_gpu_memory_read_is_that_of_the_visible_device(
    visible: str | None, name: str, free_gib: int, bandwidth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", two_cards())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = gpu_devices.read_gpu_memory()
    assert gpu is not None
    assert (gpu.name, gpu.free_bytes, gpu.bandwidth) == (name, free_gib * GIB, bandwidth)
    assert gpu.bf16


@pytest.mark.parametrize("visible", ["", "-1", "2", "GPU-nobody"])
def test_gpu_hidden_by_cuda_visible_devices_counts_as_no_gpu(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", two_cards())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    assert gpu_devices.read_gpu_memory() is None
    assert gather_facts(Settings()).gpu is None


def test_gpu_that_the_driver_lost_keeps_its_index_in_cuda_visible_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = two_cards()
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
        gpu = gpu_devices.read_gpu_memory()
        found[number] = gpu and gpu.name
    assert found == {"0": None, "1": "half"}


@pytest.mark.usefixtures("fresh_workers")
async def test_workers_get_gpus_in_pci_bus_order_and_the_cuda_visible_devices_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worker = WorkerProcess("audio_probe")
    try:
        environment = psutil.Process(worker.pid).environ()
    finally:
        await worker.close()
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
