"""GPU devices by NVML (else by torch), CUDA_VISIBLE_DEVICES, and the ledger of a device's memory.

Several engines of this service may share one card. The driver reports what each has allocated. The
ledger has what each has reserved, so that the plans of other engines leave that free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sidecar.concurrency import ThreadLimiter, cancel_after
from sidecar.gpu_memory.host_memory import HostMemory, read_host_memory
from sidecar.gpu_memory.torch_devices import read_torch_gpu

Result = TypeVar("Result")
VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Variable with the numbers or names of the GPUs that a process may use, in order; empty: none."""
DEVICE_ORDER_ENV = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Variable that makes CUDA number the GPUs as the driver does; CUDA's default: fastest first."""

log = logging.getLogger(__name__)
GPU_POLL_INTERVAL_S = 2.0
"""Interval of GPU queries."""
SILENT_GPU_POLL_INTERVAL_S = 10.0
"""Interval of GPU queries while the driver does not answer."""
DRIVER_TIMEOUT_S = 1.0
"""Maximum time that a job waits for a query; usually a query takes milliseconds."""


@dataclass(frozen=True, slots=True)
class GpuQueryTimes:
    """Times of a `GpuMonitor` in seconds: the intervals of queries, and of those while the driver
    does not answer, and the timeout of a query."""

    interval_s: float = GPU_POLL_INTERVAL_S
    silent_interval_s: float = SILENT_GPU_POLL_INTERVAL_S
    timeout_s: float = DRIVER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """A GPU, or a slice of one (MIG), with its names and the driver's handles.

    ``handle``: its own handle, `None` if the driver refuses access. ``card``: the handle of the
    whole GPU. ``slices``: its MIG slices; if there are any, only they can be used.
    """

    names: tuple[str, ...]
    handle: Any = None
    card: Any = None
    slices: tuple[GpuDevice, ...] = ()


def first_visible(gpu_devices: Sequence[GpuDevice], wanted: str | None) -> GpuDevice | None:
    """Return the device that becomes ``cuda:0``, or `None`.

    ``gpu_devices`` are in the order of the PCI bus. ``wanted`` is the value of
    `VISIBLE_DEVICES_VARIABLE` (`None`: not set): a number, a name, or the unique beginning of a
    name. CUDA reads up to the first invalid entry, so only the first entry matters here.
    """
    if wanted is None:
        return _usable(gpu_devices[0]) if gpu_devices else None
    word = wanted.split(",")[0].strip()
    if word.isdecimal():
        return _usable(gpu_devices[int(word)]) if int(word) < len(gpu_devices) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    devices = [device for card in gpu_devices for device in (card, *card.slices)]
    named = [each for each in devices if any(name.startswith(word) for name in each.names)]
    return _usable(named[0]) if len(named) == 1 else None


def _usable(device: GpuDevice) -> GpuDevice:
    """Return the device that CUDA uses: the first slice of a GPU that has slices."""
    return device.slices[0] if device.slices else device


@dataclass(frozen=True, slots=True)
class EngineMemoryHolding:
    """Worker process of an engine and the bytes of its weights; ``pid`` is `None` if there is none.

    ``coming``: a new engine is being loaded, and how much of it is loaded is not known.
    """

    pid: int | None = None
    weights_bytes: int = 0
    coming: bool = False


