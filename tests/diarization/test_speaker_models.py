"""The models come out of the library's own file, and are the same models."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from not_tested import missing_extra

from sidecar.audio import Block
from sidecar.checkpoints import onnx_models
from sidecar.diarization import speaker_models
from sidecar.diarization.segmentation_graph import build_segmentation_graph
from sidecar.diarization.speaker_models import (
    ENCODER,
    SEGMENTATION,
    SpeakerEncoder,
    SpeakerModels,
    SpeakerModelsUnavailable,
    build_trunk_graph,
    find_speaker_models,
    load_models,
    log_mel_features,
)


def test_log_mel_features_equal_those_of_kaldi(play: Block) -> None:
    theirs = pytest.importorskip("transformers.audio_utils", reason=missing_extra("transformers"))
    filters = theirs.mel_filter_bank(
        257, 80, 20.0, 8000.0, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    energies = theirs.spectrogram(
        play[:80_000].astype(np.float64) * 32768,
        np.hamming(400),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.1920929e-07,
        remove_dc_offset=True,
    ).T
    assert log_mel_features(play[:80_000]) == pytest.approx(
        energies - energies.mean(axis=0), abs=1e-3
    )


@pytest.fixture(scope="module")
def wheels_segmentation() -> onnxruntime.InferenceSession:
    model = find_speaker_models()[SEGMENTATION]
    return onnx_models.create_session(model, onnx_models.session_options())


def test_segmentation_equals_the_wheels_and_no_speech_probability_agrees_with_it(
    models: SpeakerModels, wheels_segmentation: onnxruntime.InferenceSession, play: Block
) -> None:
    windows = np.stack([play[at : at + 160_000] for at in range(0, 160_000, 40_000)])[:, None]
    (expected,) = wheels_segmentation.run(None, {"waveforms": windows})
    found, no_speech = models.segmentation.run(None, {"waveforms": windows})
    assert np.array_equal(found, expected)
    assert found.any(axis=1).all(axis=0).any()
    spoken = found.any(axis=2)
    assert not spoken[no_speech > 0.5].any()
    assert 0.0 <= no_speech[spoken].mean() < 0.2 < 0.7 < no_speech[~spoken].mean() <= 1.0


def test_segmentation_computes_no_weights_at_a_call_unlike_the_wheels(tmp_path: Path) -> None:
    wheels = find_speaker_models()[SEGMENTATION]
    ours = build_segmentation_graph(onnx_models.parse_ort_model(wheels, "the segmentation"))
    weights_from_levels = {"Cast", "Sub", "Mul"}
    assert executed_operators(wheels, tmp_path) >= weights_from_levels
    assert not executed_operators(ours, tmp_path) & weights_from_levels


def executed_operators(model: str | bytes, folder: Path) -> set[str]:
    """Names of the kernels that a model runs at a call."""
    options = onnx_models.session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnx_models.create_session(model, options)
    session.run(None, {"waveforms": np.zeros((1, 1, 160_000), np.float32)})
    profile = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return {event["args"]["op_name"] for event in profile if "op_name" in event.get("args", {})}


def _trunk(*, quantized: bool) -> onnxruntime.InferenceSession:
    encoder = onnx_models.parse_ort_model(find_speaker_models()[ENCODER], "the encoder")
    graph = build_trunk_graph(
        lambda name: speaker_models.encoder_weights(encoder, f"/resnet/{name}/Conv"),
        quantized=quantized,
    )
    return onnx_models.create_session(graph, onnx_models.session_options())


@pytest.fixture(scope="module")
def exact(models: SpeakerModels) -> SpeakerModels:
    return dataclasses.replace(models, trunk=_trunk(quantized=False))


def test_speaker_encoder_split_into_two_parts_gives_the_embedding_of_the_whole_one(
    exact: SpeakerModels, play: Block
) -> None:
    whole = onnxruntime.InferenceSession(
        find_speaker_models()[ENCODER], providers=["CPUExecutionProvider"]
    )
    sound = play[80_000:160_000]
    mask = np.zeros(63, np.float32)
    mask[10:40] = 1
    features = log_mel_features(sound)
    weights = np.repeat(mask, 8)[: len(features)]
    (expected,) = whole.run(None, {"fbank": features[None], "weights": weights[None]})[0]
    encoder = SpeakerEncoder(exact)
    frames = encoder.frames(sound)
    assert frames.shape == (63, 2560)
    # The whole one spreads the mask over the trunk's frames by itself, almost as it was made here.
    spread = weights[np.arange(63) * len(features) // 63]
    found = encoder.pooled(frames, spread)
    assert found is not None
    assert found @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-4)
    assert encoder.vector(sound) @ found < 0.999


def test_trunk_in_8_bits_changes_an_embedding_little(exact: SpeakerModels, play: Block) -> None:
    rough = SpeakerEncoder(dataclasses.replace(exact, trunk=_trunk(quantized=True)))
    for begin in (0, 160_000):
        sound = play[begin : begin + 64_000]
        assert rough.vector(sound) @ SpeakerEncoder(exact).vector(sound) > 0.98
        assert not np.array_equal(rough.frames(sound), SpeakerEncoder(exact).frames(sound))


@pytest.mark.parametrize("faster", ["8 bits", "float"])
def test_quantized_or_float_trunk_is_chosen_by_which_runs_faster(
    faster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_models.create_session
    clock = [0.0]
    monkeypatch.setattr(speaker_models, "time", SimpleNamespace(thread_time=lambda: clock[0]))

    class Slowed:
        def __init__(self, session: onnxruntime.InferenceSession) -> None:
            self._session = session

        def run(self, *given: object) -> object:
            clock[0] += 1.0
            return self._session.run(*given)

    def session(
        model: bytes, options: onnxruntime.SessionOptions
    ) -> onnxruntime.InferenceSession | Slowed:
        kind = "8 bits" if b"QLinearConv" in model else "float"
        made = real(model, options)
        return made if kind == faster or model[4:8] == onnx_models.ORT_MAGIC else Slowed(made)

    monkeypatch.setattr(onnx_models, "create_session", session)
    assert isinstance(load_models().trunk, onnxruntime.InferenceSession)


def test_speaker_models_load_without_memfd_and_without_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    assert load_models().bias.shape == (256,)


@pytest.mark.parametrize("missing", ["the models", "moonshine_voice", "onnxruntime"])
def test_missing_speaker_models_or_packages_raise_speaker_models_unavailable(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ENCODER
    if missing == "the models":
        encoder = dataclasses.replace(ENCODER, digest="of another release")
    elif missing == "moonshine_voice":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SpeakerModelsUnavailable) as raised:
        load_models(encoder)
    assert len(str(raised.value)) > 30
