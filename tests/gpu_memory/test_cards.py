"""Every recording on every card: admitted, and within the memory that is free."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    VIBEVOICE_7B_SHAPE,
    WINDOW_S,
    RecordingWork,
    reserve_bytes,
)
from sidecar.gpu_memory.memory_plan import MIN_WINDOW_S, windows_of
from sidecar.interfaces.engine_interface import (
    Precision,
    TranscribeOptions,
    WindowingMode,
)

GIB = 1 << 30
CARDS_GB = (6, 8, 10, 11, 12, 16, 24, 32, 48, 80, 96)
DESKTOPS_GB = (0.0, 0.7, 2.0)
PRECISIONS = (Precision.BF16, Precision.INT8, Precision.INT4)
ADMISSION = MemoryAdmission(VIBEVOICE_7B_SHAPE, PRECISIONS, None)


def free(gigabytes: float) -> MemoryState:
    return MemoryState(int(gigabytes * GIB), None, on_gpu=True)


def fits(precision: Precision, audio_s: float, card: MemoryState) -> bool:
    return ADMISSION.estimate(precision, audio_s, TranscribeOptions(), card)[0].fits


@given(
    card=st.sampled_from(CARDS_GB),
    desktop=st.sampled_from(DESKTOPS_GB),
    precision=st.sampled_from(PRECISIONS),
    minutes=st.floats(1, 600),
    mode=st.sampled_from(WindowingMode),
    prompt=st.sampled_from(["", "Nagg, Nell, " * 40]),
)
def test_recording_is_admitted_within_free_memory_if_five_minutes_fit(
    card: int,
    desktop: float,
    precision: Precision,
    minutes: float,
    mode: WindowingMode,
    prompt: str,
) -> None:
    now, audio_s = free(card - desktop), 60 * minutes
    wanted = TranscribeOptions(windows=mode, prompt=prompt)
    try:
        options = ADMISSION.planned(precision, audio_s, wanted, now)
    except errors.WontFit:
        assert not ADMISSION.estimate(precision, MIN_WINDOW_S, wanted, now)[0].fits
        return
    plans = [plan for plan in (options.memory, options.memory_fallback) if plan is not None]
    peaks = [
        ADMISSION.peak_bytes(precision, audio_s, TranscribeOptions(memory=plan, prompt=prompt))
        for plan in plans
    ]
    assert peaks[0] <= now.free_bytes
    assert peaks == sorted(set(peaks), reverse=True), "the fallback takes less"
    for plan in plans:
        assert plan.window_s <= WINDOW_S
        if windows_of(audio_s, plan.window_s) > 1:
            assert plan.window_s >= MIN_WINDOW_S
            assert windows_of(audio_s, plan.window_s) * plan.window_s >= audio_s


def test_recording_is_refused_only_on_cards_on_which_five_minutes_do_not_fit() -> None:
    refused = {
        (card, precision)
        for card, precision in product(CARDS_GB, PRECISIONS)
        if not fits(precision, MIN_WINDOW_S, free(card))
    }
    assert refused == {
        *((card, Precision.BF16) for card in (6, 8, 10, 11, 12)),
        *((card, Precision.INT8) for card in (6, 8)),
        (6, Precision.INT4),
    }
    for card, precision in refused:
        assert not fits(precision, 36_000, free(card))


@pytest.mark.slow_except("8-0.7-int4-600-auto")
@pytest.mark.parametrize(("minutes", "mode"), [(600, "auto"), (90, "parallel")])
@pytest.mark.parametrize(
    ("card", "desktop", "precision"),
    [
        (8, 0.7, Precision.INT4),
        (12, 0.0, Precision.INT4),
        (11, 0.7, Precision.INT8),
        (16, 0.0, Precision.BF16),
        (24, 0.7, Precision.BF16),
        (96, 0.0, Precision.BF16),
    ],
)
def test_simulated_peak_is_within_planned_one_and_card(
    card: int, desktop: float, precision: Precision, minutes: int, mode: str
) -> None:
    pytest.importorskip("transformers")
    import memory_simulation

    now, audio_s = free(card - desktop), 60.0 * minutes
    wanted = TranscribeOptions(windows=WindowingMode(mode))
    options = ADMISSION.planned(precision, audio_s, wanted, now)
    work = RecordingWork.of(VIBEVOICE_7B_SHAPE, audio_s, window_s=options.memory.window_s)
    tensors = memory_simulation.simulate(
        memory_simulation.full_size(), precision, options.memory, work
    ).highest
    simulated = tensors + reserve_bytes(tensors)
    planned = ADMISSION.peak_bytes(precision, audio_s, options)
    assert simulated <= planned <= now.free_bytes
    assert planned <= 1.05 * simulated
