"""The planner against the real model on fake tensors, and its decisions."""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.engines.vibevoice import vibevoice_windows
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    DRAFT_TOKENS,
    VIBEVOICE_7B_SHAPE,
    WINDOW_S,
    ModelFootprint,
    ModelShape,
    RecordingWork,
)
from sidecar.gpu_memory.memory_plan import (
    LOAD_PLANS,
    MAX_WINDOW_LOSS_S,
    MIN_WINDOW_S,
    PREFERRED_PRECISIONS,
    WINDOW_OVERLAP_S,
    DeviceRoom,
    MemoryEstimate,
    batched_windows_plan,
    best_precision,
    estimate_sentence,
    estimated_seconds,
    max_audio_s,
    next_smaller_plan,
    plan_job,
    plan_ladder,
    windows_of,
)
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    WindowingMode,
)

GIB = 1 << 30
FP32, BF16, FP16, INT8, INT4 = (
    Precision(name) for name in ("fp32", "bf16", "fp16", "int8", "int4")
)

# What `memory_simulation` counts at full size: precision, minutes of audio, step of the
# ladder, peak in bytes. A change of the engine's order of operations changes them (the test after
# next says so); `python -m bench.memory --frozen` prints them anew.
FROZEN = [
    (FP32, 1, 0, 33_652_895_744),
    (FP32, 60, 4, 35_458_714_216),
    (BF16, 1, 0, 16_826_447_872),
    (BF16, 1, 2, 16_817_869_848),
    (BF16, 1, 4, 15_616_655_256),
    (BF16, 30, 0, 18_816_299_008),
    (BF16, 30, 2, 17_102_292_328),
    (BF16, 60, 0, 20_631_158_784),
    (BF16, 60, 1, 19_201_740_032),
    (BF16, 60, 2, 18_940_978_536),
    (BF16, 60, 4, 17_850_983_784),
    (INT8, 1, 0, 10_352_591_872),
    (INT8, 1, 3, 10_186_923_928),
    (INT8, 30, 0, 12_459_102_208),
    (INT8, 30, 2, 10_582_566_248),
    (INT8, 60, 0, 14_273_961_984),
    (INT8, 60, 1, 12_844_543_232),
    (INT8, 60, 2, 12_421_252_456),
    (INT8, 60, 4, 11_331_257_704),
    (INT4, 1, 0, 7_256_171_280),
    (INT4, 1, 3, 7_022_482_088),
    (INT4, 30, 0, 9_190_327_056),
    (INT4, 30, 1, 7_760_908_304),
    (INT4, 30, 2, 7_418_124_408),
    (INT4, 60, 0, 11_005_186_832),
    (INT4, 60, 1, 9_575_768_080),
    (INT4, 60, 2, 9_256_810_616),
    (INT4, 60, 4, 8_166_815_864),
]


def hour(minutes: float = 60.0) -> RecordingWork:
    return RecordingWork.of(VIBEVOICE_7B_SHAPE, 60.0 * minutes)


def model(precision: Precision) -> ModelFootprint:
    return ModelFootprint(VIBEVOICE_7B_SHAPE, precision)


@pytest.mark.parametrize(("precision", "minutes", "step", "simulated"), FROZEN)
def test_planned_memory_is_0_to_5_percent_above_simulated(
    precision: Precision, minutes: int, step: int, simulated: int
) -> None:
    work = hour(minutes)
    planned = model(precision).peak(plan_ladder(work)[step], work).tensors
    assert simulated <= planned <= 1.05 * simulated


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "minutes", "step"), [(BF16, 1, 2), (INT8, 60, 0), (INT4, 30, 2)]
)
def test_simulated_memory_is_that_of_stored_figures(
    precision: Precision, minutes: int, step: int
) -> None:
    pytest.importorskip("transformers")
    import memory_simulation

    work = hour(minutes)
    peaks = memory_simulation.simulate(
        memory_simulation.full_size(), precision, plan_ladder(work)[step], work
    )
    frozen = {row[:3]: row[3] for row in FROZEN}
    assert peaks.highest == pytest.approx(frozen[precision, minutes, step], rel=0.001)


