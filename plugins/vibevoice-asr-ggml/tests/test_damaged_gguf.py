"""Files that are damaged, or well-formed and wrong, are refused in a sentence by this process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("libggml", reason="ggml is missing (pip install libggml-python)")
pytest.importorskip("gguf", reason="gguf is missing (pip install gguf)")

from vibevoice_asr_ggml import SPEC, converter
from vibevoice_asr_ggml import files as ggml_files
from vibevoice_asr_ggml.converter import write_gguf
from vibevoice_asr_ggml.engine import GgmlEngine
from vibevoice_asr_ggml.gguf_file import GgufFile, StoredTensor, read_header
from vibevoice_asr_ggml.library import Library

from sidecar import errors
from sidecar.interfaces.engine_interface import LoadOptions, Precision

Fields, Tensors = dict[str, Any], dict[str, tuple[int, tuple[int, ...], np.ndarray[Any, Any]]]


def rewritten(source: GgufFile, target: Path, change: Callable[[Fields, Tensors], None]) -> None:
    fields = {name: value for name, value in source.fields.items() if value is not None}
    tensors = {
        name: (one.kind, one.sizes, source.read(name)) for name, one in source.tensors.items()
    }
    change(fields, tensors)
    listed = [(name, kind, sizes) for name, (kind, sizes, _) in tensors.items()]
    write_gguf(target, fields, listed, (data for _, _, data in tensors.values()))


def without(name: str) -> Callable[[Fields, Tensors], None]:
    def change(fields: Fields, tensors: Tensors) -> None:
        del (tensors if name in tensors else fields)[name]

    return change


def field(name: str, value: Any) -> Callable[[Fields, Tensors], None]:
    return lambda fields, tensors: fields.update({name: value})


def shape(name: str, sizes: tuple[int, ...]) -> Callable[[Fields, Tensors], None]:
    def change(fields: Fields, tensors: Tensors) -> None:
        tensors[name] = (0, sizes, np.zeros(4 * int(np.prod(sizes)), np.uint8))

    return change


def not_numbers(fields: Fields, tensors: Tensors) -> None:
    kind, sizes, data = tensors["lm.norm.weight"]
    tensors["lm.norm.weight"] = kind, sizes, np.full(len(data) // 4, np.nan, "f4").view(np.uint8)


WRONG: dict[str, Callable[[Fields, Tensors], None]] = {
    "lacks lm.layers.1.attn.q_proj.weight": without("lm.layers.1.attn.q_proj.weight"),
    "lacks lm.norm.weight": without("lm.norm.weight"),
    "lacks lm.tok_emb.weight": without("lm.tok_emb.weight"),
    "lacks at_enc.s.3.0.ffn.up.weight": without("at_enc.s.3.0.ffn.up.weight"),
    "lacks st_enc.ds.2.0.conv.weight": without("st_enc.ds.2.0.conv.weight"),
    "has lm.tok_emb.weight in": shape("lm.tok_emb.weight", (256, 40)),
    "has st_enc.head.weight in": shape("st_enc.head.weight", (3, 256, 128)),
    "has no tokenizer.huggingface.json": without("tokenizer.huggingface.json"),
    "has a damaged tokenizer": field("tokenizer.huggingface.json", "{}"),
    "has heads that cannot share keys": field("vibevoice.n_heads", 3),
    "has no usable vibevoice.head_dim": field("vibevoice.head_dim", 0),
    "lacks lm.layers.2.attn_ln.weight": field("vibevoice.n_lm_layers", 40),
    "has no usable vibevoice.encoder_ratios": without("vibevoice.encoder_ratios"),
    "has stages that do not make": field("vibevoice.encoder_ratios", [2, 2, 2, 2, 2, 2]),
    "has no usable vibevoice.rope_theta": field("vibevoice.rope_theta", "much"),
    "has marks outside of its vocabulary": field("vibevoice.eos_token_ids", [1 << 19]),
    "is not VibeVoice-ASR": field("general.architecture", "qwen2"),
    "has values that are not finite": not_numbers,
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_file_is_refused_with_what_is_wrong(said: str, files: Path, tmp_path: Path) -> None:
    rewritten(read_header(files / "tiny-f32.gguf"), tmp_path / "wrong-f32.gguf", WRONG[said])
    options = LoadOptions(precision=Precision.FP32, checkpoint=str(tmp_path), device="cpu")
    with pytest.raises(errors.SidecarError, match=r"wrong-f32\.gguf") as caught:
        list(GgmlEngine().load(options))
    assert said in caught.value.detail


def test_file_cut_off_anywhere_or_with_other_numbers_in_its_header_is_refused(
    files: Path, tmp_path: Path
) -> None:
    whole = (files / "tiny-f16.gguf").read_bytes()
    tried, target = 0, tmp_path / "cut-f16.gguf"
    header = read_header(files / "tiny-f16.gguf")
    last = max(one.offset + one.bytes for one in header.tensors.values())
    for size in (0, 3, 4, 20, 200, 5_000, last // 2, last - 1):
        target.write_bytes(whole[:size])
        with pytest.raises(errors.CheckpointDamaged):
            read_header(target)
    end = min(one.offset for one in header.tensors.values())
    random = np.random.default_rng(1)
    for at in random.integers(4, end, 300):
        changed = bytearray(whole)
        changed[at : at + 4] = struct.pack("<I", int(random.integers(1 << 32)))
        target.write_bytes(changed)
        try:  # either it is refused, or what changed is no number that places anything
            found = read_header(target)
        except errors.CheckpointDamaged:
            tried += 1
            continue
        ends = [one.offset + one.bytes for one in found.tensors.values()]
        assert max(ends) <= len(whole)
    assert tried > 30


def test_tensor_over_another_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "twice-f32.gguf"
    data = [np.zeros(8, np.float32)] * 2
    fields = {"general.architecture": "vibevoice-asr"}
    write_gguf(target, fields, [("a", 0, (8,)), ("b", 0, (8,))], iter(data))
    first, second = read_header(target).tensors.values()
    assert second == StoredTensor(0, (8,), first.offset + 32)
    text = target.read_bytes()
    at = text.index(struct.pack("<IQ", 0, 32))
    target.write_bytes(text[:at] + struct.pack("<IQ", 0, 0) + text[at + 12 :])
    with pytest.raises(errors.CheckpointDamaged, match="where another tensor is"):
        read_header(target)


def test_folder_has_the_precisions_of_its_files_and_one_without_any_is_refused(
    files: Path, tmp_path: Path
) -> None:
    spec, _ = ggml_files.find_files(SPEC, files, None)
    assert [*spec.precisions] == ["int4", "int8", "fp16", "fp32"]
    only, _ = ggml_files.find_files(SPEC, files / "tiny-q8_0.gguf", None)
    assert [*only.precisions] == ["int8"]
    for nothing in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(errors.CheckpointNotFound):
            ggml_files.find_files(SPEC, nothing, None)


def test_library_of_another_version_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vibevoice_asr_ggml.library.VERSIONS", ("0.19.",))
    with pytest.raises(errors.ModelLoadFailed, match=r"ggml 0\.20\.\d+ is not a version .*0\.19"):
        Library()
    with pytest.raises(errors.ModelLoadFailed, match="There is no ggml in"):
        Library(tmp_path)


def test_conversion_refuses_another_model_and_leaves_no_half_file(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = (checkpoint / "config.json").read_text("utf-8")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in checkpoint.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    changed = config.replace('"hidden_act": "silu"', '"hidden_act": "gelu"')
    assert changed != config
    (broken / "config.json").write_text(changed, "utf-8")
    with pytest.raises(errors.CheckpointUnsupported):
        converter.convert(broken, tmp_path / "new-f16.gguf", "f16", Library())
    assert not [*tmp_path.glob("new*")]