class DeviceLedger:
    """Ledger of the memory of one card, or of the host, that named engines share.

    An engine may use the free memory and what it holds itself, without what others have reserved.
    If an engine is unloaded, its owner calls `release`.
    """

    def __init__(self) -> None:
        self.strangers_bytes = 0
        """Bytes of other programs at the last query."""
        self._engines: dict[str, Callable[[], EngineMemoryHolding]] = {}
        self._reserved: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def register_engine(self, who: str, holding: Callable[[], EngineMemoryHolding]) -> None:
        """Add an engine that may use this memory; ``holding`` returns what it holds."""
        self._engines[who] = holding

    def holdings(self) -> dict[str, EngineMemoryHolding]:
        """Return what each engine holds now."""
        return {who: holding() for who, holding in self._engines.items()}

    def reserve(self, who: str, size: int) -> None:
        """Reserve ``size`` bytes in all for ``who``, in place of its earlier reservation."""
        self._reserved[who] = size

    def release(self, who: str) -> None:
        """Delete the reservation of an engine that is unloaded."""
        self._reserved.pop(who, None)

    def reserved_bytes(self, who: str) -> int:
        """Return the bytes that ``who`` has reserved in all."""
        return self._reserved.get(who, 0)

    def see(
        self,
        holdings: Mapping[str, EngineMemoryHolding],
        used_bytes: int,
        processes: Mapping[int, int],
    ) -> None:
        """Update the ledger by a query: ``used_bytes`` of all, and bytes by process id."""
        present = {who: one for who, one in holdings.items() if one.pid is not None or one.coming}
        self._taken = {who: _held_bytes(one, processes) for who, one in present.items()}
        if not any(one.coming for one in present.values()):  # else keep the last value
            before = self.strangers_bytes
            self.strangers_bytes = other_processes_bytes(before, used_bytes, processes, present)

    def committed_bytes(self, who: str) -> int:
        """Return the bytes that other engines have reserved but had not allocated at the last
        query."""
        others = (one for one in self._reserved if one != who)
        return sum(max(0, self._reserved[one] - self._taken.get(one, 0)) for one in others)

    def own_bytes(self, who: str, used_bytes: int) -> int:
        """Return the bytes of ``used_bytes`` that ``who`` had at the last query."""
        if who not in self._taken:
            return 0
        others = sum(taken for one, taken in self._taken.items() if one != who)
        return max(0, used_bytes - self.strangers_bytes - others)


def _held_bytes(holding: EngineMemoryHolding, processes: Mapping[int, int]) -> int:
    """Return the bytes of an engine by the driver; if it reports none, those of the weights."""
    if holding.pid is None:
        return 0
    return processes.get(holding.pid, holding.weights_bytes)