@pytest.mark.slow_except("bf16")
@pytest.mark.parametrize(
    ("precision", "layers", "fused"),
    [(BF16, 4, True), (INT8, 28, True), (INT4, 28, True), (FP16, 4, False), (INT8, 28, False)],
)
def test_planned_memory_of_each_phase_is_0_to_5_percent_above_simulated(
    precision: Precision, layers: int, *, fused: bool
) -> None:
    pytest.importorskip("transformers")
    import memory_simulation

    config = memory_simulation.full_size(layers)
    shape = ModelShape.from_config(config.to_dict())

    # Of 20 minutes the first words: the cache grows twice, and each growth is like the other.
    work = replace(RecordingWork.of(shape, 1200.0), output_tokens=1500)
    plan = replace(plan_ladder(work)[3], prefill_tile=300, encoder_chunk_s=5.0, cache_step=700)
    peaks = memory_simulation.simulate(config, precision, plan, work, fused=fused)
    for phase in ModelFootprint(shape, precision, fused).phases(plan, work):
        assert peaks.phases[phase.phase] <= phase.tensors <= 1.05 * peaks.phases[phase.phase]


@pytest.mark.parametrize("size", ["full_size", "small_size"])
def test_parameter_counts_of_a_model_shape_are_those_of_the_model_class(size: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import memory_simulation

    config = getattr(memory_simulation, size)()
    with torch.device("meta"):
        model = transformers.VibeVoiceAsrForConditionalGeneration(config)
    for written in (config.to_dict(), config.to_diff_dict()):
        shape = ModelShape.from_config(written)
        assert shape.parameters == sum(one.numel() for one in model.parameters())
        language = model.model.language_model
        linear = [one.weight for one in language.modules() if isinstance(one, torch.nn.Linear)]
        assert shape.linear_parameters == sum(weight.numel() for weight in linear)
        assert shape.linear_rows == sum(len(weight) for weight in linear)
        outside = sum(one.numel() for one in model.model.parameters())
        outside -= sum(one.numel() for one in language.parameters())
        assert shape.encoder_parameters == outside
        assert (shape == VIBEVOICE_7B_SHAPE) is (size == "full_size")


def test_released_model_has_8_33_billion_parameters_and_15_5_gb_in_16_bit() -> None:
    assert round(VIBEVOICE_7B_SHAPE.parameters / 1e9, 3) == 8.330
    assert round(model(BF16).weights_bytes(MemoryPlan()) / GIB, 2) == 15.52


@pytest.mark.parametrize("config", [{}, {"text_config": None}, {"text_config": {"layers": 3}}])
def test_config_of_other_model_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="VibeVoice"):
        ModelShape.from_config(config)


@pytest.mark.parametrize(
    ("card_gb", "minutes", "precision", "windows"),
    [
        (24, 60, BF16, 1),
        (24, 60, FP16, 1),
        (24, 1, FP32, 0),
        (16, 60, INT8, 1),
        (16, 30, BF16, 1),
        (16, 60, BF16, 3),
        (16, 600, BF16, 22),
        (15, 1, BF16, 0),
        (12, 60, INT8, 1),
        (8, 30, INT4, 1),
        (8, 45, INT4, 1),
        (8, 60, INT4, 2),
        (8, 120, INT4, 3),
        (8, 1, INT8, 0),
        (6, 1, INT4, 0),
    ],
)
def test_recording_is_planned_in_the_fewest_windows_that_fit_on_gpu(
    card_gb: int, minutes: int, precision: Precision, windows: int
) -> None:
    estimate = plan_job(model(precision), hour(minutes), DeviceRoom(card_gb * GIB))
    assert estimate.fits is (windows > 0)
    assert (estimate.peak_bytes <= card_gb * GIB) is (windows > 0)
    if windows:
        assert estimate.windows == windows


@pytest.mark.parametrize("precision", [FP32, BF16, INT8, INT4])
def test_load_with_parts_on_host_takes_less_memory_than_its_job(precision: Precision) -> None:
    """A second of audio, so that nothing but weights counts."""
    second = RecordingWork.of(VIBEVOICE_7B_SHAPE, 1.0)
    for plan in plan_ladder(second)[1:]:
        load, *others = model(precision).phases(plan, second)
        assert load.phase == "load"
        assert load.tensors < max(phase.tensors for phase in others)
    everything, *less = (model(precision).loading(memory).weights for memory in LOAD_PLANS)
    assert everything > less[0] > less[1] == model(precision).weights_bytes(LOAD_PLANS[-1])


