"""Which device, which arithmetic, how many threads: decided from what this machine has. Pure."""

from __future__ import annotations

import os
from collections.abc import Set

from sidecar import errors
from sidecar.interfaces.engine import AUTO, Precision
from sidecar.threads import usable_cores

COMPUTE_TYPES = {
    Precision.INT8: "int8",
    Precision.FP16: "float16",
    Precision.FP32: "float32",
}
"""Our precisions as CTranslate2 calls them; what is int8 on a GPU has activations of 16 bit."""
ON_GPU = {**COMPUTE_TYPES, Precision.INT8: "int8_float16"}
MOST_THREADS = 8
"""More gain little: decoding is bound by memory."""


def device_of(wanted: str, gpus: int) -> str:
    """'cuda' or 'cpu'.

    Raises:
        errors.ModelLoadFailed: a GPU is wanted, and there is none.
    """
    if wanted == "cuda" and not gpus:
        raise errors.ModelLoadFailed(
            "CTranslate2 finds no NVIDIA GPU.", hint="Set VIBEVOICE_DEVICE to 'auto' or 'cpu'."
        )
    return "cuda" if gpus and wanted in (AUTO, "cuda") else "cpu"


def arithmetic(precision: Precision, device: str, supported: Set[str]) -> tuple[Precision, str]:
    """The precision that is used, and CTranslate2's name for it.

    ``supported``: what the device can. fp32 takes the place of what it cannot: every one has it.
    """
    names = ON_GPU if device == "cuda" else COMPUTE_TYPES
    wanted = Precision.INT8 if precision not in names else precision
    name = names[wanted]
    return (wanted, name) if name in supported else (Precision.FP32, "float32")


def workers(device: str) -> int:
    """Windows that are recognised at once, live, each on a thread of its own: one for each core
    to use; a GPU is kept busy by two."""
    return usable_cores() if device == "cpu" else 2


def threads() -> int:
    """Of the CPU: half of its cores, so that the desktop and the voices have the rest.

    ``OMP_NUM_THREADS`` overrules it.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    return max(1, min(MOST_THREADS, (os.cpu_count() or 2) // 2))
