"""Converter of an installed checkpoint of VibeVoice-ASR to GGUF, and the command for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.utility import LocalTensor, SafetensorsLocal
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sidecar import errors
from sidecar.checkpoints.checkpoint import has_original_layout, read_checkpoint
from sidecar.engines.vibevoice.vibevoice_prompt import DURATION_MARK
from vibevoice_asr_ggml import layout
from vibevoice_asr_ggml.gguf_file import ARCHITECTURE, KINDS, StoredTensor
from vibevoice_asr_ggml.library import Library

HEAD_KIND = {"q4_k": "q6_k"}
"""The head of a file in 4 bit: it chooses each token, and is 7 % of 7B."""


def convert(folder: Path, target: Path, kind: str, library: Library) -> None:
    """Write a checkpoint as GGUF. Matrices of the language model are quantized; encoders and
    projector stay fp16, norms and biases fp32.

    Raises:
        errors.BadCheckpoint: the checkpoint is not usable, or not of a kind that ggml runs here.
    """
    checkpoint = read_checkpoint(folder)
    config = checkpoint.config
    if has_original_layout(config) or config.get("quantization_config"):
        raise errors.CheckpointUnsupported(
            f"{folder} has Microsoft's layout or is quantized; only the layout of transformers in "
            "16 or 32 bit is converted.",
            hint="Get that: vibevoice-asr pull vibevoice",
        )
    fields = metadata(folder, config) | {"general.file_type": KINDS[kind][0]}
    held: dict[str, LocalTensor] = {}
    for file in checkpoint.weight_files:
        held |= SafetensorsLocal(file).tensors
    listed = [
        (name, kind_of(layout.name_of(name), [*held[name].shape], kind), [*held[name].shape])
        for name in sorted(held)
    ]
    data = (encoded(floats(held[name]), chosen, shape, library) for name, chosen, shape in listed)
    unfinished = target.with_suffix(".part")
    tensors = [
        (layout.name_of(name), KINDS[one][0], tuple(shape[::-1])) for name, one, shape in listed
    ]
    try:
        write_gguf(unfinished, fields, tensors, data)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def kind_of(name: str, shape: list[int], wanted: str) -> str:
    """Return the type of a tensor in a file of type ``wanted``."""
    if len(shape) == 1 or "dw_conv" in name:
        return "f32"
    if wanted in ("f32", "f16") or not name.startswith("lm"):
        return "f32" if wanted == "f32" else "f16"
    chosen = HEAD_KIND.get(wanted, wanted) if name == "lm_head.weight" else wanted
    for one in (chosen, "q8_0"):
        if shape[-1] % KINDS[one][1] == 0:
            return one
    return "f16"


def encoded(
    values: npt.NDArray[np.float32], kind: str, shape: list[int], library: Library
) -> npt.NDArray[Any]:
    """Return values in a type of ggml, as bytes."""
    number, weights, size = KINDS[kind]
    if kind in ("f32", "f16"):
        return values.astype(np.float32 if kind == "f32" else np.float16)
    values = np.ascontiguousarray(values)
    out = np.empty(prod(shape) // weights * size, np.uint8)
    rows = prod(shape[:-1])
    library.quantize_chunk(number, values.ctypes.data, out.ctypes.data, 0, rows, shape[-1], None)
    return out


def floats(stored: LocalTensor) -> npt.NDArray[np.float32]:
    """Return the values of a tensor; bf16 is the upper half of fp32."""
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
    if stored.dtype not in kinds:
        raise errors.CheckpointUnsupported(f"A file has weights in {stored.dtype}.")
    values: npt.NDArray[Any] = stored.mmap_bytes().view(kinds[stored.dtype])
    if stored.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(stored.shape).astype(np.float32)


def write_gguf(
    path: Path,
    fields: Mapping[str, Any],
    tensors: Sequence[tuple[str, int, tuple[int, ...]]],
    data: Iterator[npt.NDArray[Any]],
) -> None:
    """Write a file; ``tensors``: name, type and sizes of each; ``data``: their values in order."""
    writer = GGUFWriter(path, fields[ARCHITECTURE])
    for name, value in fields.items():
        if name != ARCHITECTURE:
            writer.add_key_value(name, value, GGUFValueType.get_type(value))
    for name, kind, sizes in tensors:
        stored = StoredTensor(kind, sizes, 0)
        number = GGMLQuantizationType(kind)
        writer.add_tensor_info(name, stored.rows, np.dtype(np.void), stored.bytes, number)
    with closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in data:
            writer.write_tensor_data(np.ascontiguousarray(values))


def metadata(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint's file.

    Raises:
        errors.CheckpointUnsupported: it computes what the graphs here do not.
    """
    text, acoustic = config["text_config"], config["acoustic_tokenizer_encoder_config"]
    semantic = config["semantic_tokenizer_encoder_config"]
    rope = text.get("rope_parameters") or {"rope_theta": text.get("rope_theta", 1e4)}
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    usual = {"hidden_act": "gelu", "kernel_size": 7, "channels": 1, "ffn_expansion": 4}
    same = ("downsampling_ratios", "depths", "num_filters", "rms_norm_eps")
    if (
        text.get("hidden_act", "silu") != "silu"
        or rope.get("rope_type", "default") != "default"
        or text.get("use_sliding_window")
        or any(
            one.get(key, value) != value
            for one in (acoustic, semantic)
            for key, value in usual.items()
        )
        or any(acoustic.get(key) != semantic.get(key) for key in same)
    ):
        raise errors.CheckpointUnsupported(f"{folder} has parts that the graphs here do not have.")
    prompt, context_prompt, extractor = prompts(folder)
    ends = json.loads((folder / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    level = float(extractor.get("target_dB_FS", -25.0))
    return {
        ARCHITECTURE: "vibevoice-asr",
        "general.name": folder.name,
        "general.license": license_of(folder),
        "vibevoice.d_lm": hidden,
        "vibevoice.n_lm_layers": text["num_hidden_layers"],
        "vibevoice.n_heads": heads,
        "vibevoice.n_kv_heads": text.get("num_key_value_heads") or heads,
        "vibevoice.head_dim": text.get("head_dim") or hidden // heads,
        "vibevoice.d_ffn": text["intermediate_size"],
        "vibevoice.vocab_size": text["vocab_size"],
        "vibevoice.rope_theta": float(rope["rope_theta"]),
        "vibevoice.rms_norm_eps": float(text.get("rms_norm_eps", 1e-6)),
        "vibevoice.vae_dim_acoustic": acoustic["hidden_size"],
        "vibevoice.vae_dim_semantic": semantic["hidden_size"],
        "vibevoice.vae_std": float(acoustic.get("vae_std", 0.625)),
        "vibevoice.n_filters": acoustic["num_filters"],
        "vibevoice.encoder_ratios": [*acoustic["downsampling_ratios"]][::-1],
        "vibevoice.encoder_depths": [*acoustic["depths"]],
        "vibevoice.encoder_rms_norm_eps": float(acoustic.get("rms_norm_eps", 1e-5)),
        "vibevoice.target_dbfs": level if extractor.get("normalize_audio", True) else 1.0,
        "vibevoice.loudness_eps": float(extractor.get("eps", 1e-6)),
        "vibevoice.audio_token_ids": [config["audio_token_id"]],
        "vibevoice.eos_token_ids": ends if isinstance(ends, list) else [ends],
        layout.TOKENIZER: (folder / "tokenizer.json").read_text("utf-8"),
        layout.PROMPT: prompt,
        layout.CONTEXT_PROMPT: context_prompt,
    }


def prompts(folder: Path) -> tuple[str, str, Mapping[str, Any]]:
    """Return the prompts of a checkpoint without and with a context, and the settings of its
    feature extractor. Its template runs in a sandbox."""
    processor = json.loads((folder / "processor_config.json").read_text("utf-8"))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    source = (folder / "chat_template.jinja").read_text("utf-8")
    template = environment.from_string(source)
    audio, duration = processor["audio_token"], processor["audio_duration_token"]

    def rendered(*context: str) -> str:
        content = [
            {"type": "audio", "path": ""},
            *({"type": "text", "text": one} for one in context),
        ]
        text = template.render(messages=[{"role": "user", "content": content}])
        return text.replace(audio, layout.AUDIO_MARK).replace(duration, DURATION_MARK)

    return rendered(), rendered(layout.CONTEXT_MARK), processor.get("feature_extractor") or {}


def license_of(folder: Path) -> str:
    """Return the licence that a checkpoint's card names; '' if it has none."""
    card = folder / "README.md"
    lines = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines[:60] if line.startswith("license:"))
    return next(named, "")
