"""What VibeVoice that speaks takes, against the real model on fake tensors and on real ones."""

from __future__ import annotations

import json
import wave
from importlib.util import find_spec
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.gpu_memory.memory_admission import LoadPlacement, MemoryState
from sidecar.gpu_memory.memory_footprint import VIBEVOICE_7B_SHAPE, ModelShape
from sidecar.interfaces.engine_interface import MAX_TTS_CHARACTERS, Precision
from sidecar.tts.vibevoice_tts_memory import (
    TtsMemoryAdmission,
    TtsModelShape,
    fits_beside_asr,
    tts_memory_phases,
    tts_peak_bytes,
)

GB = float(1 << 30)
FP32, BF16 = Precision.FP32, Precision.BF16
RELEASED = {
    "text_config": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
}
"""Of `config.json` what is not as in the defaults."""
VOICE = TtsModelShape.from_config(RELEASED)

# What `tts_memory_simulation` counts at full size: precision, characters, seconds of the
# sample, peak in bytes.
FROZEN = [
    (BF16, 100, 10, 5_485_786_578),
    (BF16, MAX_TTS_CHARACTERS, 30, 6_011_528_134),
    (FP32, 100, 10, 10_971_573_156),
    (FP32, MAX_TTS_CHARACTERS, 30, 12_023_056_268),
]


@pytest.mark.parametrize(("precision", "characters", "sample_s", "simulated"), FROZEN)
def test_the_plan_is_never_low_and_at_most_one_percent_high(
    precision: Precision, characters: int, sample_s: float, simulated: int
) -> None:
    planned = max(one.tensors for one in tts_memory_phases(VOICE, precision, characters, sample_s))
    assert simulated <= planned <= 1.01 * simulated


@pytest.mark.slow
def test_the_simulation_still_counts_what_was_frozen_and_each_phase_as_planned() -> None:
    pytest.importorskip("transformers")
    import tts_memory_simulation

    precision, characters, sample_s, frozen = FROZEN[0]
    peaks = tts_memory_simulation.simulate(
        tts_memory_simulation.full_size(), precision, characters, sample_s
    )
    assert peaks.highest == pytest.approx(frozen, rel=0.001)
    weights = VOICE.parameters * 2
    for phase in tts_memory_phases(VOICE, precision, characters, sample_s):
        simulated = peaks.phases[phase.phase]
        assert simulated <= phase.tensors
        if phase.phase != "load":
            assert phase.tensors - weights <= 1.1 * (simulated - weights), phase.phase


@pytest.mark.parametrize("size", ["full_size", "small_size"])
def test_parameters_are_counted_as_the_real_class_has_them(size: str) -> None:
    pytest.importorskip("transformers")
    import tts_memory_simulation

    config = getattr(tts_memory_simulation, size)()
    model = tts_memory_simulation.build(config, BF16)
    shape = TtsModelShape.from_config(json.loads(config.to_json_string(use_diff=False)))
    assert shape.parameters == model.num_parameters()
    if size == "full_size":
        assert shape == VOICE


def test_the_engine_itself_takes_what_is_planned_for_it(tmp_path: Path) -> None:
    """All of it on the CPU, where the sound of a sample is in the same memory as its encoder."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        pytest.skip("the extra 'vibevoice' is not installed")
    import shutil

    import tiny_vibevoice
    import tiny_vibevoice_tts
    from memory_simulation import Counter, Peaks

    from sidecar.interfaces.engine_interface import LoadOptions
    from sidecar.tts import vibevoice_tts_model, vibevoice_tts_synthesis

    folder = tmp_path / "model"
    shutil.copytree(tiny_vibevoice_tts.model(), folder)
    (folder / "voices").mkdir()
    with wave.open(str(tiny_vibevoice.clip_wav("beckett"))) as clip:
        sound = clip.readframes(2 * clip.getframerate())
        with wave.open(str(folder / "voices" / "sam.wav"), "wb") as sample:
            sample.setparams(clip.getparams())
            sample.writeframes(sound)
    loaded = vibevoice_tts_model.load_vibevoice_tts(
        LoadOptions(FP32, str(folder), "cpu", speaks=True)
    )
    peaks = Peaks()
    text = tiny_vibevoice_tts.TEXTS[0]
    with Counter(peaks, "cpu") as counter:
        for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
            counter.count(tensor)
        peaks.begin("work")
        frames = list(
            vibevoice_tts_synthesis.VibeVoiceSynthesizer(loaded).say(text, "sam", lambda: False)
        )
    assert len(frames) > 3
    shape = TtsModelShape.from_config(json.loads((folder / "config.json").read_text()))
    planned = max(one.tensors for one in tts_memory_phases(shape, FP32, len(text), 2.0))
    assert peaks.highest <= planned <= 1.1 * peaks.highest


def free(gigabytes: float, held: Precision | None = None, own: float | None = None) -> MemoryState:
    own_bytes = None if own is None else round(own * GB)
    return MemoryState(round(gigabytes * GB), held, on_gpu=True, own_bytes=own_bytes)


def test_it_is_loaded_where_there_is_room_for_what_it_will_say_too() -> None:
    admission = TtsMemoryAdmission(VOICE, None)
    needed = tts_peak_bytes(VOICE, BF16).total / GB
    assert admission.loaded_bytes(BF16) + admission.work_bytes(BF16) == needed * GB
    assert admission.work_bytes(BF16) > 0.5 * GB, "the longest text is seconds away"
    assert admission.place(BF16, free(needed)).placement is LoadPlacement.BESIDE
    with pytest.raises(errors.WontFit, match=r"6\.3 GB in bf16; 6\.2 GB are free") as refused:
        admission.place(BF16, free(6.24))
    assert "VOICE_ENGINE" in (refused.value.hint or "")
    assert admission.place(BF16, free(1.0, BF16, 6.0)).placement is LoadPlacement.INSTEAD
    with pytest.raises(errors.WontFit):
        TtsMemoryAdmission(VOICE, round(6 * GB)).place(BF16, free(40))
    assert TtsMemoryAdmission(VOICE, round(7 * GB)).place(BF16, free(40, BF16)) == (
        admission.place(BF16, free(1.0, BF16, 6.0))
    )
    assert admission.first_precision(free(80)) is BF16


@pytest.mark.parametrize(
    ("gigabytes", "alone", "beside"),
    [(6, False, False), (8, True, False), (12, True, False), (16, True, True), (24, True, True)],
)
def test_which_card_has_room_for_a_voice_and_for_one_that_hears(
    gigabytes: int, alone: bool, beside: bool
) -> None:
    assert fits_beside_asr(VOICE, None, gigabytes << 30) is alone
    assert fits_beside_asr(VOICE, VIBEVOICE_7B_SHAPE, gigabytes << 30) is beside


def test_the_config_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="config"):
        TtsModelShape.from_config({"model_type": "qwen2"})
    assert VOICE.model == ModelShape.from_config(RELEASED)
