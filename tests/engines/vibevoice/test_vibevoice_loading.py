"""Where the weights come to lie, and that what loads also runs.

Here is no second device; "meta" stands in for it: what lies there has no numbers, and what was
meant for the host has.
"""

import contextlib
import shutil
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_vibevoice

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch
from safetensors.torch import load_file, save_file

from sidecar import errors
from sidecar.engines.vibevoice import VibeVoiceEngine, vibevoice_model
from sidecar.engines.vibevoice.vibevoice_model import (
    EMBEDDING_MODULE,
    ENCODER_MODULES,
    VibeVoiceModel,
    device_map,
    float_type,
    host_modules,
    load_vibevoice,
)
from sidecar.interfaces.engine_interface import LoadOptions, MemoryPlan, Precision

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
ON_HOST = (*ENCODER_MODULES, EMBEDDING_MODULE)
BF16, FP32, INT4, INT8 = Precision.BF16, Precision.FP32, Precision.INT4, Precision.INT8


@pytest.mark.parametrize(
    ("device", "evict_encoders", "host_token_table", "on_the_host"),
    [
        (torch.device("cuda", 0), False, False, ()),
        (torch.device("cuda", 0), True, False, ENCODER_MODULES),
        (torch.device("cuda", 0), False, True, (EMBEDDING_MODULE,)),
        (torch.device("cuda", 0), True, True, (*ENCODER_MODULES, EMBEDDING_MODULE)),
        (CPU, True, True, ()),
    ],
)
def test_device_map_places_planned_parts_on_host(
    device: torch.device, evict_encoders: bool, host_token_table: bool, on_the_host: tuple[str, ...]
) -> None:
    options = LoadOptions(evict_encoders=evict_encoders, host_token_table=host_token_table)
    places = device_map(device, host_modules(options))
    assert {name for name, place in places.items() if place == "cpu"} == set(on_the_host)
    assert {place for name, place in places.items() if name not in on_the_host} == {device}
    assert ("" in places) is (not on_the_host), "'' with others would go through the device"


@pytest.mark.parametrize(
    ("capability", "narrow"), [((7, 5), torch.float16), ((8, 6), torch.bfloat16)]
)
def test_quantized_layers_compute_in_fp16_on_gpu_without_bf16(
    capability: tuple[int, int], narrow: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda", 0)
    assert {float_type(one, gpu) for one in (INT4, INT8)} == {narrow}
    assert (float_type(Precision.FP16, gpu), float_type(INT4, CPU)) == (
        torch.float16,
        torch.bfloat16,
    )


@pytest.mark.parametrize("precision", [INT4, INT8])
def test_quantized_model_in_fp16_is_widened_to_bf16(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vibevoice_model, "float_type", lambda precision, device: torch.float16)
    model = VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("tiny"), precision, CPU))
    assert model.narrow
    model.widen()
    kinds = {one.dtype for one in model.loaded.model.parameters() if one.is_floating_point()}
    assert (model.narrow, kinds) == (False, {torch.bfloat16})
    assert model.loaded.precision is precision
    layer = model.loaded.model.model.language_model.layers[0].self_attn.q_proj
    assert layer(torch.ones(1, 1, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_gpu_memory_of_the_process_is_limited_to_what_is_free_at_load_and_in_each_window(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits: list[tuple[float, torch.device]] = []
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 << 30, 12 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 30)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit)
    )
    monkeypatch.setattr(vibevoice_model, "pick_device", torch.device)
    load = vibevoice_model.load_with_progress(
        LoadOptions(checkpoint=str(tmp_path), device="cuda:0"), load_vibevoice, "vibevoice"
    )
    with contextlib.suppress(AttributeError, AssertionError, RuntimeError, errors.SidecarError):
        next(load)  # here is no GPU
    loaded = SimpleNamespace(processor=None, device=gpu)
    with contextlib.suppress(AttributeError):
        VibeVoiceModel.answers(SimpleNamespace(loaded=loaded), None, None, None, None)  # type: ignore[arg-type]
    assert limits == [(0.75, gpu)] * 2
    vibevoice_model.fail_beyond_free_memory(CPU)
    assert len(limits) == 2


def test_gpu_without_room_at_load_is_model_load_failed_with_its_remedy(tmp_path: Path) -> None:
    def full(*_: Any) -> vibevoice_model.LoadedVibeVoice:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    options = LoadOptions(BF16, str(tmp_path), "cpu")
    with pytest.raises(errors.ModelLoadFailed, match=r"CUDA out of memory: .* in bf16") as failed:
        list(vibevoice_model.load_with_progress(options, full, "vibevoice"))
    assert "smaller precision" in failed.value.hint


