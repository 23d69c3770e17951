"""Every recording on every card: admitted, and within the memory that is free."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.gpu_memory import cards
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    PROMPT_TOKENS,
    VIBEVOICE_7B_SHAPE,
    WINDOW_S,
    RecordingWork,
    last_positions,
    reserve_bytes,
)
from sidecar.gpu_memory.memory_plan import BATCHED_WINDOW_S, MIN_WINDOW_S, windows_of
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    WindowingMode,
)

GIB = 1 << 30
CARDS_GB = (6, 8, 10, 11, 12, 16, 24, 32, 48, 80, 96)
DESKTOPS_GB = (0.0, 0.7, 2.0)
PRECISIONS = (Precision.BF16, Precision.INT8, Precision.INT4)
ADMISSION = MemoryAdmission(VIBEVOICE_7B_SHAPE, PRECISIONS, None)
SHARED = MemoryAdmission(VIBEVOICE_7B_SHAPE, PRECISIONS, None, concurrency=8)


def free(gigabytes: float) -> MemoryState:
    return MemoryState(int(gigabytes * GIB), None, on_gpu=True)


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
        ADMISSION.peak_bytes(precision, audio_s, replace(wanted, memory=plan)) for plan in plans
    ]
    assert peaks[0] <= now.free_bytes
    assert peaks == sorted(set(peaks), reverse=True), "the fallback takes less"
    for plan in plans:
        assert plan.window_s <= WINDOW_S
        if windows_of(audio_s, plan.window_s) > 1:
            assert plan.window_s >= MIN_WINDOW_S
            assert windows_of(audio_s, plan.window_s) * plan.window_s >= audio_s


@given(
    card=st.sampled_from(CARDS_GB),
    precision=st.sampled_from(PRECISIONS),
    seconds=st.lists(st.floats(1, 36_000), min_size=2, max_size=3),
    prompt=st.sampled_from(["", "Nagg, Nell, " * 40, "Nagg, Nell, " * 340]),
    mode=st.sampled_from(WindowingMode),
)
def test_recordings_batched_together_share_one_memory_plan_and_those_alone_have_their_own(
    card: int, precision: Precision, seconds: list[float], prompt: str, mode: WindowingMode
) -> None:
    wanted, now = TranscribeOptions(windows=mode, prompt=prompt), free(card)
    if not ADMISSION.estimate(precision, MIN_WINDOW_S, TranscribeOptions(), now)[0].fits:
        return
    plans = set[MemoryPlan]()
    each = RecordingWork.of(VIBEVOICE_7B_SHAPE, BATCHED_WINDOW_S)
    text = PROMPT_TOKENS + len(prompt) // 2
    for audio_s in seconds:
        alone = ADMISSION.planned(precision, audio_s, wanted, now).memory
        options = SHARED.planned(precision, audio_s, wanted, now)
        plan, estimate = options.memory, SHARED.estimate(precision, audio_s, wanted, now)[0]
        assert SHARED.peak_bytes(precision, audio_s, options) <= now.free_bytes
        own = ADMISSION.estimate(precision, audio_s, wanted, now)[0]
        assert replace(estimate, shared_plan=None) == own, "others are not in what it takes"
        assert plan.window_s >= min(alone.window_s, audio_s), "its words do not depend on others"
        drawing = replace(wanted, temperature=0.2)
        assert SHARED.planned(precision, audio_s, drawing, now).memory == alone
        if not plan.places:
            assert plan == alone
            continue
        assert (options.memory_alone or plan).together == alone.together
        plans.add(replace(plan, window_s=0.0, together=1, weight=1))
        one = RecordingWork.of(
            VIBEVOICE_7B_SHAPE, audio_s, text_tokens=text, window_s=plan.window_s
        )
        assert plan.together * plan.weight <= plan.places
        assert plan.weight * last_positions(plan, each) >= last_positions(plan, one)
        assert plan.weight * each.prompt_tokens >= one.prompt_tokens
        joins = SHARED.planned(precision, audio_s, wanted, free(card - 0.3), plan_beside=plan)
        assert joins.memory.places == plan.places, "it has the plan of those that run"
    assert len(plans) < 2
    if card >= 24 and precision is Precision.INT4 and len(prompt) < 500 and min(seconds) < 900:
        assert plans, "it joins"


@given(claims_s=st.floats(1, 3_600), prompt=st.sampled_from(["", "Nagg, Nell, " * 200]))
def test_recording_longer_than_its_header_claims_stays_within_its_planned_batch_places(
    claims_s: float, prompt: str
) -> None:
    wanted = TranscribeOptions(windows=WindowingMode.SINGLE, prompt=prompt)
    plan = SHARED.planned(Precision.INT4, claims_s, wanted, free(24)).memory
    if not plan.places:
        return
    assert plan.window_s >= claims_s
    text = PROMPT_TOKENS + len(prompt) // 2
    read, each = (
        RecordingWork.of(VIBEVOICE_7B_SHAPE, 36_000.0, text_tokens=text, window_s=plan.window_s),
        RecordingWork.of(VIBEVOICE_7B_SHAPE, BATCHED_WINDOW_S),
    )
    assert last_positions(plan, read) <= plan.weight * last_positions(plan, each)
    assert read.prompt_tokens <= plan.weight * each.prompt_tokens


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "mode"), [(600, "single"), (90, "auto"), (90, "shared")])
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
def test_planned_peak_fits_the_card_and_is_at_most_5_percent_above_the_simulated_one(
    card: int, desktop: float, precision: Precision, minutes: int, mode: str
) -> None:
    pytest.importorskip("transformers")
    import memory_simulation

    now, audio_s = free(card - desktop), 60.0 * minutes
    wanted = TranscribeOptions(windows=WindowingMode("auto" if mode == "shared" else mode))
    admission = SHARED if mode == "shared" else ADMISSION
    options = admission.planned(precision, audio_s, wanted, now)
    plan = options.memory
    work = RecordingWork.of(VIBEVOICE_7B_SHAPE, audio_s, window_s=plan.window_s)
    if plan.places:
        plan, options = replace(plan, together=plan.places), replace(options, memory_alone=None)
        work = RecordingWork.of(VIBEVOICE_7B_SHAPE, BATCHED_WINDOW_S)
    tensors = memory_simulation.simulate(
        memory_simulation.full_size(), precision, plan, work
    ).highest
    simulated = tensors + reserve_bytes(tensors)
    planned = admission.peak_bytes(precision, audio_s, options)
    assert simulated <= planned <= now.free_bytes
    assert planned <= 1.05 * simulated


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("12GB", "12GB"),
        ("24 gb", "24GB"),
        ("RTX 4090", "RTX 4090 24GB"),
        ("rtx-3060-12gb", "RTX 3060 12GB"),
        ("NVIDIA GeForce RTX 4060 Ti 16GB", "RTX 4060 Ti 16GB"),
        ("4070ti super", "RTX 4070 Ti Super 16GB"),
        ("A100 80GB", "A100 80GB"),
        ("a100", "A100 40GB"),
        ("A6000", "RTX A6000 48GB"),
        ("Tesla T4", "T4 16GB"),
    ],
)
def test_gpu_card_is_found_by_memory_size_or_usual_name(text: str, name: str) -> None:
    assert cards.find_card(text).name == name


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("RTX 4095", "RTX 4090 24GB"),
        ("RTX 4090 12GB", "RTX 4090 24GB"),
        ("RTX 306", "RTX 3060 12GB"),
        ("", "12GB"),
        ("Radeon RX 7900 XTX", "12GB"),
        ("\x1b[2J", "12GB"),
    ],
)
def test_unknown_gpu_name_is_refused_with_similar_names_and_without_control_characters(
    text: str, near: str
) -> None:
    with pytest.raises(errors.FieldInvalid) as refused:
        cards.find_card(text)
    assert near in refused.value.hint
    assert "\x1b" not in refused.value.detail


@given(
    card=st.sampled_from([*cards.BANDWIDTHS, *(f"{size}GB" for size in CARDS_GB)]),
    minutes=st.floats(1, 600),
    precision=st.sampled_from([Precision.AUTO, *PRECISIONS]),
)
def test_forecast_for_a_card_agrees_with_its_memory_and_the_next_smaller_and_larger_card(
    card: str, minutes: float, precision: Precision
) -> None:
    named = cards.find_card(card)
    found = cards.forecast_on(named, 60 * minutes, TranscribeOptions(precision=precision))
    assert found.fits is (found.needed_bytes <= found.available_bytes == named.memory_bytes)
    assert (found.seconds or 0) >= (found.least_s or 0)
    assert (found.smaller is None) is (named.gb <= 6)
    assert (found.larger is None) is (named.gb >= 141)
    if found.smaller is not None and found.smaller.fits:
        assert found.fits
    if found.fits and found.larger is not None:
        assert found.larger.fits
        assert found.sentence.startswith(f"{named.name}: fits: ")


def test_card_without_bf16_is_planned_in_fp16() -> None:
    older = cards.find_card("V100 32GB")
    for precision in (Precision.AUTO, Precision.BF16):
        found = cards.forecast_on(older, 3600.0, TranscribeOptions(precision=precision))
        assert found.precision is Precision.FP16
        assert found.fits


def test_forecast_for_a_memory_size_has_the_times_of_its_fastest_and_slowest_card() -> None:
    hour = TranscribeOptions()
    size = cards.forecast_on(cards.find_card("24GB"), 3600.0, hour)
    slow = cards.forecast_on(cards.find_card("L4"), 3600.0, hour)
    fast = cards.forecast_on(cards.find_card("RTX 4090"), 3600.0, hour)
    assert size.least_s == fast.seconds
    assert fast.least_s is None
    assert size.seconds == pytest.approx(slow.seconds, rel=0.1)
    assert size.sentence.endswith(", about 2 minutes to 8 minutes")
