"""What the GPUs have left, by NVML: no torch, no CUDA context, a few milliseconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of the first GPU."""

    name: str
    used_mb: int
    total_mb: int


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
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return GpuMemory(str(name), int(memory.used) >> 20, int(memory.total) >> 20)