def parted(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A checkpoint of which encoders and token table are on the host, the rest elsewhere."""
    monkeypatch.setattr(vibevoice_model, "run_trial_token", lambda *_: None)
    folder = tiny_vibevoice.checkpoint("tiny")
    return load_vibevoice(folder, precision, ELSEWHERE, ON_HOST)


def is_on_the_host(name: str) -> bool:
    return name.startswith((*ENCODER_MODULES, EMBEDDING_MODULE))


@pytest.mark.parametrize("precision", [BF16, INT4])
def test_load_split_between_host_and_device_keeps_the_host_weights_and_leaves_no_hooks(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parted(precision, monkeypatch).model
    whole = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), BF16, CPU).model.state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.is_meta is not is_on_the_host(name), name
        if is_on_the_host(name):
            torch.testing.assert_close(tensor, whole[name], rtol=0, atol=0)
    for module in model.modules():
        left = {"_hf_hook", "_old_forward", "forward", "to", "cuda"} & module.__dict__.keys()
        assert not left, type(module)


def test_int8_load_split_between_host_and_device_gets_as_far_as_weight_conversion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bitsandbytes quantizes 8 bit on the host first, which "meta" cannot: as far as that."""
    with pytest.raises(RuntimeError, match="conversion of the weights"):
        parted(INT8, monkeypatch)


def test_plan_of_a_job_moves_to_the_device_the_weights_that_it_does_not_keep_on_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = VibeVoiceModel(parted(BF16, monkeypatch))
    weights = model.loaded.model
    model.place(MemoryPlan(evict_encoders=True, host_token_table=True))
    table = weights.get_input_embeddings().weight
    assert not table.is_meta
    for name, tensor in weights.state_dict().items():
        assert tensor.is_meta is not name.startswith(EMBEDDING_MODULE), name
    model.place(MemoryPlan())
    assert all(tensor.is_meta for tensor in weights.state_dict().values())


def test_load_on_cpu_is_not_split() -> None:
    folder = tiny_vibevoice.checkpoint("tiny")
    model = load_vibevoice(folder, FP32, CPU, ON_HOST).model
    assert {parameter.device for parameter in model.parameters()} == {CPU}
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())


@pytest.mark.parametrize("precision", [FP32, INT8])
def test_load_runs_trial_token_through_all_layers(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    run_once = vibevoice_model.run_trial_token

    def watched(model: Any, at: Precision) -> None:
        for layer in model.model.language_model.layers:
            layer.register_forward_hook(lambda *_: ran.append(torch.is_inference_mode_enabled()))
        run_once(model, at)

    monkeypatch.setattr(vibevoice_model, "run_trial_token", watched)
    model = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), precision, CPU).model
    assert ran == [True] * len(model.model.language_model.layers)


def test_installed_bitsandbytes_has_the_fused_4_bit_product_and_0_50_2_is_required() -> None:
    from bitsandbytes.nn import Linear4bit  # loads the operators

    assert Linear4bit.__module__.startswith("bitsandbytes")
    assert "bitsandbytes::gemm_4bit" in torch._C._dispatch_get_all_op_names()
    needed = next(one for one in requires("vibevoice-asr") or () if one.startswith("bitsandbytes"))
    assert needed.split(";")[0] == "bitsandbytes>=0.50.2"


def test_int4_layers_compute_within_20_percent_of_unquantized_ones() -> None:
    from bitsandbytes.nn import Linear4bit  # four seconds of each process that collects tests

    folder = tiny_vibevoice.checkpoint("tiny")
    quantized = load_vibevoice(folder, INT4, CPU).model
    whole = load_vibevoice(folder, BF16, CPU).model
    layers = [
        (name, layer) for name, layer in quantized.named_modules() if isinstance(layer, Linear4bit)
    ]
    assert len(layers) == 7 * len(whole.model.language_model.layers)
    dice = torch.Generator().manual_seed(0)  # the process's own are as other tests left them
    with torch.inference_mode():
        for name, layer in layers:
            given = torch.randn(5, layer.in_features, dtype=torch.bfloat16, generator=dice)
            wanted = whole.get_submodule(name)(given).float()
            off = (layer(given).float() - wanted).norm() / wanted.norm()
            assert off < 0.2, (name, off)


def test_int4_load_on_cpu_of_a_width_that_is_no_multiple_of_64_is_refused(tmp_path: Path) -> None:
    """288 is no multiple of 64: packing fails, and without packing the scales are of other rows."""
    folder = tiny_vibevoice.with_odd_width(tmp_path / "odd")
    with pytest.raises(errors.ModelLoadFailed, match="multiples of 64, not 288") as failed:
        load_vibevoice(folder, INT4, CPU)
    assert failed.value.hint == "Use another precision."


@pytest.fixture(scope="module")
def too_large_for_8_bit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with weights that 32 and 16 bit hold, and not fp16, through which 8 bit goes."""
    folder = tmp_path_factory.mktemp("large") / "checkpoint"
    shutil.copytree(tiny_vibevoice.checkpoint("tiny"), folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["language_model.model.layers.0.mlp.gate_proj.weight"][0] = 1e5
    save_file(weights, file, metadata={"format": "pt"})
    return str(folder)


def test_trial_token_with_values_that_are_not_finite_fails_the_load(
    too_large_for_8_bit: str,
) -> None:
    said = "cannot be run in int8 on this machine: its values are not finite"
    with pytest.raises(errors.ModelLoadFailed, match=said) as failed:
        list(VibeVoiceEngine().load(LoadOptions(INT8, too_large_for_8_bit, "cpu")))
    assert failed.value.hint.startswith("Use another precision")


def test_failed_trial_token_fails_the_load_with_the_reason_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), FP32, CPU).model
    head = model.lm_head
    monkeypatch.setattr(head, "weight", torch.nn.Parameter(head.weight[:, 1:]))
    with pytest.raises(errors.ModelLoadFailed, match="machine: mat1 and mat2") as failed:
        vibevoice_model.run_trial_token(model, FP32)
    assert failed.value.hint == "Use another precision."


def test_out_of_memory_in_the_trial_token_is_raised_as_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), FP32, CPU).model
    monkeypatch.setattr(model.lm_head, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        vibevoice_model.run_trial_token(model, FP32)