def test_draft_tokens_of_memory_plan_equal_the_draft_width_of_the_decoder() -> None:
    pytest.importorskip("transformers")
    from sidecar.engines.vibevoice.vibevoice_decoder import DRAFT_WIDTH_TOKENS

    assert DRAFT_TOKENS == DRAFT_WIDTH_TOKENS


@given(minutes=st.floats(0.01, 60), precision=st.sampled_from(PREFERRED_PRECISIONS))
def test_plan_with_one_memory_for_host_and_device_moves_nothing_and_has_no_longer_audio(
    minutes: float, precision: Precision
) -> None:
    work = hour(minutes)
    assert not any(plan.evict_encoders or plan.host_token_table for plan in one_memory(work))
    assert plan_ladder(work)[0] == one_memory(work)[0]
    available = 16 * GIB
    together, apart = (
        max_audio_s(model(precision), DeviceRoom(available, apart=one)) for one in (False, True)
    )
    assert together <= apart


def one_memory(work: RecordingWork) -> tuple[MemoryPlan, ...]:
    return plan_ladder(work, apart=False)


def test_less_memory_gives_more_frugal_plan() -> None:
    steps = plan_ladder(hour(60))
    estimates = [
        plan_job(model(INT4), hour(60), DeviceRoom(tenths * GIB // 10))
        for tenths in range(130, 80, -1)
    ]
    chosen = [steps.index(one.plan) for one in estimates if one.windows == 1]
    assert chosen == sorted(chosen)
    assert {0, 1, 2, 4} <= set(chosen)
    assert steps[0] == MemoryPlan(cache_tokens=59_648)


@pytest.mark.parametrize("precision", [BF16, INT8, INT4])
@pytest.mark.parametrize("minutes", [0.1, 5, 60])
def test_each_out_of_memory_is_followed_by_smaller_plan_until_none_is_left(
    precision: Precision, minutes: float
) -> None:
    work = hour(minutes)
    plan: MemoryPlan | None = plan_ladder(work)[0]
    taken = []
    while plan is not None:
        window_s = plan.window_s
        within = work.in_windows(VIBEVOICE_7B_SHAPE, window_s)
        taken.append(model(precision).peak(plan, within).total)
        plan = next_smaller_plan(plan, model(precision), work)
    assert len(taken) >= 2
    assert taken == sorted(set(taken), reverse=True)
    assert window_s == (WINDOW_S if minutes < 10 else 450), "halves of an hour, while five fit"


def test_memory_plan_outside_the_ladder_falls_back_to_the_first_of_the_ladder() -> None:
    own = MemoryPlan(encoder_chunk_s=60.0, prefill_tile=100_000, cache_tokens=100_000)
    assert next_smaller_plan(own, model(BF16), hour(30)) == plan_ladder(hour(30))[0]


@given(
    precision=st.sampled_from(PREFERRED_PRECISIONS),
    available=st.integers(4 * GIB, 26 * GIB),
    more=st.integers(0, 4 * GIB),
)
def test_longest_audio_fits_and_one_second_more_does_not(
    precision: Precision, available: int, more: int
) -> None:
    room = DeviceRoom(available)
    longest = max_audio_s(model(precision), room)
    if longest:
        assert plan_job(model(precision), hour(longest / 60), room).fits
    if longest < WINDOW_S:
        longer = RecordingWork.of(VIBEVOICE_7B_SHAPE, longest + 1)
        found = plan_job(model(precision), longer, room)
        assert not (found.fits and found.windows == 1)
    assert max_audio_s(model(precision), DeviceRoom(available + more)) >= longest


def test_best_precision_is_that_of_longest_windows_if_an_hour_fits_in_none_at_once() -> None:
    models = [*map(model, PREFERRED_PRECISIONS)]
    estimate = best_precision(models, hour(60), DeviceRoom(8 * GIB))
    assert (estimate.fits, estimate.precision, estimate.windows) == (True, INT4, 2)
    assert 45 * 60 < estimate.longest_audio_s < 3600
    least = best_precision(models, hour(60), DeviceRoom(6 * GIB))
    assert (least.fits, least.precision) == (False, INT4)
    assert least.peak_bytes > least.available_bytes


def test_alternative_precisions_are_those_that_fit_in_order_of_preference() -> None:
    def names(card_gb: int) -> list[Precision]:
        admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, tuple(Precision), None)
        now = MemoryState(card_gb * GIB, None, on_gpu=True)
        return [
            one.precision for one in admission.estimate(FP32, 3600.0, TranscribeOptions(), now)[1]
        ]

    assert names(24) == [BF16, INT4, INT8]
    assert names(12) == [INT4, INT8]
    assert names(8) == [INT4]
    assert names(6) == []


def test_recording_longer_than_one_window_takes_the_memory_of_one_window() -> None:
    three_hours = plan_job(model(BF16), hour(180), DeviceRoom(24 * GIB, 1e12))
    one_hour = plan_job(model(BF16), hour(60), DeviceRoom(24 * GIB, 1e12))
    assert (three_hours.plan, three_hours.peak_bytes) == (one_hour.plan, one_hour.peak_bytes)
    assert three_hours.audio_s == 3 * one_hour.audio_s
    assert three_hours.seconds == pytest.approx(3 * (one_hour.seconds or 0))


def test_positions_of_a_window_of_one_hour_are_below_the_limit_of_the_model() -> None:
    assert hour(60).positions < 65_536


@pytest.mark.parametrize("precision", PREFERRED_PRECISIONS)
def test_estimated_time_grows_more_than_in_proportion_to_length_and_is_inverse_to_bandwidth(
    precision: Precision,
) -> None:
    def time(minutes: float, bandwidth: float) -> float:
        return estimated_seconds(model(precision), hour(minutes), bandwidth)

    assert time(30, 5e11) == pytest.approx(2 * time(30, 1e12))
    assert time(60, 1e12) > 2 * time(30, 1e12), "a longer cache is read for each token"
    assert plan_job(model(precision), hour(30), DeviceRoom(80 * GIB)).seconds is None


def test_estimated_time_of_an_hour_on_the_fastest_gpu_is_not_below_its_memory_bandwidth() -> None:
    """21,600 tokens at 4.8 TB/s: 15.2 GB of weights and 2.2 GB of cache for each."""
    assert 21_600 * 17.4e9 / 4.8e12 < estimated_seconds(model(BF16), hour(60), 4.8e12) < 180


def estimate(**values: Any) -> MemoryEstimate:
    return replace(
        MemoryEstimate(
            fits=True,
            precision=INT8,
            plan=MemoryPlan(),
            peak_bytes=int(11.2 * GIB),
            available_bytes=int(15.9 * GIB),
            audio_s=600.0,
            seconds=240.0,
            longest_audio_s=3600.0,
        ),
        **values,
    )


NEVER = {"fits": False, "longest_audio_s": 0.0}
WINDOWS = {"audio_s": 7200.0, "plan": MemoryPlan(window_s=2700.0)}


@pytest.mark.parametrize(
    "row",
    [
        ({}, "fits: int8, 11.2 of 15.9 GB, about 4 minutes"),
        ({"seconds": None}, "fits: int8, 11.2 of 15.9 GB"),
        ({"seconds": 0.2}, "fits: int8, 11.2 of 15.9 GB, about 1 second"),
        ({"seconds": 41.0}, "fits: int8, 11.2 of 15.9 GB, about 41 seconds"),
        ({"seconds": 60.0}, "fits: int8, 11.2 of 15.9 GB, about 1 minute"),
        (WINDOWS, "fits: int8, 11.2 of 15.9 GB, in 3 windows of 45 minutes, about 4 minutes"),
        ({"fits": False}, "does not fit; int4 would", INT4),
        ({"fits": False}, "does not fit; int8 or int4 would", INT8, INT4),
        ({"fits": False}, "does not fit; 60 minutes of it would, in int8"),
        (NEVER | {"available_bytes": 8 * GIB}, "does not fit: int8 takes 11.2 GB, 8.0 GB are free"),
        ({"fits": False, "longest_audio_s": 40.0}, "does not fit; 40 seconds of it would, in int8"),
        (
            NEVER | {"available_bytes": GIB, "unlimited_bytes": 21 * GIB},
            "does not fit: int8 takes 11.2 GB, the setting 'memory_limit_mb' allows 1.0 of the "
            "21.0 GB that are free; raise that setting",
        ),
    ],
)
def test_estimate_sentence_says_whether_it_fits_with_size_windows_time_or_what_would_fit(
    row: tuple[Any, ...],
) -> None:
    """What is known, the sentence, and other precisions that fit."""
    known, said, *others = row
    assert estimate_sentence(estimate(**known), [estimate(precision=one) for one in others]) == said


HOUR = 3600.0


@pytest.mark.parametrize("audio_s", [601.0, 1800.0, HOUR, 3 * HOUR])
@pytest.mark.parametrize("most", [2, 5, 8])
def test_big_gpu_takes_equal_batches_of_windows_of_about_five_minutes(
    audio_s: float, most: int
) -> None:
    plan = batched_windows_plan(model(BF16), hour(audio_s / 60), DeviceRoom(80 * GIB), most)
    assert plan is not None
    assert MIN_WINDOW_S < plan.window_s <= 400
    windows = windows_of(audio_s, plan.window_s)
    batches = ceil(windows / most)
    assert 2 <= plan.together <= most
    assert batches * plan.together >= windows > batches * (plan.together - 1)


def test_estimated_time_falls_with_the_number_of_windows_in_a_batch() -> None:
    def time(together: int) -> float:
        work = RecordingWork.of(VIBEVOICE_7B_SHAPE, HOUR, window_s=390.0)
        return estimated_seconds(model(BF16), work, 1e12, together)

    assert time(2) < time(1)
    assert time(1) / 8 < time(8) < time(2) / 2


def test_more_memory_gives_a_batch_of_more_windows() -> None:
    plan, more = (
        batched_windows_plan(model(BF16), hour(180), DeviceRoom(size * GIB)) for size in (17, 33)
    )
    assert plan is not None
    assert more is not None
    assert 1 < plan.together < more.together


def test_small_gpu_or_short_recording_has_no_batch_of_windows() -> None:
    window = RecordingWork.of(VIBEVOICE_7B_SHAPE, HOUR, window_s=400.0)
    least = model(BF16).peak(plan_ladder(window)[-1], window).total
    assert batched_windows_plan(model(BF16), hour(60), DeviceRoom(least)) is None
    assert batched_windows_plan(model(BF16), hour(9.9), DeviceRoom(141 * GIB)) is None


def test_window_overlap_and_border_loss_of_memory_plan_equal_those_of_the_engine() -> None:
    assert WINDOW_OVERLAP_S == vibevoice_windows.OVERLAP_S
    assert MAX_WINDOW_LOSS_S == vibevoice_windows.BORDER_SEARCH_S + vibevoice_windows.OVERLAP_S


@pytest.mark.parametrize("audio_s", [1800.0, None])
def test_parallel_windows_have_fallback_of_one_at_a_time(audio_s: float | None) -> None:
    admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, (Precision.BF16,), None)
    now = MemoryState(141 * GIB, None, on_gpu=True)
    asked = TranscribeOptions(windows=WindowingMode.PARALLEL)
    options = admission.planned(Precision.BF16, audio_s, asked, now)
    assert options.memory.together > 1
    assert options.memory_fallback is not None
    assert options.memory_fallback.together == 1
    single = TranscribeOptions(windows=WindowingMode.SINGLE)
    assert admission.planned(Precision.BF16, audio_s, single, now).memory.together == 1


