"""Variants of VibeVoice-ASR checkpoints: quantized ones, LoRA adapters, hub names.

It reads JSON and the headers of safetensors, and imports nothing heavy until it merges an adapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.model_repositories import vibevoice_repository
from sidecar.interfaces.engine_interface import Precision

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_ADAPTED = re.compile(r"(layers\.\d+\.(?:self_attn|mlp)\.\w+)\.lora_([AB])(?:\.default)?\.weight$")
_PLANNED_LAYER = re.compile(r"(^|\.)(layers|self_attn|mlp|[a-z]+_proj)(\.|$)|language_model$")
"""A module to skip that is part of the language model's layers."""
_NOT_MERGED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""Settings of peft that change more than a product of two matrices."""


def quantized_precision(config: dict[str, Any]) -> Precision | None:
    """Return the precision in which the weights of a checkpoint are stored; `None`: 16 bit or more.

    Raises:
        errors.CheckpointUnsupported: they are quantized in another way than bitsandbytes', or
            layers of the language model are not, for which memory is not planned.
    """
    stored = config.get("quantization_config")
    if not isinstance(stored, dict):
        return None
    skipped = stored.get("llm_int8_skip_modules") or ()
    if plain := next((str(one) for one in skipped if _PLANNED_LAYER.search(str(one))), None):
        raise errors.CheckpointUnsupported(
            f"The checkpoint is quantized except {plain[:60]!r}, for which memory is not planned.",
            hint="Use one in 16 bit, which the service quantizes itself: --precision int4",
        )
    method = stored.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes" and stored.get("load_in_4bit"):
        return Precision.INT4
    if method == "bitsandbytes" and stored.get("load_in_8bit"):
        return Precision.INT8
    raise errors.CheckpointUnsupported(
        f"The checkpoint is quantized by {str(method)[:60]!r}, which this service does not load.",
        hint="Use one that bitsandbytes quantized, or one in 16 bit, which the service quantizes "
        "itself: --precision int4",
    )


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """Adapter: ``scale`` times B·A is added to a weight. ``base``: name or folder of its model."""

    base: str
    scale: float


def read_vibevoice(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint; for an adapter, that of its
    model with the adapter's folder.

    Raises:
        errors.BadCheckpoint: as `checkpoint.read_checkpoint`, also of the adapter's model.
    """
    if is_adapter(folder):
        base = adapter_base(folder)
        if quantized_precision(base.config) is not None:
            raise errors.CheckpointUnsupported(
                f"{folder} is an adapter of a quantized checkpoint, into which it cannot be merged."
            )
        return replace(base, folder=folder, revision=None)
    found = checkpoint.read_checkpoint(folder)
    quantized_precision(found.config)
    return found


def is_adapter(folder: Path) -> bool:
    """Return whether a folder has a LoRA adapter without its model."""
    adapter = (folder / checkpoint.ADAPTER_FILE).is_file()
    return adapter and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> LoraAdapter:
    """Return the adapter in a folder.

    Raises:
        errors.CheckpointUnsupported: it changes more than layers of the language model by LoRA.
        errors.CheckpointIncomplete, errors.CheckpointDamaged: its files are not usable.
    """
    config = checkpoint.read_json(folder / checkpoint.ADAPTER_FILE)
    rank, alpha = (_number(config.get(name)) for name in ("r", "lora_alpha"))
    more = [name for name in _NOT_MERGED if config.get(name)]
    more += ["bias"] if config.get("bias", "none") != "none" else []
    if config.get("peft_type") != "LORA" or more or not (rank > 0 and alpha > 0):
        what = f"it has {', '.join(more)}" if more else "it is not a LoRA adapter with r and alpha"
        raise _not_merged_error(folder, what)
    checkpoint.require_files(folder, [ADAPTER_WEIGHTS_FILE])
    for name in sorted(checkpoint.check_safetensors(folder / ADAPTER_WEIGHTS_FILE)):
        if not _ADAPTED.search(name):
            raise _not_merged_error(folder, f"{name[:100]!r} is no layer of the language model")
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return LoraAdapter(str(config.get("base_model_name_or_path") or ""), scale)


def merged_weights(base_checkpoint: checkpoint.ModelCheckpoint, folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names in its files, with the adapter in
    ``folder`` merged (W + scale · B · A, Hu et al. 2021). Tensors that it does not change stay
    mapped files.

    Raises:
        ValueError: the adapter is of another model.
    """
    from safetensors.torch import load_file

    weights = {
        name: one for file in base_checkpoint.weight_files for name, one in load_file(file).items()
    }
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / ADAPTER_WEIGHTS_FILE).items():
        adapted = _ADAPTED.search(name)
        assert adapted is not None
        halves.setdefault(adapted[1], {})[adapted[2]] = tensor.float()
    scale = read_adapter(folder).scale
    names = {name.rpartition("language_model.")[2].removeprefix("model."): name for name in weights}
    for layer, pair in halves.items():
        name = names.get(f"{layer}.weight", "")
        if set(pair) != {"A", "B"} or not name:
            raise ValueError(f"the adapter changes {layer}, which the model does not have")
        change = scale * (pair["B"] @ pair["A"])
        if change.shape != weights[name].shape:
            raise ValueError(f"the adapter's {layer} is of another size")
        weights[name] = (weights[name].float() + change).to(weights[name].dtype)
    return weights


def adapter_base(folder: Path) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint of an adapter's model: a folder, or in the Hugging Face cache.

    Raises:
        errors.CheckpointNotFound: it is not here.
        errors.BadCheckpoint: it, or the adapter, is not usable.
    """
    name = read_adapter(folder).base
    if (folder / name).is_dir() and name:
        return checkpoint.read_checkpoint(folder / name)
    if found := cached_repository(name):
        complete = checkpoint.first_complete_checkpoint(checkpoint.cached_snapshots(found))
        if complete is not None:
            return complete
    raise errors.CheckpointNotFound(
        f"{folder} is a LoRA adapter, and its model, {name[:200]!r}, is not here.",
        hint=f"If that is a repository: vibevoice-asr pull {name[:200]}. Else name its folder in "
        f"base_model_name_or_path of {checkpoint.ADAPTER_FILE}.",
    )


def cached_repository(name: str) -> Path | None:
    """Return the folder in the Hugging Face cache of the repository ``OWNER/NAME``; `None` if
    there is none, or ``name`` is no such name."""
    try:
        repository = vibevoice_repository(name)
    except errors.RepositoryNotFound:
        return None
    folder = checkpoint.cache_folder(repository, checkpoint.hugging_face_cache())
    return folder if folder.is_dir() else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _not_merged_error(folder: Path, what: str) -> errors.CheckpointUnsupported:
    return errors.CheckpointUnsupported(
        f"{folder} is a LoRA adapter that cannot be merged here: {what}.",
        hint="Merge it first: merge_and_unload() of the PeftModel, then save_pretrained of "
        "model and processor.",
    )
