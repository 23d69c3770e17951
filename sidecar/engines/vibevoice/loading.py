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
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from torch.nn import functional
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    VibeVoiceAsrForConditionalGeneration,
)

from sidecar import errors
from sidecar.interfaces.engine import LoadOptions, Precision

log = logging.getLogger(__name__)

ENCODERS = (
    "model.acoustic_tokenizer_encoder",
    "model.semantic_tokenizer_encoder",
    "model.multi_modal_projector",
)
"""What hears: needed until the audio is encoded."""
EMBEDDING = "model.language_model.embed_tokens"
REST = (
    "model.language_model.layers",
    "model.language_model.norm",
    "model.language_model.rotary_emb",
    "lm_head",
)
"""With the others all there is; accelerate says so if it is not."""
UNQUANTIZED = (*ENCODERS, "lm_head")
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


def device_map(
    device: torch.device, *, evict_encoders: bool = False, host_token_table: bool = False
) -> dict[str, torch.device | str]:
    """Where each part of the model is loaded to.

    Every part by its name where they part: a place for all the rest ("") is one that accelerate
    moves everything through.
    """
    kept = [*(ENCODERS if evict_encoders else ()), *([EMBEDDING] if host_token_table else ())]
    if device.type == "cpu" or not kept:
        return {"": device}
    everything: dict[str, torch.device | str] = dict.fromkeys((*ENCODERS, EMBEDDING, *REST), device)
    return everything | dict.fromkeys(kept, "cpu")


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
            done.set_result(
                load(
                    folder,
                    options.precision,
                    device,
                    evict_encoders=options.evict_encoders,
                    host_token_table=options.host_token_table,
                )
            )
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
    except errors.ModelLoadFailed:
        raise
    except Exception as error:  # of four libraries: whatever they raise, the checkpoint is no good
        log.exception("the checkpoint did not load")
        reason = _first_line(error).replace(str(folder), folder.name)
        raise errors.ModelLoadFailed(
            f"The checkpoint could not be loaded: {reason}",
            hint="'vibevoice-asr pull vibevoice' downloads it anew.",
        ) from None
    yield 1.0
    return loaded


def load(
    folder: Path,
    precision: Precision,
    device: torch.device,
    *,
    evict_encoders: bool = False,
    host_token_table: bool = False,
) -> Loaded:
    """Read the weights, straight to where they belong, once; and see that they run.

    Only safetensors are read, and no code of the checkpoint's.

    Raises:
        OSError, ValueError, RuntimeError: what transformers says of a checkpoint that is no good.
        errors.ModelLoadFailed: it loads, but this machine cannot run it at this precision.
    """
    _quiet()
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    processor = AutoProcessor.from_pretrained(folder, **common)
    placed = device_map(device, evict_encoders=evict_encoders, host_token_table=host_token_table)
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
        folder,
        dtype=_DTYPES[precision],
        device_map=placed,
        quantization_config=_quantization(precision, parted=len(placed) > 1),
        use_safetensors=True,
        **common,
    )
    free_of_hooks(model)
    model.eval().requires_grad_(False)
    run_once(model, precision)
    return Loaded(model, processor, device, precision)


def free_of_hooks(model: Any) -> None:
    """Undo accelerate's dispatch, which follows a load to more than one device.

    Its hooks would carry inputs and weights to and fro at each call; `Model` moves what moves.
    """
    hooked = [module for module in model.modules() if hasattr(module, "_hf_hook")]
    remove_hook_from_module(model, recurse=True)
    for module in hooked:
        module.__dict__.pop("forward", None)  # the class has the same; the removal put it there


def run_once(model: Any, precision: Precision) -> None:
    """One token through the language model: what cannot run fails here, and not in every job.

    Nor can what has no finite answer: a damaged weight, or one beyond 65,504, the largest of fp16,
    through which bitsandbytes goes to 8 bit.

    It also has cuBLAS and its like allocate what they keep.

    Raises:
        errors.ModelLoadFailed: it does not run.
        torch.OutOfMemoryError: it has no room.
    """
    language, table = model.model.language_model, model.get_input_embeddings().weight
    like = language.norm.weight
    try:
        with torch.inference_mode():
            token = torch.zeros(1, 1, dtype=torch.long, device=table.device)
            embedding = functional.embedding(token, table).to(like.device, like.dtype)
            hidden = language(inputs_embeds=embedding, use_cache=False).last_hidden_state
            # What a GPU is asked for fails when it is waited for.
            finite = bool(model.lm_head(hidden).isfinite().all())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        log.exception("the checkpoint does not run in %s", precision)
        raise errors.ModelLoadFailed(
            f"The checkpoint does not run in {precision} here: {_first_line(error)}",
            hint="Use another precision.",
        ) from None
    if not finite and precision is not Precision.FP16:  # `Model.widen` has a way out of that
        log.error("the checkpoint's numbers are not finite in %s", precision)
        raise errors.ModelLoadFailed(
            f"The checkpoint does not run in {precision} here: its numbers are not finite.",
            hint="Use another precision; 'vibevoice-asr pull vibevoice' mends a damaged one.",
        )


def _held_bytes(device: torch.device) -> int:
    """What this process holds on the device (on the CPU: all of its memory)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _quantization(precision: Precision, *, parted: bool) -> BitsAndBytesConfig | None:
    """``parted``: something lies on the host; never a layer that is quantized."""
    common: dict[str, Any] = {
        "llm_int8_skip_modules": list(UNQUANTIZED),
        "llm_int8_enable_fp32_cpu_offload": parted,
    }
    match precision:
        case Precision.INT8:
            return BitsAndBytesConfig(load_in_8bit=True, **common)
        case Precision.INT4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
                **common,
            )
    return None


def _quiet() -> None:
    """Leave out what the libraries say of every load and what is not so.

    The "maximum length (450)" of a run is the encoder's chunk length taken for a context.
    """
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    chatter.set_verbosity_error()
    for library in ("accelerate", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