def other_processes_bytes(
    before: int,
    used_bytes: int,
    processes: Mapping[int, int],
    holdings: Mapping[str, EngineMemoryHolding],
) -> int:
    """Return the bytes of a device that processes other than our engines use.

    If the driver does not report the memory of one of our engines, return ``before``. The result is
    less if that leaves too little for the weights.
    """
    here = [one for one in holdings.values() if one.pid is not None]
    rest = max(0, used_bytes - sum(_held_bytes(one, processes) for one in here))
    told = all(one.pid in processes for one in here if one.weights_bytes)
    return rest if told else min(before, rest)


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory, features and utilization of the GPU in use; `None`: the driver does not report it.

    ``bandwidth``: of its memory, in bytes per second. ``bf16``: whether it computes in that type
    (compute capability 8.0 and later). ``processes``: bytes by process id; the driver reports none
    on Windows, and in a container the ids may differ. ``busy`` and ``memory_busy``: percent of the
    recent time. ``celsius``: temperature. ``by_torch``: NVML does not know it, and only torch
    computes on it.
    """

    name: str
    used_mb: int
    total_mb: int
    bandwidth: float | None = None
    bf16: bool = True
    processes: Mapping[int, int] = field(default_factory=dict)
    busy: int | None = None
    memory_busy: int | None = None
    celsius: int | None = None
    by_torch: bool = False

    @property
    def used_bytes(self) -> int:
        """Return the bytes that all processes and the driver use."""
        return self.used_mb << 20

    @property
    def total_bytes(self) -> int:
        """Return the bytes that it has in all."""
        return self.total_mb << 20

    @property
    def free_bytes(self) -> int:
        """Return the bytes that are free."""
        return self.total_mb - self.used_mb << 20


class GpuMonitor:
    """State of the GPU at the last query, and the ledger of its memory.

    ``read_memory`` queries the driver.
    """

    def __init__(
        self,
        read_memory: Callable[[], GpuMemory | None] | None = None,
        times: GpuQueryTimes = GpuQueryTimes(),
    ) -> None:
        self.seen: GpuMemory | None = None
        self.ledger = DeviceLedger()
        self._read_memory, self._times = read_memory or query_gpu, times
        self._query_task: asyncio.Task[None] | None = None
        self._silent = False
        self._thread = ThreadLimiter("gpu", 1)

    def free_bytes(self, who: str) -> int:
        """Return the bytes that are free and not reserved by another engine of this service.

        The result is negative if an engine has to free memory first.
        """
        return self.seen.free_bytes - self.ledger.committed_bytes(who) if self.seen else 0

    def own_bytes(self, who: str) -> int:
        """Return the bytes that an engine uses in all."""
        return self.ledger.own_bytes(who, self.seen.used_bytes) if self.seen else 0

    def begin(self) -> None:
        """Query the GPU for the first time, before any engine is loaded; wait for the driver."""
        if self.seen is None:
            self._take_in(self._read_memory(), {})

    async def query(self) -> None:
        """Query the GPU; if the driver takes too long, keep the last values."""
        if self._query_task is None or self._query_task.done():
            self._query_task = asyncio.get_running_loop().create_task(self._query())
        await cancel_after(self._times.timeout_s, asyncio.shield(self._query_task))

    async def go_on(self) -> None:
        """Query the GPU every few seconds; return if there is no GPU."""
        try:
            await self.query()
            while self.seen is not None or (self._query_task and not self._query_task.done()):
                times = self._times
                await asyncio.sleep(times.silent_interval_s if self._silent else times.interval_s)
                await self.query()
        finally:
            if self._query_task is not None:
                self._query_task.cancel()

    async def _query(self) -> None:
        before = self.ledger.holdings()
        gpu = await self._thread.run(self._read_memory)
        holdings = self.ledger.holdings()
        for who, one in holdings.items():
            if one != before.get(who):  # it changed during the query
                holdings[who] = replace(one, coming=True)
        self._take_in(gpu, holdings)

    def _take_in(self, gpu: GpuMemory | None, holdings: Mapping[str, EngineMemoryHolding]) -> None:
        """Store the result of a query; if the driver did not answer, keep the last values."""
        if gpu is None:
            if self.seen is not None and not self._silent:
                log.warning(
                    "the GPU driver does not answer; its last values stay in use; check nvidia-smi "
                    "(AMD: rocm-smi)"
                )
                self._silent = True
            return
        if self._silent:
            log.info("the GPU driver answers again")
            self._silent = False
        self.seen = gpu
        self.ledger.see(holdings, gpu.used_bytes, gpu.processes)


class HostMemoryMonitor:
    """Free memory of the host, and the ledger of it."""

    def __init__(self) -> None:
        self.ledger = DeviceLedger()
        self._memory: HostMemory | None = None

    @property
    def total_bytes(self) -> int | None:
        """Return the bytes that this process could have in all, at the last look; None if there was
        none yet."""
        return self._memory.total_bytes if self._memory is not None else None

    def free_bytes(self, who: str) -> int:
        """Return the bytes that are free now and not reserved by another engine of this service."""
        self.ledger.see(self.ledger.holdings(), 0, {})
        try:
            self._memory = read_host_memory()
        except OSError:  # no descriptor is left to read it: the last value stays in use
            if self._memory is None:
                raise
        return self._memory.free_bytes - self.ledger.committed_bytes(who)


def query_gpu() -> GpuMemory | None:
    """Return the GPU in use; `None` if there is none or the query fails in any way."""
    try:
        return read_gpu_memory()
    except Exception as error:
        log.warning("the GPU driver cannot be queried: %r", error)
        return None


def read_gpu_memory() -> GpuMemory | None:
    """Return the GPU that torch will use: the first that `CUDA_VISIBLE_DEVICES` allows.

    Return `None` if there is no GPU or no driver, or if the driver does not answer.
    """
    if (gpu := _ask_driver(_gpu_in_use)) is not None:
        return gpu
    found = read_torch_gpu()
    return None if found is None else GpuMemory(**found)


def driver_cuda_version() -> int | None:
    """Return the newest CUDA that the driver supports, as 12040 for 12.4; `None` without driver."""
    return _ask_driver(lambda nvml: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))


def _ask_driver(query: Callable[[Any], Result]) -> Result | None:
    """Return the result of a query of NVML; `None` without driver, or if it does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return query(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _gpu_in_use(nvml: Any) -> GpuMemory | None:
    device = first_visible(_list_gpus(nvml), os.environ.get(VISIBLE_DEVICES_VARIABLE))
    if device is None or device.handle is None:
        return None
    used, total = _used_and_total_bytes(nvml, device.handle)
    _, total_of_card = _used_and_total_bytes(nvml, device.card)
    name = nvml.nvmlDeviceGetName(device.handle)
    major, _ = nvml.nvmlDeviceGetCudaComputeCapability(device.card)
    bandwidth = _bandwidth(nvml, device.card)
    return GpuMemory(
        str(name),
        used >> 20,
        total >> 20,
        bandwidth and bandwidth * total / total_of_card,  # the slice's share
        major >= 8,
        _processes(nvml, device.handle),
        *_utilization(nvml, device.handle),
        _optional(nvml, nvml.nvmlDeviceGetTemperature, device.card, nvml.NVML_TEMPERATURE_GPU),
    )


def _used_and_total_bytes(nvml: Any, handle: Any) -> tuple[int, int]:
    """Return a device's memory. A GPU that shares the host's has no figures of its own (NVML's
    "not supported"): then the host's."""
    try:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
        return int(found.used), int(found.total)
    except nvml.NVMLError_NotSupported:
        host = read_host_memory()
        return host.total_bytes - host.free_bytes, host.total_bytes


def _list_gpus(nvml: Any) -> list[GpuDevice]:
    """Return all GPUs in the driver's order; one that the driver refuses has no names."""
    cards = []
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            card = nvml.nvmlDeviceGetHandleByIndex(number)
            names = (str(nvml.nvmlDeviceGetUUID(card)),)
        except nvml.NVMLError:
            cards.append(GpuDevice(()))
        else:
            cards.append(GpuDevice(names, card, card, tuple(_mig_slices(nvml, card, names[0]))))
    return cards


def _mig_slices(nvml: Any, card: Any, uuid: str) -> Iterator[GpuDevice]:
    """Yield the MIG slices of a GPU; nothing if it has none or does not support MIG."""
    try:
        if nvml.nvmlDeviceGetMigMode(card)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
            with contextlib.suppress(nvml.NVMLError):  # numbers may be unused
                part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
                inside = nvml.nvmlDeviceGetGpuInstanceId(part)
                inside = f"{inside}/{nvml.nvmlDeviceGetComputeInstanceId(part)}"
                # The second name is the format of drivers before 470.
                names = str(nvml.nvmlDeviceGetUUID(part)), f"MIG-{uuid}/{inside}"
                yield GpuDevice(names, part, card)
    except nvml.NVMLError:
        return


def _processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Return bytes by process id, of the processes that the driver reports."""
    running = _optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    return {one.pid: int(one.usedGpuMemory) for one in running if one.usedGpuMemory}


def _utilization(nvml: Any, handle: Any) -> tuple[int | None, int | None]:
    """Return percent of the time in which the GPU computed, and in which its memory was accessed.

    Both are `None` for a slice, for which the driver refuses the query.
    """
    load = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    return (None, None) if load is None else (int(load.gpu), int(load.memory))


def _optional(nvml: Any, query: Callable[..., Any], *arguments: Any) -> Any:
    """Return the driver's answer to a query; `None` if it refuses."""
    try:
        return query(*arguments)
    except nvml.NVMLError:
        return None


def _bandwidth(nvml: Any, handle: Any) -> float | None:
    """Return the memory bandwidth in bytes per second: clock times width, twice a cycle.

    All of NVIDIA's memory since GDDR5 transfers at least twice a cycle.
    """
    megahertz = _optional(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    bits = _optional(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    return None if None in (megahertz, bits) else float(2 * megahertz * 1_000_000 * bits / 8)


def host_free_bytes() -> int:
    """Return the bytes of host memory that are available for a model."""
    return read_host_memory().free_bytes
