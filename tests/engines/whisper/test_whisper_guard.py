"""When the model is not believed, and how it is loaded: tables."""

from __future__ import annotations

from random import Random

import pytest

from sidecar import errors
from sidecar.engines.whisper.whisper_decoder import (
    choose_device,
    compute_type_of,
    cpu_threads,
    is_silence,
    tokens_before_loop,
)
from sidecar.interfaces.engine_interface import Precision

PLAIN = list(range(100, 160))
LOOP = [*PLAIN[:20], *[7, 8, 9] * 60]


@pytest.mark.parametrize(
    ("tokens", "characters", "seconds", "ended", "kept"),
    [
        pytest.param(PLAIN, 240, 20, True, None, id="plain speech"),
        pytest.param(PLAIN, 240, 20, False, None, id="plain speech that is cut off"),
        pytest.param(LOOP, 600, 30, True, None, id="people repeat themselves, too"),
        pytest.param(LOOP, 600, 30, False, 23, id="a loop without an end: one copy stays"),
        pytest.param(LOOP, 600, 5, True, 23, id="more than five seconds hold"),
        pytest.param([1, 5, 1, 3, 2, 5, 4] * 3 + [5, 2, 1], 900, 5, True, None, id="too short"),
    ],
)
def test_a_loop_is_told_from_speech(
    tokens: list[int], characters: int, seconds: float, ended: bool, kept: int | None
) -> None:
    assert tokens_before_loop(tokens, "x" * characters, seconds, ended=ended) == kept


def test_few_words_without_a_period_are_a_loop_too() -> None:
    tokens = Random(1).choices(range(11), k=200)
    assert tokens_before_loop(tokens, "x" * 800, 30, ended=False) == 0


@pytest.mark.parametrize(
    ("no_speech", "log_probability", "silence"),
    [(0.9, -1.5, True), (0.9, -0.3, False), (0.1, -1.5, False)],
)
def test_silence_is_believed_when_the_words_are_unlikely_as_well(
    no_speech: float, log_probability: float, silence: bool
) -> None:
    assert is_silence(no_speech, log_probability) is silence


CPU, GPU = {"int8", "int8_float32", "float32"}, {"int8_float16", "float16", "float32"}


@pytest.mark.parametrize(
    ("precision", "device", "supported", "used", "name"),
    [
        ("auto", "cpu", CPU, "int8", "int8"),
        ("int8", "cuda", GPU, "int8", "int8_float16"),
        ("fp16", "cuda", GPU, "fp16", "float16"),
        ("fp16", "cpu", CPU, "fp32", "float32"),
        ("fp32", "cpu", CPU, "fp32", "float32"),
        ("int4", "cpu", CPU, "int8", "int8"),
        ("int8", "cpu", {"float32"}, "fp32", "float32"),
    ],
)
def test_precisions_are_ctranslate2s_as_far_as_the_device_has_them(
    precision: str, device: str, supported: set[str], used: str, name: str
) -> None:
    assert compute_type_of(Precision(precision), device, supported) == (Precision(used), name)


def test_the_device_is_what_is_asked_for_or_an_error() -> None:
    assert [choose_device("auto", 0), choose_device("auto", 1), choose_device("cpu", 1)] == [
        "cpu",
        "cuda",
        "cpu",
    ]
    with pytest.raises(errors.ModelLoadFailed):
        choose_device("cuda", 0)


def test_half_of_the_cores_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, used in ((1, 1), (2, 1), (4, 2), (12, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert cpu_threads() == used
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
