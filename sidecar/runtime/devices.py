"""What the GPUs have left, by NVML: no torch, no CUDA context, a few milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The first GPU: its memory, and what it can do.

    ``bandwidth`` of its memory in bytes per second, None where the driver does not say; ``bf16``
    tells whether it computes in that type (compute capability 8.0 and later).
    """

    name: str
    used_mb: int
    total_mb: int
    bandwidth: float | None = None
    bf16: bool = True


def gpu_memory() -> GpuMemory | None:
    """The first NVIDIA GPU, None where there is none (or no driver)."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        bandwidth = _bandwidth(pynvml, handle)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return GpuMemory(
        str(name), int(memory.used) >> 20, int(memory.total) >> 20, bandwidth, major >= 8
    )


def _bandwidth(nvml: Any, handle: Any) -> float | None:
    """Clock times width, twice a cycle: what all of NVIDIA's memory since GDDR5 does at least."""
    try:
        megahertz = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)
        bits = nvml.nvmlDeviceGetMemoryBusWidth(handle)
    except nvml.NVMLError:
        return None
    return float(2 * megahertz * 1_000_000 * bits / 8)


def host_free_bytes() -> int:
    """What the host's memory has left for a model."""
    import psutil

    return int(psutil.virtual_memory().available)
