"""GPU devices by NVML, CUDA_VISIBLE_DEVICES, and the ledger of a device's memory.

Several engines of ours may live on one card. What each has taken the driver shows; what it will
come to have it says here, so that a plan of another leaves room for it. `devices` looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.concurrency import ThreadLimiter

VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Numbers or names of the GPUs that a process may use, the first one first; empty: none."""
DEVICE_ORDER_ENV = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Variable that makes CUDA number the GPUs as their driver does; by default the fastest is
first."""


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """A GPU, or a slice of one (MIG): the names it goes by, and the driver's handles.

    ``handle`` is its own, None where the driver refuses it; ``card`` that of the whole GPU.
    ``slices``: what a GPU is cut into; then it can only be used by them.
    """

    names: tuple[str, ...]
    handle: Any = None
    card: Any = None
    slices: tuple[GpuDevice, ...] = ()


def first_visible(cards: Sequence[GpuDevice], wanted: str | None) -> GpuDevice | None:
    """The device that becomes ``cuda:0``, None where none does.

    ``cards`` stand in the order of the PCI bus, ``wanted`` is what `VISIBLE_DEVICES_VARIABLE` says
    (None: it is not set): a number, or a name or its beginning if that is one device's only. CUDA
    reads up to the first word that it does not understand; so only the first word counts here.
    """
    if wanted is None:
        return _usable(cards[0]) if cards else None
    word = wanted.split(",")[0].strip()
    if word.isdecimal():
        return _usable(cards[int(word)]) if int(word) < len(cards) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    devices = [device for card in cards for device in (card, *card.slices)]
    named = [each for each in devices if any(name.startswith(word) for name in each.names)]
    return _usable(named[0]) if len(named) == 1 else None


def _usable(device: GpuDevice) -> GpuDevice:
    """Of a GPU that is cut into slices, CUDA uses the first."""
    return device.slices[0] if device.slices else device


@dataclass(frozen=True, slots=True)
class EngineMemoryHolding:
    """An engine's process: its id, None while there is none, and what its weights take.

    ``coming``: a new engine is on its way, and nobody knows how much of it is there.
    """

    pid: int | None = None
    weights_bytes: int = 0
    coming: bool = False


class DeviceLedger:
    """The memory of one card, or of the host, as engines of ours share it; each has a name.

    What one of them may take in all is what nobody has, what it holds itself, and nothing of what
    another has reserved. Where an engine is no more, its owner says so (`release`).
    """

    def __init__(self) -> None:
        self.strangers_bytes = 0
        """Bytes of other programs at the last query."""
        self._engines: dict[str, Callable[[], EngineMemoryHolding]] = {}
        self._reserved: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def register_engine(self, who: str, holding: Callable[[], EngineMemoryHolding]) -> None:
        """An engine that may live here, and who tells what it holds."""
        self._engines[who] = holding

    def holdings(self) -> dict[str, EngineMemoryHolding]:
        """Return what each engine holds now."""
        return {who: holding() for who, holding in self._engines.items()}

    def reserve(self, who: str, size: int) -> None:
        """From now on ``who`` comes to have ``size`` bytes in all, and not what it said before."""
        self._reserved[who] = size

    def release(self, who: str) -> None:
        """Release the holding of an engine that is unloaded."""
        self._reserved.pop(who, None)

    def reserved_bytes(self, who: str) -> int:
        """Return the bytes that ``who`` will have in all."""
        return self._reserved.get(who, 0)

    def see(
        self,
        holdings: Mapping[str, EngineMemoryHolding],
        used_bytes: int,
        processes: Mapping[int, int],
    ) -> None:
        """Take in a look: what all take, and the bytes of processes of which the driver tells."""
        present = {who: one for who, one in holdings.items() if one.pid is not None or one.coming}
        self._taken = {who: _held_bytes(one, processes) for who, one in present.items()}
        if not any(one.coming for one in present.values()):  # else they are who they were
            before = self.strangers_bytes
            self.strangers_bytes = other_processes_bytes(before, used_bytes, processes, present)

    def committed_bytes(self, who: str) -> int:
        """Return the bytes that other engines of ours will take of what was free at the last
        look."""
        others = (one for one in self._reserved if one != who)
        return sum(max(0, self._reserved[one] - self._taken.get(one, 0)) for one in others)

    def own_bytes(self, who: str, used_bytes: int) -> int:
        """Return the bytes of ``used_bytes`` that ``who`` had, without those of others."""
        if who not in self._taken:
            return 0
        others = sum(taken for one, taken in self._taken.items() if one != who)
        return max(0, used_bytes - self.strangers_bytes - others)


def _held_bytes(holding: EngineMemoryHolding, processes: Mapping[int, int]) -> int:
    """Return the bytes of an engine, as far as the driver tells; else those of its weights."""
    if holding.pid is None:
        return 0
    return processes.get(holding.pid, holding.weights_bytes)


def other_processes_bytes(
    before: int,
    used_bytes: int,
    processes: Mapping[int, int],
    holdings: Mapping[str, EngineMemoryHolding],
) -> int:
    """Return the bytes of a device that processes other than our engines take.

    If the driver does not tell how much one of ours takes beside its weights, others count as
    ``before``, or as less if that leaves too little for the weights.
    """
    here = [one for one in holdings.values() if one.pid is not None]
    rest = max(0, used_bytes - sum(_held_bytes(one, processes) for one in here))
    told = all(one.pid in processes for one in here if one.weights_bytes)
    return rest if told else min(before, rest)


log = logging.getLogger(__name__)

GPU_POLL_INTERVAL_S = 2.0
"""Time between two looks at a GPU."""
SILENT_GPU_POLL_INTERVAL_S = 10.0
"""The same while its driver does not answer."""
DRIVER_TIMEOUT_S = 1.0
"""Time that a job waits for a query; usually it takes milliseconds."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The GPU that is used: its memory, and what it can do.

    ``bandwidth`` of its memory in bytes per second, None where the driver does not say; ``bf16``
    tells whether it computes in that type (compute capability 8.0 and later). ``processes``: bytes
    by process id, as far as the driver tells; it does not on Windows, and in a container the ids
    may be others. ``busy`` and ``memory_busy``: percent of the time of late; ``celsius``: how warm
    it is. None where the driver does not say.
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

    @property
    def used_bytes(self) -> int:
        """Return the bytes that all processes and the driver take."""
        return self.used_mb << 20

    @property
    def free_bytes(self) -> int:
        """Return the free bytes."""
        return self.total_mb - self.used_mb << 20


