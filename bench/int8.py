"""INT8: how far each way of it is from 16 bit, and what a product of one token costs.

    python -m bench.int8 quality [--outliers 20]    tiny checkpoint, token by token, on the CPU
    python -m bench.int8 speed [--device cuda]      the shapes of the full model, random weights

``quality`` walks along the transcript of bf16. ``--outliers`` scales 2 % of the channels behind
each norm and before each ``down_proj``, and the next weights by the inverse: the same function.
``speed`` calls enough different weights that no cache holds them; a graph where one can be made.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Int8Params, Linear8bitLt
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoProcessor, BitsAndBytesConfig, VibeVoiceAsrForConditionalGeneration

from bench.int8_linear import Int8Linear, weight_only
from sidecar.engines.vibevoice.vibevoice_decoder import PromptContinuation, VibeVoiceDecoder
from sidecar.engines.vibevoice.vibevoice_model import (
    UNQUANTIZED,
    VibeVoiceAudioEncoder,
    build_prompt_ids,
    token_count,
)
from sidecar.interfaces.engine_interface import MemoryPlan

SHAPES = {"q, o": (3584, 3584, 2), "k, v": (512, 3584, 2), "gate, up": (18944, 3584, 2)} | {
    "down": (3584, 18944, 1)
}
"""Outputs, inputs, and how many of them a layer has."""
LAYERS, SHARE, LIMIT, ROUNDS = 28, 0.02, 400, 30
KINDS = ("fp32", "LLM.int8", "threshold 0", "ours", "NF4")
CPU = torch.device("cpu")


def loaded(folder: Path, kind: str) -> Any:
    """A checkpoint as ``kind`` says."""
    common: dict[str, Any] = {"llm_int8_skip_modules": list(UNQUANTIZED)}
    eight = BitsAndBytesConfig(load_in_8bit=True, **common)
    config = {
        "LLM.int8": eight,
        "ours": eight,
        "threshold 0": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, **common),
        "NF4": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            **common,
        ),
    }.get(kind)
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.float32 if kind == "fp32" else torch.bfloat16,
        device_map={"": CPU},
        quantization_config=config,
    ).eval()
    if kind == "ours":
        weight_only(model)
    return model


def with_outliers(folder: Path, factor: float, target: Path) -> Path:
    """The same function with large activations."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    model = loaded(folder, "fp32").requires_grad_(False)
    chance = torch.Generator().manual_seed(0)
    for layer in model.model.language_model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        parts: tuple[tuple[Tensor, tuple[nn.Linear, ...]], ...] = (
            (layer.input_layernorm.weight, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm.weight, (mlp.gate_proj, mlp.up_proj)),
            (mlp.up_proj.weight, (mlp.down_proj,)),
        )
        for source, readers in parts:
            some = torch.randperm(len(source), generator=chance)[: round(SHARE * len(source))]
            source[some] *= factor
            for reader in readers:
                reader.weight[:, some] /= factor
    model.save_pretrained(target)
    return target


@torch.inference_mode()
def walk(model: Any, processor: Any, audio: Any, prompt: str, along: list[int] | None) -> Tensor:
    """Logits after each token of ``along``, or of its own answer."""
    decoder, plan = VibeVoiceDecoder(model), MemoryPlan()
    ids = build_prompt_ids(processor, len(audio), prompt)
    embeddings = decoder.embed(ids)
    heard = embeddings.new_empty(token_count(len(audio)), embeddings.shape[1])
    encoder = VibeVoiceAudioEncoder(model, processor.feature_extractor)
    encoder.encode(audio, plan.encoder_chunk_s, heard, lambda: None)
    embeddings[ids == processor.audio_token_id] = heard
    cache = decoder.new_cache(plan, len(ids))
    cache.reserve(len(ids) + LIMIT, LIMIT)
    logits = [decoder.prefill(embeddings, cache, plan.prefill_tile)]
    while len(logits) < (LIMIT if along is None else len(along)):
        token = int(logits[-1].argmax()) if along is None else along[len(logits) - 1]
        if along is None and token == model.generation_config.eos_token_id:
            break
        logits.append(decoder.step([PromptContinuation([token], cache)])[0][0])
    return torch.stack(logits).float()


