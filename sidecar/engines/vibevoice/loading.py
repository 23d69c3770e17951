"""A checkpoint's folder -> the model on its device at a precision, and its processor."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    VibeVoiceAsrForConditionalGeneration,
)

from sidecar import errors
from sidecar.engine import LoadOptions, Precision

log = logging.getLogger(__name__)

UNQUANTIZED = (
    "model.acoustic_tokenizer_encoder",
    "model.semantic_tokenizer_encoder",
    "model.multi_modal_projector",
    "lm_head",
)
"""What stays in 16 bit. Without the prefix bitsandbytes would skip nothing."""
_LOOK_S = 0.1
"""Time between two looks at how much is loaded."""
_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.INT8: torch.bfloat16,
    Precision.INT4: torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory, and what belongs to it."""

    model: Any
    processor: Any
    device: torch.device
    precision: Precision


def pick_device(wanted: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device(wanted)


def load_in_view(options: LoadOptions) -> Generator[float, None, Loaded]:
    """Load as ``options`` say, and tell meanwhile how much of the weights is in memory.

    Raises:
        errors.ModelLoadFailed: it is no good, or does not fit.
    """
    assert options.checkpoint is not None
    folder = Path(options.checkpoint)
    device = pick_device(options.device)
    expected = sum(file.stat().st_size for file in folder.glob("*.safetensors")) or 1
    before = _held_bytes(device)
    done: Future[Loaded] = Future()

    def work() -> None:
        try:
            done.set_result(load(folder, options.precision, device))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="load").start()
    while not wait([done], timeout=_LOOK_S).done:
        yield min(0.99, max(0.0, (_held_bytes(device) - before) / expected))
    try:
        loaded = done.result()
    except torch.OutOfMemoryError:
        raise errors.ModelLoadFailed(
            f"CUDA out of memory: there is no room for the model in {options.precision}.",
            hint="Try INT8 or INT4 precision, or close GPU applications.",
        ) from None
    except Exception as error:  # of four libraries: whatever they raise, the checkpoint is no good
        log.exception("the checkpoint did not load")
        reason = str(error).strip().partition("\n")[0]
        raise errors.ModelLoadFailed(
            f"The checkpoint could not be loaded: {reason.replace(str(folder), folder.name)}",
            hint="'vibevoice-asr pull vibevoice' downloads it anew.",
        ) from None
    yield 1.0
    return loaded


def load(folder: Path, precision: Precision, device: torch.device) -> Loaded:
    """Read the weights, straight to their device, once.

    Only safetensors are read, and no code of the checkpoint's.

    Raises:
        OSError, ValueError, RuntimeError: what transformers says of a checkpoint that is no good.
    """
    _quiet()
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    processor = AutoProcessor.from_pretrained(folder, **common)
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
        folder,
        dtype=_DTYPES[precision],
        device_map={"": device},
        quantization_config=_quantization(precision),
        use_safetensors=True,
        **common,
    )
    model.eval().requires_grad_(False)
    return Loaded(model, processor, device, precision)


def _held_bytes(device: torch.device) -> int:
    """What this process holds on the device (on the CPU: all of its memory)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _quantization(precision: Precision) -> BitsAndBytesConfig | None:
    match precision:
        case Precision.INT8:
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(UNQUANTIZED))
        case Precision.INT4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
                llm_int8_skip_modules=list(UNQUANTIZED),
            )
    return None


def _quiet() -> None:
    """Leave out what the libraries say of every load and what is not so.

    The "maximum length (450)" of a run is the encoder's chunk length taken for a context.
    """
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    chatter.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
