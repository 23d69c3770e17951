"""How many windows go through a card at once."""

from __future__ import annotations

import pytest

from sidecar.engines.vibevoice import vibevoice_windows
from sidecar.gpu_memory.memory_admission import Admission, Memory
from sidecar.gpu_memory.memory_footprint import FULL, Work, cache_bytes, peak_bytes, weights_bytes
from sidecar.gpu_memory.memory_plan import BORDER_S, SHORTEST_S, plan_job, windows_in_step
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions, Windowing

GB = 1 << 30
HOUR = 3600.0


@pytest.mark.parametrize("audio_s", [601.0, 1800.0, HOUR, 3 * HOUR])
@pytest.mark.parametrize("most", [2, 5, 8])
@pytest.mark.parametrize("card_gb", [80, 141])
def test_a_big_card_takes_as_many_as_may_be_and_they_cover_the_recording(
    audio_s: float, most: int, card_gb: int
) -> None:
    plan = windows_in_step(FULL, Precision.BF16, audio_s, most, card_gb * GB)
    assert plan is not None
    assert plan.together == min(most, int(audio_s // SHORTEST_S))
    assert SHORTEST_S < plan.window_s <= HOUR
    if plan.window_s < HOUR:
        assert plan.together * (plan.window_s - BORDER_S) >= audio_s - 1e-6


def test_what_is_planned_for_fits_and_one_more_window_would_not() -> None:
    available = 24 * GB
    plan = windows_in_step(FULL, Precision.BF16, 3 * HOUR, 8, available)
    more = windows_in_step(FULL, Precision.BF16, 3 * HOUR, 8, available + 16 * GB)
    assert plan is not None
    assert more is not None
    assert plan.together < more.together
    one = Work.of(FULL, plan.window_s)
    caches = plan.together * cache_bytes(FULL, Precision.BF16, one.positions)
    if plan.cache_tokens >= one.positions:
        assert weights_bytes(FULL, Precision.BF16, plan) + caches < available


def test_a_small_card_and_a_short_recording_have_one_window() -> None:
    tight = plan_job(FULL, Precision.BF16, Work.of(FULL, 700.0), 80 * GB).plan
    least = peak_bytes(FULL, Precision.BF16, tight, Work.of(FULL, 60.0)).total
    assert windows_in_step(FULL, Precision.BF16, HOUR, 8, least) is None
    assert windows_in_step(FULL, Precision.BF16, 2 * SHORTEST_S - 1, 8, 141 * GB) is None


def test_the_price_of_a_border_is_the_engines() -> None:
    assert BORDER_S == vibevoice_windows.SEARCH_S + vibevoice_windows.OVERLAP_S


@pytest.mark.parametrize("audio_s", [1800.0, None])
def test_a_client_that_asks_gets_them_with_one_at_a_time_to_fall_back_on(
    audio_s: float | None,
) -> None:
    admission = Admission(FULL, (Precision.BF16,), None)
    now = Memory(141 * GB, None, on_gpu=True)
    asked = TranscribeOptions(windows=Windowing.PARALLEL)
    options = admission.planned(Precision.BF16, audio_s, asked, now)
    assert options.memory.together > 1
    assert options.memory_fallback is not None
    assert options.memory_fallback.together == 1
    plain = admission.planned(Precision.BF16, audio_s, TranscribeOptions(), now)
    assert plain.memory.together == 1
