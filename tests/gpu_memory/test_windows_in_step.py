"""How many windows go through a card at once."""

from __future__ import annotations

import pytest

from sidecar.engines.vibevoice import vibevoice_windows
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    VIBEVOICE_7B_SHAPE,
    RecordingWork,
    cache_bytes,
    peak_bytes,
    weights_bytes,
)
from sidecar.gpu_memory.memory_plan import (
    MAX_WINDOW_LOSS_S,
    MIN_WINDOW_S,
    batched_windows_plan,
    plan_job,
)
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions, WindowingMode

GB = 1 << 30
HOUR = 3600.0


@pytest.mark.parametrize("audio_s", [601.0, 1800.0, HOUR, 3 * HOUR])
@pytest.mark.parametrize("most", [2, 5, 8])
@pytest.mark.parametrize("card_gb", [80, 141])
def test_a_big_card_takes_as_many_as_may_be_and_they_cover_the_recording(
    audio_s: float, most: int, card_gb: int
) -> None:
    plan = batched_windows_plan(VIBEVOICE_7B_SHAPE, Precision.BF16, audio_s, most, card_gb * GB)
    assert plan is not None
    assert plan.together == min(most, int(audio_s // MIN_WINDOW_S))
    assert MIN_WINDOW_S < plan.window_s <= HOUR
    if plan.window_s < HOUR:
        assert plan.together * (plan.window_s - MAX_WINDOW_LOSS_S) >= audio_s - 1e-6


def test_what_is_planned_for_fits_and_one_more_window_would_not() -> None:
    available = 24 * GB
    plan = batched_windows_plan(VIBEVOICE_7B_SHAPE, Precision.BF16, 3 * HOUR, 8, available)
    more = batched_windows_plan(
        VIBEVOICE_7B_SHAPE, Precision.BF16, 3 * HOUR, 8, available + 16 * GB
    )
    assert plan is not None
    assert more is not None
    assert plan.together < more.together
    one = RecordingWork.of(VIBEVOICE_7B_SHAPE, plan.window_s)
    caches = plan.together * cache_bytes(VIBEVOICE_7B_SHAPE, Precision.BF16, one.positions)
    if plan.cache_tokens >= one.positions:
        assert weights_bytes(VIBEVOICE_7B_SHAPE, Precision.BF16, plan) + caches < available


def test_a_small_card_and_a_short_recording_have_one_window() -> None:
    tight = plan_job(
        VIBEVOICE_7B_SHAPE, Precision.BF16, RecordingWork.of(VIBEVOICE_7B_SHAPE, 700.0), 80 * GB
    ).plan
    least = peak_bytes(
        VIBEVOICE_7B_SHAPE, Precision.BF16, tight, RecordingWork.of(VIBEVOICE_7B_SHAPE, 60.0)
    ).total
    assert batched_windows_plan(VIBEVOICE_7B_SHAPE, Precision.BF16, HOUR, 8, least) is None
    assert (
        batched_windows_plan(VIBEVOICE_7B_SHAPE, Precision.BF16, 2 * MIN_WINDOW_S - 1, 8, 141 * GB)
        is None
    )


def test_the_price_of_a_border_is_the_engines() -> None:
    assert MAX_WINDOW_LOSS_S == vibevoice_windows.BORDER_SEARCH_S + vibevoice_windows.OVERLAP_S


@pytest.mark.parametrize("audio_s", [1800.0, None])
def test_a_client_that_asks_gets_them_with_one_at_a_time_to_fall_back_on(
    audio_s: float | None,
) -> None:
    admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, (Precision.BF16,), None)
    now = MemoryState(141 * GB, None, on_gpu=True)
    asked = TranscribeOptions(windows=WindowingMode.PARALLEL)
    options = admission.planned(Precision.BF16, audio_s, asked, now)
    assert options.memory.together > 1
    assert options.memory_fallback is not None
    assert options.memory_fallback.together == 1
    plain = admission.planned(Precision.BF16, audio_s, TranscribeOptions(), now)
    assert plain.memory.together == 1
