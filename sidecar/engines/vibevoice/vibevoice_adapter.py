"""Weights of VibeVoice-ASR with a LoRA adapter merged into them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.checkpoints.checkpoint_variants import (
    ADAPTER_WEIGHTS_FILE,
    adapted_layer,
    read_adapter,
)


def merged_weights(base: ModelCheckpoint, folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names in its files, with the adapter in
    ``folder`` merged (W + scale · B · A, Hu et al. 2021). Tensors that it does not change stay
    mapped files.

    Raises:
        ValueError: the adapter is of another model.
    """
    weights = {name: one for file in base.weight_files for name, one in load_file(file).items()}
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / ADAPTER_WEIGHTS_FILE).items():
        layer, half = adapted_layer(name)
        halves.setdefault(layer, {})[half] = tensor.float()
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
