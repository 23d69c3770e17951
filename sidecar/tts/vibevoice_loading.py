"""A checkpoint's folder → the model on its device at a precision, and its processor."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, VibeVoiceForConditionalGeneration

from sidecar import errors
from sidecar.interfaces.engine import LoadOptions, Precision

log = logging.getLogger(__name__)

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory, and what belongs to it."""

    model: Any
    processor: Any
    folder: Path


def load(options: LoadOptions) -> Loaded:
    """Read the weights, straight to where they belong, once.

    Only safetensors are read, and no code of the checkpoint's.

    Raises:
        errors.ModelLoadFailed: it is no good, or does not fit.
    """
    assert options.checkpoint is not None
    folder = Path(options.checkpoint)
    device = _device(options.device)
    _quiet()
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **common)
        model = VibeVoiceForConditionalGeneration.from_pretrained(
            folder,
            dtype=_DTYPES.get(options.precision, torch.bfloat16),
            device_map={"": device},
            use_safetensors=True,
            **common,
        )
    except torch.OutOfMemoryError:
        raise no_room() from None
    except Exception as error:  # of three libraries: whatever they raise, the checkpoint is no good
        log.exception("the checkpoint did not load")
        reason = str(error).strip().partition("\n")[0].replace(str(folder), folder.name)
        raise errors.ModelLoadFailed(
            f"The checkpoint of VibeVoice could not be loaded: {reason}",
            hint="'vibevoice-asr pull vibevoice-1.5b' downloads it anew.",
        ) from None
    return Loaded(model.eval().requires_grad_(False), processor, folder)


def no_room() -> errors.ModelLoadFailed:
    """The error of a GPU that is full."""
    return errors.ModelLoadFailed(
        "CUDA out of memory: there is no room for VibeVoice beside what else the GPU holds.",
        hint="Close GPU applications, or choose another VIBEVOICE_VOICE_ENGINE.",
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise errors.ModelLoadFailed("torch finds no NVIDIA GPU.")
    on_gpu = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", 0) if on_gpu else torch.device("cpu")


def _quiet() -> None:
    """Leave out what the libraries say of every load."""
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    chatter.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
