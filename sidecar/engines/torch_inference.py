"""Inference with torch, with errors of the device as ours."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sidecar import errors

log = logging.getLogger(__name__)


@contextmanager
def inference() -> Iterator[None]:
    """Compute without gradients, and raise errors of the device as ours.

    Raises:
        errors.GpuOutOfMemory: its memory does not suffice.
        errors.DeviceLost: nothing in this process can use the device again.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError:
        raise errors.GpuOutOfMemory() from None
    except torch.AcceleratorError as error:
        log.critical(
            "CUDA error that only a new process recovers from; this worker process ends: %s", error
        )
        raise errors.DeviceLost() from None