@pytest.mark.parametrize(
    ("minutes", "on_gpu", "mode", "batched"),
    [
        (16, True, WindowingMode.AUTO, True),
        (15, True, WindowingMode.AUTO, False),
        (16, False, WindowingMode.AUTO, False),
        (16, True, WindowingMode.SINGLE, False),
        (11, True, WindowingMode.PARALLEL, True),
        (9, True, WindowingMode.PARALLEL, False),
        (11, False, WindowingMode.PARALLEL, True),
    ],
)
def test_windows_are_batched_on_gpu_over_fifteen_minutes_or_on_request(
    minutes: int, on_gpu: bool, mode: WindowingMode, batched: bool
) -> None:
    admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, (Precision.BF16,), None)
    now = MemoryState(141 * GIB, None, on_gpu=on_gpu, bandwidth=1e12)
    options = TranscribeOptions(windows=mode)
    planned = admission.planned(Precision.BF16, 60.0 * minutes, options, now)
    assert (planned.memory.together > 1) is batched
    found, _ = admission.estimate(Precision.BF16, 60.0 * minutes, options, now)
    assert (found.windows > 1) is batched
    assert (" at once" in estimate_sentence(found)) is batched
    assert admission.peak_bytes(Precision.BF16, 60.0 * minutes, planned) == found.peak_bytes
