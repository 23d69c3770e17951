"""Checkpoints of VibeVoice's ASR models in the original layout (`model_type: vibevoice`).

Microsoft's own code writes it: VibeVoice-ASR as first released, fine-tunes of it, and
VibeVoice-ASR-Streaming. The class of transformers for VibeVoice-ASR loads all of them once the
configuration and the names of weights are translated as its conversion does
(`convert_vibevoice_asr_to_hf.py`). The decoder half of the acoustic tokenizer and the diffusion
head are not needed. Nothing here imports torch.
"""

from collections.abc import Mapping
from typing import Any

ENCODERS = ("acoustic", "semantic")


def transformers_config(original: Mapping[str, Any]) -> dict[str, Any]:
    """Return `VibeVoiceAsrConfig` as plain values, from the ``config.json`` of the checkpoint.

    Raises:
        KeyError, ValueError: a part is missing or has another form.
    """
    parts = {
        f"{name}_tokenizer_encoder_config": _encoder_config(original[f"{name}_tokenizer_config"])
        for name in ENCODERS
    }
    return {**parts, "text_config": {"model_type": "qwen2", **original["decoder_config"]}}


def _encoder_config(original: Mapping[str, Any]) -> dict[str, Any]:
    depths = original["encoder_depths"]
    if isinstance(depths, str):
        depths = [int(depth) for depth in depths.split("-")]
    return {
        "model_type": "vibevoice_acoustic_tokenizer_encoder",
        "hidden_size": original["vae_dim"],
        "num_filters": original["encoder_n_filters"],
        "downsampling_ratios": [*reversed(original["encoder_ratios"])],
        "depths": depths,
        "rms_norm_eps": original["layernorm_eps"],
        "layer_scale_init_value": original["layer_scale_init_value"],
    }


def weight_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return regular expressions for the original names of weights and their replacements, which
    `from_pretrained` applies. Weights that no expression places are not read.

    ``config``: from `transformers_config`.
    """
    names = {r"\.mixer\.conv\.conv\.conv\.": ".mixer.conv."}
    for encoder in ENCODERS:
        old = rf"^model\.{encoder}_tokenizer\.encoder\."
        new = f"model.{encoder}_tokenizer_encoder."
        stages = len(config[f"{encoder}_tokenizer_encoder_config"]["depths"])
        for stage in range(stages):  # the first is the stem, so the others move down by one
            prefix = f"conv_layers.{stage - 1}." if stage else "stem."
            names[rf"{old}downsample_layers\.{stage}\.0\.conv\.conv\."] = f"{new}{prefix}conv.conv."
            names[rf"{old}stages\.{stage}\."] = f"{new}{prefix}stage."
        names[rf"{old}head\.conv\.conv\."] = f"{new}head.conv."
        connector = rf"^model\.{encoder}_connector\."
        projector = f"model.multi_modal_projector.{encoder}_"
        names[rf"{connector}fc1\."] = f"{projector}linear_1."
        names[rf"{connector}fc2\."] = f"{projector}linear_2."
        names[rf"{connector}norm\."] = f"{projector}norm."
    return names
