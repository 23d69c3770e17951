"""Fixtures: files of tiny checkpoints in each type, and the engine that loaded one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_vibevoice

KINDS = ("f32", "f16", "q8_0", "q4_k")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads of ggml wait for each other by spinning: beside other tests for minutes."""
    before = os.environ.get("VIBEVOICE_GGML_THREADS")
    os.environ["VIBEVOICE_GGML_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["VIBEVOICE_GGML_THREADS"]


def wide_checkpoint(folder: Path) -> Path:
    """Write the tiny checkpoint with 256 channels, half of them zero: it says the same, and rows of
    256 weights are those that q4_k can have."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_vibevoice.checkpoint("tiny"), folder)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if "_tokenizer_encoder" in name:
            continue
        wide = np.pad(tensor, [(0, 128 * (at in _channels(name))) for at in range(tensor.ndim)])
        if "norm" in name:
            wide = wide / np.sqrt(np.float32(2.0))  # the mean square is over twice as many
        weights[name] = wide.astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["text_config"] |= {"hidden_size": 256, "head_dim": 32}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _channels(name: str) -> set[int]:
    """The axes of a tensor that are channels of the language model."""
    if "multi_modal_projector" in name:
        return {0, 1} if "linear_2" in name else {0}
    if name.endswith(("o_proj.weight", "down_proj.weight", "norm.weight")):
        return {0}
    return {1}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of transformers, whose rows q4_k can have."""
    return wide_checkpoint(tmp_path_factory.mktemp("ggml") / "wide")


@pytest.fixture(scope="session")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its files in all types."""
    pytest.importorskip("libggml", reason="ggml is missing (pip install libggml-python)")
    pytest.importorskip("gguf", reason="gguf is missing (pip install gguf)")
    from vibevoice_asr_ggml.converter import convert
    from vibevoice_asr_ggml.library import Library

    folder, library = tmp_path_factory.mktemp("files"), Library()
    for kind in KINDS:
        convert(checkpoint, folder / f"tiny-{kind}.gguf", kind, library)
    return folder