class GpuMonitor:
    """The GPU that is used as it was last seen, and who has what of it.

    ``read`` is the driver's word.
    """

    def __init__(self, read: Callable[[], GpuMemory | None] | None = None) -> None:
        self.seen: GpuMemory | None = None
        self.ledger = DeviceLedger()
        self._read = read or query_gpu
        self._looking: asyncio.Task[None] | None = None
        self._silent = False
        self._thread = ThreadLimiter("gpu", 1)

    def free_bytes(self, who: str) -> int:
        """Return the bytes that are free and not reserved by another engine of ours; negative if an
        engine has to give memory back first."""
        return self.seen.free_bytes - self.ledger.committed_bytes(who) if self.seen else 0

    def own_bytes(self, who: str) -> int:
        """Return the bytes that an engine takes in all."""
        return self.ledger.own_bytes(who, self.seen.used_bytes) if self.seen else 0

    def begin(self) -> None:
        """Look for the first time, while there is no engine; waits for the driver."""
        if self.seen is None:
            self._take_in(self._read(), {})

    async def look(self) -> None:
        """Look now; where the driver takes longer than `DRIVER_TIMEOUT_S`, what it said last
        counts."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRIVER_TIMEOUT_S):
                await asyncio.shield(self._looking)

    async def go_on(self) -> None:
        """Look every few seconds; ends where there is no GPU."""
        try:
            await self.look()
            while self.seen is not None or (self._looking and not self._looking.done()):
                await asyncio.sleep(
                    SILENT_GPU_POLL_INTERVAL_S if self._silent else GPU_POLL_INTERVAL_S
                )
                await self.look()
        finally:
            if self._looking is not None:
                self._looking.cancel()

    async def _look(self) -> None:
        before = self.ledger.holdings()
        gpu = await self._thread.run(self._read)
        now = self.ledger.holdings()
        self._take_in(gpu, {who: _steady_holding(before.get(who), one) for who, one in now.items()})

    def _take_in(self, gpu: GpuMemory | None, holdings: Mapping[str, EngineMemoryHolding]) -> None:
        """A GPU whose driver falls silent stays what it was."""
        if gpu is None:
            if self.seen is not None and not self._silent:
                log.warning(
                    "the GPU driver (NVML) does not answer; its last values stay in use; check "
                    "nvidia-smi"
                )
                self._silent = True
            return
        if self._silent:
            log.info("the GPU driver (NVML) answers again")
            self._silent = False
        self.seen = gpu
        self.ledger.see(holdings, gpu.used_bytes, gpu.processes)


def _steady_holding(
    before: EngineMemoryHolding | None, now: EngineMemoryHolding
) -> EngineMemoryHolding:
    """Return an engine's holding during a look; none of an engine that came or went meanwhile."""
    return now if before == now else replace(now, coming=True)