def quality(factor: float) -> None:
    """A row for each kind: mean and worst difference, equal tokens, equal transcripts."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import tiny_vibevoice

    folder = tiny_vibevoice.checkpoint("tiny")
    with tempfile.TemporaryDirectory() as scratch:
        if factor > 1:
            folder = with_outliers(folder, factor, Path(scratch) / "outliers")
        processor = AutoProcessor.from_pretrained(folder)
        clips = [
            (tiny_vibevoice.clip_24k(name), prompt)
            for name in tiny_vibevoice.CLIPS
            for prompt in ("", tiny_vibevoice.CONTEXT)
        ]
        bf16 = loaded(folder, "bf16")
        wanted = [walk(bf16, processor, *clip, None) for clip in clips]
        for kind in KINDS:
            model = loaded(folder, kind)
            said = [
                walk(model, processor, *clip, want.argmax(1).tolist())
                for clip, want in zip(clips, wanted, strict=True)
            ]
            off = torch.cat([(a - b).abs() for a, b in zip(said, wanted, strict=True)])
            same = [a.argmax(1) == b.argmax(1) for a, b in zip(said, wanted, strict=True)]
            equal = torch.cat(same)
            print(
                f"{kind:12} mean {off.mean():.4f} worst {off.max():.3f} "
                f"tokens {int(equal.sum())}/{len(equal)} "
                f"transcripts {sum(bool(one.all()) for one in same)}/{len(same)}"
            )


def speed(device: str, divisor: int) -> None:
    """Microseconds of a product of one token, eager and in a graph, and the bandwidth of it."""
    total: dict[str, float] = {}
    for name, (rows, columns, times) in SHAPES.items():
        out, width = rows // divisor, columns // divisor
        copies = max(2, 400_000_000 // (out * width)) if device == "cuda" else 1
        x = torch.randn(1, width, device=device).to(torch.bfloat16)
        for kind, calls in products(x, out, copies).items():
            eager = took(calls[0])
            graph = graphed(calls) if kind != "LLM.int8" else None
            best = min(eager, graph or eager)
            total[kind] = total.get(kind, 0.0) + times * LAYERS * best / 1_000
            read = out * width * (2 if kind == "bf16" else 1)
            told = f"{graph:8.1f}" if graph else "       –"
            print(f"{name:9} {kind:16} {eager:8.1f} {told} us {read / best / 1e3:7.0f} GB/s")
    print("all layers, ms a token:", {kind: round(value, 2) for kind, value in total.items()})


def products(x: Tensor, out: int, copies: int) -> dict[str, list[Callable[[], Tensor]]]:
    """For each kind a call for each copy of the weights."""
    shape = (copies, out, x.shape[1])
    weights = list(torch.randn(shape, dtype=torch.bfloat16, device=x.device) * 0.02)
    found = [layer(weight, 6.0) for weight in weights]
    plain = [layer(weight, 0.0) for weight in weights]
    box = nn.ModuleList([layer(weight, 6.0) for weight in weights])
    weight_only(box)
    ours = [one for one in box if isinstance(one, Int8Linear)]
    return {
        "bf16": [lambda w=w: functional.linear(x, w) for w in weights],
        "LLM.int8": [lambda one=one: one(x) for one in found],
        "threshold 0": [lambda one=one: one(x) for one in plain],
        "ours": [lambda one=one: one(x) for one in ours],
        "_weight_int8pack": [
            lambda one=one: torch._weight_int8pack_mm(x, one.weight, one.scale.to(x.dtype))
            for one in ours
        ],
    }


def layer(weight: Tensor, threshold: float) -> Linear8bitLt:
    """One of bitsandbytes' layers."""
    out, width = weight.shape
    made = Linear8bitLt(width, out, bias=False, has_fp16_weights=False, threshold=threshold)
    made.weight = Int8Params(weight.cpu(), has_fp16_weights=False, requires_grad=False)
    return made.to(weight.device).eval().requires_grad_(False)


def took(call: Callable[[], object]) -> float:
    """Median microseconds."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(1e6 * (time.perf_counter() - start))
    return statistics.median(found[3:])


def graphed(calls: list[Callable[[], Tensor]]) -> float | None:
    """The same in one CUDA graph of all calls, per call; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return took(graph.replay) / len(calls)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("--outliers", type=float, default=1.0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--divisor", type=int, default=1, help="smaller shapes, for a dry run")
    args = parser.parse_args()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if args.what == "quality":
        quality(args.outliers)
    else:
        with torch.inference_mode():
            speed(args.device, args.divisor)


if __name__ == "__main__":
    main()
