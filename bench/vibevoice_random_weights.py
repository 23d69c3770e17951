"""A checkpoint of the released architecture with random weights, for what only size decides.

Speed and memory do not depend on what the weights say. The model is built on the meta device, each
tensor made on the device that is measured, and written as any checkpoint is: so precision,
quantization and loading are the product's own.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Qwen2Config,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
)
from transformers.models.vibevoice_acoustic_tokenizer import VibeVoiceAcousticTokenizerEncoderConfig

from bench import serving

_SHARD = 4 << 30


@dataclass(frozen=True, slots=True)
class Size:
    """Of the language model and of both encoders; ``vocab`` 0: as many as the tokenizer has."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    filters: int
    depths: tuple[int, ...]


SIZES = {
    "tiny": Size(96, 3, 4, 2, 256, 0, 4, (1,) * 7),
    "mid": Size(256, 3, 4, 2, 512, 0, 4, (1,) * 7),
    "full": Size(3584, 28, 28, 4, 18_944, 152_064, 32, (3, 3, 3, 3, 3, 3, 8)),
}
"""`full` is the released model: 8.330 billion parameters."""


def write(folder: Path, size: Size, device: str, seed: int = 1) -> int:
    """Write the checkpoint in bf16; its parameters."""
    processor = _processor()
    config = _config(size, processor)
    with torch.device("meta"):
        model = VibeVoiceAsrForConditionalGeneration(config)
    random = torch.Generator(device=device).manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        shard[name] = _random(name, shape, device, random).cpu()
        if _bytes(shard) > _SHARD or number == len(shapes) - 1:
            file = f"model-{len(set(where.values())):05}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            where |= dict.fromkeys(shard, file)
            shard = {}
    total = sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": 2 * total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.dtype = torch.bfloat16
    config.architectures = ["VibeVoiceAsrForConditionalGeneration"]
    config.save_pretrained(folder)
    model.generation_config.update(do_sample=False, max_new_tokens=32_768)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return total


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _random(name: str, shape: torch.Size, device: str, random: torch.Generator) -> torch.Tensor:
    """Values under which activations keep their size, so that nothing overflows in 28 layers."""
    if len(shape) == 1:
        value = 0.0 if name.endswith("bias") else 1.0 if "norm" in name else 0.1
        return torch.full(shape, value, device=device, dtype=torch.bfloat16)
    fan_in = shape[1:].numel()
    values = torch.randn(shape, device=device, dtype=torch.bfloat16, generator=random)
    return values.mul_(fan_in**-0.5)


def _config(size: Size, processor: Any) -> VibeVoiceAsrConfig:
    def encoder(hidden_size: int) -> VibeVoiceAcousticTokenizerEncoderConfig:
        return VibeVoiceAcousticTokenizerEncoderConfig(
            hidden_size=hidden_size, num_filters=size.filters, depths=list(size.depths)
        )

    return VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=encoder(64),
        semantic_tokenizer_encoder_config=encoder(128),
        text_config=Qwen2Config(
            vocab_size=size.vocab or len(processor.tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=131_072,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
        ),
        audio_token_id=processor.audio_token_id,
        audio_bos_token_id=processor.audio_bos_token_id,
        audio_eos_token_id=processor.audio_eos_token_id,
    )


def _processor() -> Any:
    """The released processor's parts around the small vocabulary of the tests' checkpoints."""
    sys.path.insert(0, str(serving.ROOT / "tests" / "support"))
    import tiny_vibevoice
    import train_tiny_vibevoice

    rows = [
        {"segments": segments, "prompt": None, "endless": False}
        for segments in tiny_vibevoice.answers("tiny").values()
    ]
    return train_tiny_vibevoice.build_processor(rows)