class HostMemoryMonitor:
    """The host's memory, and who has what of it."""

    def __init__(self) -> None:
        self.ledger = DeviceLedger()

    def free_bytes(self, who: str) -> int:
        """Return the bytes that are free now and not reserved by another engine of ours."""
        self.ledger.see(self.ledger.holdings(), 0, {})
        return host_free_bytes() - self.ledger.committed_bytes(who)


def query_gpu() -> GpuMemory | None:
    """The GPU; whatever goes wrong with asking is a driver that does not answer."""
    try:
        return read_gpu_memory()
    except Exception as error:
        log.warning("the GPU driver (NVML) cannot be queried: %r", error)
        return None


def read_gpu_memory() -> GpuMemory | None:
    """The NVIDIA GPU that torch will use: the first that `CUDA_VISIBLE_DEVICES` leaves.

    None where there is none (or no driver, or it does not answer).
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        device = first_visible(_list_gpus(pynvml), os.environ.get(VISIBLE_DEVICES_VARIABLE))
        if device is None or device.handle is None:
            return None
        memory = pynvml.nvmlDeviceGetMemoryInfo(device.handle)
        whole = pynvml.nvmlDeviceGetMemoryInfo(device.card)
        name = pynvml.nvmlDeviceGetName(device.handle)
        major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(device.card)
        bandwidth = _bandwidth(pynvml, device.card)
        return GpuMemory(
            str(name),
            int(memory.used) >> 20,
            int(memory.total) >> 20,
            bandwidth and bandwidth * memory.total / whole.total,  # a slice has its share
            major >= 8,
            _processes(pynvml, device.handle),
            *_utilization(pynvml, device.handle),
            _optional(
                pynvml, pynvml.nvmlDeviceGetTemperature, device.card, pynvml.NVML_TEMPERATURE_GPU
            ),
        )
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _list_gpus(nvml: Any) -> list[GpuDevice]:
    """All GPUs in the driver's order; one that it refuses keeps its place."""
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
    """Yield the MIG slices of a GPU; nothing if it has none, or cannot have any."""
    try:
        if nvml.nvmlDeviceGetMigMode(card)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
            with contextlib.suppress(nvml.NVMLError):  # places may be empty
                part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
                inside = nvml.nvmlDeviceGetGpuInstanceId(part)
                inside = f"{inside}/{nvml.nvmlDeviceGetComputeInstanceId(part)}"
                # The second name is how drivers before 470 had it.
                names = str(nvml.nvmlDeviceGetUUID(part)), f"MIG-{uuid}/{inside}"
                yield GpuDevice(names, part, card)
    except nvml.NVMLError:
        return


def _processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes by process id; without those of which the driver does not say."""
    running = _optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    return {one.pid: int(one.usedGpuMemory) for one in running if one.usedGpuMemory}


def _utilization(nvml: Any, handle: Any) -> tuple[int | None, int | None]:
    """Percent of the time in which it computed, and in which its memory was read or written; a
    slice is not asked."""
    load = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    return (None, None) if load is None else (int(load.gpu), int(load.memory))


def _optional(nvml: Any, query: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the driver answers to a query; None where it refuses."""
    try:
        return query(*arguments)
    except nvml.NVMLError:
        return None


def _bandwidth(nvml: Any, handle: Any) -> float | None:
    """Clock times width, twice a cycle: what all of NVIDIA's memory since GDDR5 does at least."""
    megahertz = _optional(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    bits = _optional(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    return None if None in (megahertz, bits) else float(2 * megahertz * 1_000_000 * bits / 8)


def host_free_bytes() -> int:
    """Return the bytes of host memory that are left for a model."""
    import psutil

    return int(psutil.virtual_memory().available)
