"""Moonshine streaming small on a CPU: transformers beside onnxruntime, the same random weights.

Its real size (10 and 10 layers, 620 and 512 wide), ten seconds of noise, and 40 tokens, as many as
are spoken in that time. One thread each; CPU-seconds for a second of audio, the best of three. The
export needs `pip install onnx onnxscript`.

    python -m bench.moonshine_streaming
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from transformers import DynamicCache, EncoderDecoderCache

from bench.serving import argument_parser

SECONDS, TOKENS, RUNS, LAYERS, HEADS, HEAD_DIM, WIDTH = 10, 40, 3, 10, 8, 64, 620
PARTS = ("encoder", "cross", "step")


def build() -> Any:
    """Return the model."""
    windows = [[16, 4]] * 2 + [[16, 0]] * 6 + [[16, 4]] * 2
    encoder = {
        "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 10, "num_key_value_heads": 10, "sliding_windows": windows,
    }  # fmt: skip
    decoder: dict[str, Any] = {
        "hidden_size": HEADS * HEAD_DIM, "intermediate_size": 4 * 512, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "decoder_start_token_id": 1,
        "tie_word_embeddings": True,
    }  # fmt: skip
    config = transformers.MoonshineStreamingConfig(encoder_config=encoder, **decoder)
    return transformers.MoonshineStreamingForConditionalGeneration(config).eval()


class Encoder(torch.nn.Module):
    """Encoder of an utterance without padding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, samples: torch.Tensor) -> Any:
        """Return the frames of samples, shape (1, samples)."""
        mask = torch.ones_like(samples, dtype=torch.long)
        return self.encoder(samples, attention_mask=mask).last_hidden_state


class CrossAttention(torch.nn.Module):
    """Keys and values of the encoder's frames, which all steps of the decoder share."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.model.decoder

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return keys and values of each layer."""
        placed = hidden + self.decoder.pos_emb(torch.arange(hidden.shape[1]))
        frames = self.decoder.proj(placed)
        return tuple(
            project(frames).view(1, -1, HEADS, HEAD_DIM).transpose(1, 2)
            for layer in self.decoder.layers
            for project in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)
        )


class Step(torch.nn.Module):
    """One step of the decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.model.decoder, model.proj_out

    def forward(
        self, ids: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits, and keys and values of each layer with those of ``ids``."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer in range(LAYERS):
            keys, values = 2 * layer, 2 * layer + 1
            cache.self_attention_cache.update(past[keys], past[values], layer)
            cache.cross_attention_cache.update(cross[keys], cross[values], layer)
            cache.is_updated[layer] = True
        nothing = torch.zeros(1, 1, WIDTH)  # its keys and values are in the cache
        hidden = self.decoder(input_ids=ids, encoder_hidden_states=nothing, cache=cache)
        later: Any = cache.self_attention_cache.layers
        kept = (one for layer in later for one in (layer.keys, layer.values))
        return self.head(hidden.last_hidden_state[:, -1]), *kept


def export(model: Any, folder: Path) -> None:
    """Write the parts, in fp32 and in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # it needs onnx

    dynamic = torch.export.Dim.DYNAMIC
    cache = [torch.zeros(1, HEADS, 3, HEAD_DIM) for _ in range(2 * LAYERS)]
    frames = [torch.zeros(1, HEADS, 200, HEAD_DIM) for _ in range(2 * LAYERS)]
    grows = [{2: dynamic}] * len(cache)
    parts: Any = (
        (Encoder(model).eval(), (torch.randn(1, 80_000),), ({1: dynamic},)),
        (CrossAttention(model).eval(), (torch.randn(1, 200, WIDTH),), ({1: dynamic},)),
        (Step(model).eval(), (torch.tensor([[1]]), cache, frames), ({}, grows, grows)),
    )
    for name, (part, example, shapes) in zip(PARTS, parts, strict=True):
        path = folder / f"{name}.onnx"
        torch.onnx.export(part, example, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        quantize_dynamic(path, folder / f"{name}.int8.onnx", weight_type=QuantType.QInt8)


def by_onnxruntime(folder: Path, suffix: str, samples: Any) -> Callable[[], list[int]]:
    """Return the transcription by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(folder / f"{name}{suffix}.onnx", options)
        for name in PARTS
    }

    def run(name: str, *given: Any) -> Any:
        session = sessions[name]
        names = (one.name for one in session.get_inputs())
        return session.run(None, dict(zip(names, given, strict=True)))

    def transcribe() -> list[int]:
        cross = run("cross", *run("encoder", samples.numpy()))
        past = [np.zeros((1, HEADS, 0, HEAD_DIM), np.float32)] * (2 * LAYERS)
        ids = np.array([[1]])
        found = []
        for _ in range(TOKENS):
            logits, *past = run("step", ids, *past, *cross)
            ids = logits.argmax(-1)[None]
            found.append(int(ids[0, 0]))
        return found

    return transcribe


def main() -> None:
    """Print the figures."""
    argument_parser(__doc__).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, samples = build(), 0.1 * torch.randn(1, 16_000 * SECONDS)
    mask = torch.ones_like(samples, dtype=torch.long)

    def by_transformers() -> list[int]:
        found = model.generate(
            samples, attention_mask=mask, max_new_tokens=TOKENS, min_new_tokens=TOKENS
        )
        tokens: list[int] = found[0, 1:].tolist()
        return tokens

    print(f"{sum(one.numel() for one in model.parameters()) / 1e6:.0f} million parameters")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(mode=False):
        export(model, Path(folder))
        sides = {
            "transformers": by_transformers,
            "onnxruntime": by_onnxruntime(Path(folder), "", samples),
            "onnxruntime int8": by_onnxruntime(Path(folder), ".int8", samples),
        }
        took = dict.fromkeys(sides, float("inf"))
        tokens = {}
        for _ in range(RUNS):
            for name, transcribe in sides.items():
                begun = time.process_time()
                tokens[name] = transcribe()
                took[name] = min(took[name], time.process_time() - begun)
    for name, seconds in took.items():
        same = "" if tokens[name] == tokens["transformers"] else ", other tokens"
        ratio = seconds / took["transformers"]
        print(f"{name}: {seconds / SECONDS:.3f} CPU-s for a second of audio, {ratio:.2f}{same}")


if __name__ == "__main__":
    main()
