"""Quantized checkpoints load as what they are, and adapters are merged into their models."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_vibevoice
from engine_requests import SampleStream, request_of, transcript_of

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, VibeVoiceAsrForConditionalGeneration

from sidecar.checkpoints.checkpoint_variants import read_vibevoice
from sidecar.engines.vibevoice.vibevoice_model import (
    LoadedVibeVoice,
    VibeVoiceModel,
    load_vibevoice,
)
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.transcripts.transcript import Transcript

CPU = torch.device("cpu")
BF16, FP32, INT4, INT8 = Precision.BF16, Precision.FP32, Precision.INT4, Precision.INT8
CLIP = "beckett"
OPTIONS = TranscribeOptions(max_tokens=60)
"""More than the answer has; a model that has lost it goes on to the limit."""


def transcript(loaded: LoadedVibeVoice) -> Transcript:
    sound = SampleStream(tiny_vibevoice.clip_24k(CLIP), tiny_vibevoice.RATE)
    request = request_of(sound, OPTIONS)
    return transcript_of(VibeVoiceTranscription(VibeVoiceModel(loaded), request).events())


def texts(loaded: LoadedVibeVoice) -> list[str]:
    return [segment.text for segment in transcript(loaded).segments]


def trained() -> list[str]:
    return [segment["Content"] for segment in tiny_vibevoice.answers("tiny")[CLIP]]


@pytest.mark.slow_except("int4")
@pytest.mark.parametrize(("stored", "kind"), [(INT4, "Linear4bit"), (INT8, "Linear8bitLt")])
def test_quantized_checkpoint_loads_in_its_own_precision_whatever_one_is_requested(
    stored: Precision, kind: str, tmp_path: Path
) -> None:
    made = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), stored, CPU)
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    read_vibevoice(tmp_path)
    loaded = load_vibevoice(tmp_path, BF16, CPU)
    layer = loaded.model.model.language_model.layers[0].self_attn.q_proj
    assert type(layer).__name__ == kind
    found = transcript(loaded)
    assert found.precision == stored.value
    assert [segment.text for segment in found.segments] == trained()


def test_checkpoint_with_quantized_encoders_and_projector_loads_and_gives_segments(
    tmp_path: Path,
) -> None:
    """Others quantize with another list of modules to skip, or with none."""
    everything = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
        tiny_vibevoice.checkpoint("tiny"),
        dtype=torch.bfloat16,
        device_map={"": CPU},
        quantization_config=everything,
    )
    model.save_pretrained(tmp_path)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_vibevoice.checkpoint("tiny") / name, tmp_path)
    shutil.copy(tiny_vibevoice.checkpoint("tiny") / "chat_template.jinja", tmp_path)
    loaded = load_vibevoice(tmp_path, INT8, CPU)
    assert loaded.model.model.multi_modal_projector.acoustic_linear_1.weight.dtype == torch.int8
    assert transcript(loaded).segments


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of rank 8 with what its model, ``tiny`` without it, lacks."""
    base, folder = tmp_path / "base", tmp_path / "lora"
    shutil.copytree(tiny_vibevoice.checkpoint("tiny"), base)
    weights = load_file(base / "model.safetensors")
    lora: dict[str, torch.Tensor] = {}
    torch.manual_seed(1)
    for name in [name for name in weights if name.endswith(("q_proj.weight", "up_proj.weight"))]:
        if "language_model" not in name:
            continue
        up, down = torch.randn(len(weights[name]), 8), torch.randn(8, weights[name].shape[1])
        weights[name] = (weights[name].float() - 2.0 * up @ down / 8).to(weights[name].dtype)
        layer = name.removesuffix(".weight").partition("model.layers")[2]
        prefix = f"base_model.model.model.language_model.layers{layer}"
        lora |= {f"{prefix}.lora_A.weight": down / 8, f"{prefix}.lora_B.weight": up}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    folder.mkdir()
    save_file(lora, folder / "adapter_model.safetensors")
    about = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": str(base),
        "target_modules": ["q_proj", "up_proj"], "bias": "none", "use_rslora": False,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(about), "utf-8")
    return folder


@pytest.mark.slow_except("fp32")
@pytest.mark.parametrize("precision", [FP32, INT4])
def test_adapter_is_merged_into_its_model_at_load(adapter: Path, precision: Precision) -> None:
    assert read_vibevoice(adapter).folder == adapter
    assert texts(load_vibevoice(adapter, precision, CPU)) == trained()
    assert texts(load_vibevoice(adapter.parent / "base", FP32, CPU)) != trained()
