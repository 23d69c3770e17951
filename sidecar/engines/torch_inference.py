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
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        raise own_error(error) from None


def own_error(error: Exception) -> Exception:
    """Return an error of the device as ours (`inference`), and others as they are."""
    if isinstance(error, torch.OutOfMemoryError):
        return errors.GpuOutOfMemory()
    if isinstance(error, torch.AcceleratorError):
        log.critical(
            "CUDA error that only a new process recovers from; this worker process ends: %s", error
        )
        return errors.DeviceLost()
    return error


def device_name(wanted: str) -> str:
    """Return 'cuda' or 'cpu' for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        errors.ModelLoadFailed: a GPU is wanted, and torch finds none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise errors.ModelLoadFailed("torch finds no NVIDIA GPU.")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def silence_libraries() -> None:
    """Silence messages that the libraries log at every load, and false ones.

    The "maximum length (450)" of a run is the encoder's chunk length, mistaken for a context
    length.
    """
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    chatter.set_verbosity_error()
    for library in ("accelerate", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
