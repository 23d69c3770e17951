"""Reasons why the installed torch cannot use a GPU, and what mends it; it is not imported."""

import re
from importlib import metadata
from pathlib import Path

from sidecar import installation
from sidecar.gpu_memory.gpu_devices import driver_cuda_version
from sidecar.gpu_memory.torch_devices import torch_folders, torch_is_for_rocm


def torch_has_cuda() -> bool:
    """Return whether the installed torch was built for GPUs, by its libraries: NVIDIA's, or AMD's,
    which it calls cuda, too.

    To import it would take seconds and hundreds of megabytes.
    """
    nvidia = any(any(folder.glob("lib/*torch_cuda.*")) for folder in torch_folders())
    return nvidia or torch_is_for_rocm()


def torch_obstacle(gpu: str) -> tuple[str, str] | None:
    """Return why torch cannot use the GPU of this name, and what to do; `None` if it can, or if
    torch is not installed."""
    folders = torch_folders()
    if not folders:
        return None
    version = metadata.version("torch")
    if not torch_has_cuda():
        return f"torch {version} is a build for CPUs and cannot use the {gpu}", cuda_build_hint()
    needed = max(_built_for_cuda(folder / "version.py") for folder in folders)
    driver = driver_cuda_version()
    if driver is None or needed <= driver // 1000:  # drivers serve all minor versions
        return None
    has = f"{driver // 1000}.{driver % 1000 // 10}"
    text = f"torch {version} needs a driver for CUDA {needed}, and that of the {gpu} is for {has}"
    return text, f"Update NVIDIA's driver. Or: {cuda_build_hint()}"


def cuda_build_hint() -> str:
    """Return the way to a torch that can use this machine's GPU."""
    if installation.is_frozen():
        return "Use the build 'vibevoice-asr-gpu', or run it on the CPU: --device cpu."
    return (
        "Install torch's CUDA build: pip install --force-reinstall torch --index-url URL, with the "
        "URL that PyTorch's site names for this system and the CUDA of its driver (nvidia-smi). "
        "Or run it on the CPU: --device cpu."
    )


def _built_for_cuda(file: Path) -> int:
    """Return the major version of CUDA that torch was built for; 0 if the file does not say."""
    found = re.search(r"^cuda\b.*= '(\d+)", file.read_text("utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0
