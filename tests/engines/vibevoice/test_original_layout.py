"""Checkpoints in Microsoft's own layout, as first released and as its fine-tuning guide has it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_vibevoice
from engine_requests import SampleStream, request_of, transcript_of

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch
from safetensors.torch import load_file, save_file
from train_tiny_streaming import original_config, original_name

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.checkpoint_variants import read_vibevoice
from sidecar.checkpoints.installed_checkpoints import find_checkpoint
from sidecar.engines.vibevoice.vibevoice_model import (
    LoadedVibeVoice,
    VibeVoiceModel,
    build_prompt_ids,
    load_vibevoice,
)
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.gpu_memory.memory_footprint import ModelShape
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions

CPU = torch.device("cpu")
CLIP = "beckett"
TOKENIZER = "tokenizer.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def converted() -> LoadedVibeVoice:
    return load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP32, CPU)


@pytest.fixture
def original(tmp_path: Path, converted: LoadedVibeVoice) -> Path:
    """The same weights in the original layout, in two files, with the tokenizer beside them."""
    folder = tmp_path / "original"
    folder.mkdir()
    named = converted.model.state_dict().items()
    weights = {original_name(name): one.contiguous() for name, one in named}
    weights["model.acoustic_tokenizer.decoder.head.conv.convtr.weight"] = torch.ones(8, 8)
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    config = original_config(converted.model, "VibeVoiceASRForConditionalGeneration")
    write_json(folder / "config.json", config)
    for name in TOKENIZER:
        shutil.copy(tiny_vibevoice.checkpoint("tiny") / name, folder)
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), "utf-8")


def said(loaded: LoadedVibeVoice, **options: Any) -> list[tuple[float, float, int | None, str]]:
    sound = SampleStream(tiny_vibevoice.clip_24k(CLIP), tiny_vibevoice.RATE)
    request = request_of(sound, TranscribeOptions(max_tokens=200, **options))
    found = transcript_of(VibeVoiceTranscription(VibeVoiceModel(loaded), request).events())
    return [(one.start, one.end, one.speaker, one.text) for one in found.segments]


def test_original_layout_gets_prompt_and_answer_of_the_converted_checkpoint(
    original: Path, converted: LoadedVibeVoice
) -> None:
    loaded = load_vibevoice(original, Precision.FP32, CPU)
    for context in ("", tiny_vibevoice.CONTEXT, "A play.\nNagg"):
        ids, wanted = (
            build_prompt_ids(one.processor, 48_000, context).tolist() for one in (loaded, converted)
        )
        assert ids == wanted
    before, after = converted.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert said(loaded) == said(converted) != []


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8, Precision.INT4])
def test_original_layout_gets_the_answer_of_the_converted_checkpoint_in_every_precision(
    original: Path, precision: Precision
) -> None:
    folders = original, tiny_vibevoice.checkpoint("tiny")
    found, wanted = (said(load_vibevoice(one, precision, CPU)) for one in folders)
    assert found == wanted != []


@pytest.mark.parametrize("layout", ["original", "converted"])
def test_configuration_of_a_checkpoint_is_read_once_at_its_load(
    original: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = original if layout == "original" else tiny_vibevoice.checkpoint("tiny")
    read, found = checkpoint.read_json, list[str]()

    def counted(path: Path) -> dict[str, Any]:
        found.append(path.name)
        return read(path)

    monkeypatch.setattr(checkpoint, "read_json", counted)
    load_vibevoice(folder, Precision.FP32, CPU)
    assert found.count("config.json") == 1


def test_memory_of_the_original_layout_is_planned_as_that_of_the_converted_one(
    original: Path,
) -> None:
    folders = original, tiny_vibevoice.checkpoint("tiny")
    found, wanted = (ModelShape.from_config(read_vibevoice(one).config) for one in folders)
    assert found == wanted
    assert find_checkpoint(original).folder == original


def test_adapter_of_a_model_in_the_original_layout_is_merged_into_it(
    original: Path, converted: LoadedVibeVoice, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    before = converted.model.state_dict()[name]
    up, down = torch.randn(len(before), 4), torch.randn(4, before.shape[1])
    folder, layer = tmp_path / "lora", f"base_model.model.{name.removesuffix('.weight')}"
    folder.mkdir()
    halves = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    save_file(halves, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    write_json(folder / "adapter_config.json", about | {"base_model_name_or_path": str(original)})
    read_vibevoice(folder)
    loaded = load_vibevoice(folder, Precision.FP32, CPU)
    after = loaded.model.state_dict()[name]
    assert torch.allclose(after, before + 2.0 * up @ down, atol=1e-4)


def test_tokenizer_of_the_original_layout_may_be_that_of_qwen_in_the_cache(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub/models--Qwen--Qwen2.5-7B/snapshots" / ("a" * 40)
    cached.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.move(original / name, cached)
    read_vibevoice(original)
    assert said(load_vibevoice(original, Precision.FP32, CPU)) != []


def test_original_layout_without_any_tokenizer_is_refused_with_where_to_get_one(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (original / "tokenizer.json").unlink()
    with pytest.raises(errors.CheckpointIncomplete, match="without a tokenizer") as refused:
        read_vibevoice(original)
    assert "tokenizer.json of Qwen/Qwen2.5-7B" in refused.value.hint


@pytest.mark.parametrize("part", ["acoustic_tokenizer_config", "decoder_config"])
def test_original_layout_whose_configuration_lacks_a_part_is_damaged(
    original: Path, part: str
) -> None:
    config = json.loads((original / "config.json").read_text("utf-8"))
    del config[part]
    write_json(original / "config.json", config)
    with pytest.raises(errors.CheckpointDamaged, match="lacks a part"):
        read_vibevoice(original)


@pytest.mark.parametrize("layout", ["original", "converted"])
def test_checkpoint_that_lacks_a_weight_is_refused_and_no_weight_is_made_up(
    layout: str, original: Path, tmp_path: Path
) -> None:
    folder = original
    if layout == "converted":
        folder = tmp_path / "copy"
        shutil.copytree(tiny_vibevoice.checkpoint("tiny"), folder)
    file = max(folder.glob("*.safetensors"))
    weights = load_file(file)
    lacking = next(name for name in sorted(weights) if "layers.0." in name)
    del weights[lacking]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(errors.ModelLoadFailed, match="lacks weights"):
        load_vibevoice(folder, Precision.FP32, CPU)
