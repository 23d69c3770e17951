"""What the memory of a machine admits, for the full-size model, by table."""

from dataclasses import replace

import pytest
from many_cases import parametrize_by_name

from sidecar import errors
from sidecar.gpu_memory.gpu_devices import EngineMemoryHolding, GpuMemory, other_processes_bytes
from sidecar.gpu_memory.memory_admission import (
    CPU_CHUNK_S,
    TYPICAL_AUDIO_S,
    LoadPlacement,
    LoadPlan,
    MemoryAdmission,
    MemoryState,
)
from sidecar.gpu_memory.memory_footprint import VIBEVOICE_7B_SHAPE
from sidecar.gpu_memory.memory_plan import LOAD_PLANS
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    WindowingMode,
)

GIB = 1 << 30
BF16, FP16, INT8, INT4, FP32 = (
    Precision(name) for name in ("bf16", "fp16", "int8", "int4", "fp32")
)
ALL = (BF16, FP16, INT8, INT4, FP32)
HOUR, MINUTE = 3600.0, 60.0
PLAIN = TranscribeOptions()


def admission(limit_gib: float | None = None) -> MemoryAdmission:
    return MemoryAdmission(
        VIBEVOICE_7B_SHAPE, ALL, None if limit_gib is None else round(limit_gib * GIB)
    )


def free(
    gib: float,
    held: Precision | None = None,
    *,
    on_gpu: bool = True,
    bandwidth: float | None = None,
) -> MemoryState:
    return MemoryState(round(gib * GIB), held, on_gpu, bandwidth)


@pytest.mark.parametrize(
    ("free_gib", "on_gpu", "expected"),
    [
        (80, True, BF16),
        (23, True, BF16),
        (16, True, INT4),
        (15, True, INT4),
        (8.5, True, INT4),
        (2, True, INT4),
        (64, False, BF16),
        (4, False, BF16),
    ],
)
def test_default_precision_is_the_best_that_fits_an_hour_on_gpu_and_bf16_on_cpu(
    free_gib: float, on_gpu: bool, expected: Precision
) -> None:
    assert admission().first_precision(free(free_gib, on_gpu=on_gpu)) is expected


@pytest.mark.parametrize(
    ("total_gib", "limit_gib", "fault"),
    [
        (80, None, errors.Fault.DEVICE),
        (None, None, errors.Fault.DEVICE),
        (4, None, errors.Fault.RECORDING),
        (80, 4, errors.Fault.RECORDING),
    ],
)
def test_what_does_not_fit_now_is_the_recordings_fault_only_if_the_empty_device_has_no_room(
    total_gib: int | None, limit_gib: float | None, fault: errors.Fault
) -> None:
    state = replace(free(3), total_bytes=total_gib and total_gib * GIB)
    with pytest.raises(errors.WontFit) as recording:
        admission(limit_gib).planned(BF16, HOUR, PLAIN, state)
    with pytest.raises(errors.WontFit) as load:
        admission(limit_gib).place(BF16, state)
    assert (recording.value.fault, load.value.fault) == (fault, fault)


def test_memory_of_own_engine_counts_as_available_up_to_limit() -> None:
    alone, loaded = free(20), free(3, BF16)
    assert admission().available_bytes(alone) == 20 * GIB
    own = admission().available_bytes(loaded) - 3 * GIB
    assert 15.5 * GIB < own < 18 * GIB, "the weights in 16 bit"
    assert admission().available_bytes(free(3, INT4)) < admission().available_bytes(loaded)
    assert admission(12).available_bytes(alone) == 12 * GIB
    assert admission(12).available_bytes(loaded) == 12 * GIB


@parametrize_by_name(
    "memory, limit_gib, wanted, expected",
    {
        "no-engine-loaded": (free(80), None, BF16, LoadPlacement.BESIDE),
        "room-for-both": (free(60, BF16), None, INT8, LoadPlacement.BESIDE),
        "room-for-one": (free(6, BF16), None, INT8, LoadPlacement.INSTEAD),
        "room-only-in-place-of-old-engine": (free(0, BF16), None, INT4, LoadPlacement.INSTEAD),
        "limit-has-room-for-one": (free(60, BF16), 24, INT8, LoadPlacement.INSTEAD),
        "limit-has-room-for-both": (free(60, INT4), 24, INT8, LoadPlacement.BESIDE),
        "no-room-for-one": (free(4, INT4), None, BF16, errors.WontFit),
        "above-limit": (free(80), 8, BF16, errors.WontFit),
    },
)
def test_new_engine_loads_beside_or_instead_of_the_old_one_as_memory_allows_or_is_refused(
    memory: MemoryState,
    limit_gib: float | None,
    wanted: Precision,
    expected: LoadPlacement | type[errors.WontFit],
) -> None:
    if isinstance(expected, LoadPlacement):
        assert admission(limit_gib).place(wanted, memory).placement is expected
    else:
        with pytest.raises(expected, match="CUDA out of memory"):
            admission(limit_gib).place(wanted, memory)


WHOLE, WITHOUT_ENCODERS, FRUGAL = (LoadPlan(LoadPlacement.BESIDE, one) for one in LOAD_PLANS)


@parametrize_by_name(
    "memory, wanted, expected",
    {
        "all-on-gpu": (free(24), BF16, WHOLE),
        "encoders-on-host": (free(16), BF16, WITHOUT_ENCODERS),
        "no-room-to-run-encoders": (free(15.4), BF16, None),
        "room-for-ten-minutes": (free(15.6), BF16, WITHOUT_ENCODERS),
        "parts-on-host-beside-old-engine": (free(8.5, INT4), INT8, FRUGAL),
        "cpu-without-room": (free(16, on_gpu=False), BF16, None),
        "cpu-with-room": (free(64, on_gpu=False), BF16, WHOLE),
    },
)
def test_load_keeps_model_parts_on_the_host_if_gpu_memory_is_short_or_is_refused(
    memory: MemoryState, wanted: Precision, expected: LoadPlan | None
) -> None:
    if expected is not None:
        assert admission().place(wanted, memory) == expected
    else:
        with pytest.raises(errors.WontFit):
            admission().place(wanted, memory)


@pytest.mark.parametrize("precision", [BF16, INT8, INT4])
def test_memory_plan_on_cpu_moves_no_part_of_the_model_to_the_host(precision: Precision) -> None:
    for gib in (8, 10, 12, 16, 17, 20, 24, 64):
        memory = free(gib, on_gpu=False)
        estimate, _ = admission().estimate(precision, HOUR, PLAIN, memory)
        plans: list[MemoryPlan | None] = [estimate.plan]
        if estimate.fits:
            planned = admission().planned(precision, HOUR, PLAIN, memory)
            plans += [planned.memory, planned.memory_fallback]
        for plan in plans:
            assert plan is None or not (plan.evict_encoders or plan.host_token_table)


def test_encoder_chunks_of_plan_and_fallback_on_cpu_are_at_most_those_for_cpu() -> None:
    planned = admission().planned(BF16, HOUR, PLAIN, free(64, on_gpu=False))
    assert planned.memory.encoder_chunk_s == CPU_CHUNK_S
    assert planned.memory_fallback is not None
    assert planned.memory_fallback.encoder_chunk_s <= CPU_CHUNK_S


@pytest.mark.parametrize(
    ("asked", "memory", "says", "never"),
    [
        pytest.param(BF16, free(14), ["int8", "int4"], ["bf16;"], id="smaller-precisions-fit"),
        pytest.param(FP32, free(24), ["bf16", "int8", "int4"], ["fp32"], id="all-others-fit"),
        pytest.param(INT8, free(8.5), ["int4"], ["bf16"], id="one-fits"),
        pytest.param(INT4, free(2), ["shorter"], ["minutes at once"], id="none-fits"),
    ],
)
def test_refusal_names_precisions_that_would_fit(
    asked: Precision, memory: MemoryState, says: list[str], never: list[str]
) -> None:
    with pytest.raises(errors.WontFit) as refused:
        admission().planned(asked, HOUR, PLAIN, memory)
    hint = refused.value.hint
    for word in says:
        assert word in hint
    for word in never:
        assert word not in hint
    assert "60 minutes" in refused.value.detail


def test_refusal_names_longest_recording_that_fits_if_five_minutes_do_not() -> None:
    loaded = admission()
    least, _ = loaded.estimate(INT4, 200.0, PLAIN, free(0))
    tight = MemoryState(least.peak_bytes, None, on_gpu=True)
    longest, _ = loaded.estimate(INT4, HOUR, PLAIN, tight)
    assert 200 <= longest.longest_audio_s < 300
    with pytest.raises(errors.WontFit) as refused:
        loaded.planned(INT4, HOUR, PLAIN, tight)
    minutes = int(longest.longest_audio_s / 60)
    assert f"at most {minutes} minute" in refused.value.hint
    assert loaded.planned(INT4, minutes * MINUTE, PLAIN, tight).memory


def test_load_over_memory_limit_names_device_and_setting_or_a_precision_that_fits() -> None:
    with pytest.raises(errors.WontFit) as refused:
        admission(0.1).place(BF16, free(64, on_gpu=False))
    assert "CUDA" not in refused.value.detail
    assert "CPU" in refused.value.detail
    assert "'memory_limit_mb' allows 0.1 of the 64.0 GB that are free" in refused.value.detail
    assert refused.value.hint == "Raise the setting 'memory_limit_mb'."
    with pytest.raises(errors.WontFit) as refused:
        admission(8).place(BF16, free(80))
    assert refused.value.hint == "What would fit: precision int4."


def test_refusal_of_ten_seconds_advises_a_higher_limit_or_says_that_nothing_smaller_fits() -> None:
    with pytest.raises(errors.WontFit) as refused:
        admission(0.1).planned(BF16, 10.0, PLAIN, free(64, on_gpu=False))
    assert refused.value.detail.startswith("10 seconds in bf16 need ")
    assert "'memory_limit_mb' allows 0.1 of the 64.0 GB" in refused.value.detail
    assert refused.value.hint == "Raise the setting 'memory_limit_mb'."
    with pytest.raises(errors.WontFit) as refused:
        admission(0.1).planned(BF16, 10.0, PLAIN, free(0.3, on_gpu=False))
    assert refused.value.hint.startswith("No shorter recording and no smaller precision fits")


@pytest.mark.parametrize(
    ("loaded", "memory", "audio_s", "expected"),
    [
        pytest.param(INT4, free(70, INT4), HOUR, INT4, id="loaded-one-fits"),
        pytest.param(BF16, free(0.2, BF16), HOUR, BF16, id="loaded-one-fits-in-windows"),
        pytest.param(BF16, free(-3, BF16), HOUR, INT4, id="best-other-one-fits"),
        pytest.param(INT4, free(1, INT4), HOUR, INT4, id="none-fits"),
        pytest.param(BF16, free(4, BF16), None, BF16, id="unknown-length"),
    ],
)
def test_job_that_names_no_precision_gets_the_loaded_one_if_it_fits_else_the_best_that_does(
    loaded: Precision, memory: MemoryState, audio_s: float | None, expected: Precision
) -> None:
    assert admission().fitting_precision(loaded, audio_s, PLAIN, memory) is expected


@pytest.mark.parametrize(("gigabytes", "mode"), [(80, "auto"), (80, "single"), (16, "single")])
def test_recording_of_unknown_length_has_the_plan_of_an_hour_and_the_time_of_a_usual_one(
    gigabytes: int, mode: str
) -> None:
    """Its time is that of a usual one."""
    wanted, now = TranscribeOptions(windows=WindowingMode(mode)), free(gigabytes, bandwidth=1e12)
    unknown, _ = admission().estimate(BF16, None, wanted, now)
    hour, _ = admission().estimate(BF16, HOUR, wanted, now)
    assert unknown.fits
    assert replace(unknown, seconds=hour.seconds) == hour
    assert unknown.seconds is not None
    assert hour.seconds is not None
    assert unknown.seconds == pytest.approx(hour.seconds * TYPICAL_AUDIO_S / HOUR)
    assert admission().peak_bytes(BF16, None, replace(wanted, memory=unknown.plan)) == (
        unknown.peak_bytes
    )


def test_token_limit_lowers_planned_memory_and_never_raises_it_and_a_long_prompt_does() -> None:
    def peak(options: TranscribeOptions) -> int:
        return admission().estimate(BF16, HOUR, options, free(80))[0].peak_bytes

    assert peak(TranscribeOptions(max_tokens=500)) < peak(PLAIN)
    assert peak(TranscribeOptions(max_tokens=65_536)) == peak(PLAIN)
    assert peak(TranscribeOptions(prompt="Nagg, Nell " * 300)) > peak(PLAIN)


def test_peak_memory_of_a_planned_job_is_that_of_its_estimate() -> None:
    now = free(80)
    alone = admission().planned(BF16, HOUR, PLAIN, now)
    assert admission().peak_bytes(BF16, HOUR, alone) == (
        admission().estimate(BF16, HOUR, PLAIN, now)[0].peak_bytes
    )
    in_step = TranscribeOptions(windows=WindowingMode.PARALLEL)
    several = admission().planned(BF16, HOUR, in_step, now)
    assert several.memory.together > 1
    assert admission().peak_bytes(BF16, HOUR, several) > admission().peak_bytes(
        BF16, several.memory.window_s, PLAIN
    )


def test_memory_of_running_job_is_available_to_next_job() -> None:
    """24 GiB, 1 of them a desktop's: the job that runs holds 22, and the next may have them."""
    others = other_processes_bytes(
        1 * GIB, gpu(23).used_bytes, {}, {"files": EngineMemoryHolding(PID, 17 * GIB)}
    )
    busy = MemoryState(1 * GIB, BF16, on_gpu=True, own_bytes=23 * GIB - others)
    assert admission().available_bytes(busy) == 23 * GIB
    assert admission().planned(BF16, HOUR, PLAIN, busy).memory


PID = 4711


def gpu(used_gib: int, processes: dict[int, int] | None = None) -> GpuMemory:
    told = {pid: gib * GIB for pid, gib in (processes or {}).items()}
    return GpuMemory("a card", used_gib << 10, 24 << 10, processes=told)


@pytest.mark.parametrize(
    ("before", "seen", "weights", "expected"),
    [
        pytest.param(0, gpu(3), None, 3, id="no-engine"),
        pytest.param(5, gpu(3), None, 3, id="no-engine-other-process-ended"),
        pytest.param(1, gpu(18), 17, 1, id="idle-engine"),
        pytest.param(1, gpu(23), 17, 1, id="engine-with-job"),
        pytest.param(5, gpu(18), 17, 1, id="idle-engine-other-process-ended"),
        pytest.param(5, gpu(16), 17, 0, id="weights-smaller-than-planned"),
        pytest.param(1, gpu(23, {PID: 17, 1: 5}), 17, 6, id="driver-reports-new-process"),
        pytest.param(5, gpu(23, {PID: 22}), 17, 1, id="other-process-ended-during-job"),
        pytest.param(1, gpu(23, {1: 9}), 17, 1, id="driver-reports-ids-outside-container"),
    ],
)
def test_memory_of_other_processes_on_gpu_is_used_memory_without_that_of_engines(
    before: int, seen: GpuMemory, weights: int | None, expected: int
) -> None:
    engine = EngineMemoryHolding() if weights is None else EngineMemoryHolding(PID, weights * GIB)
    found = other_processes_bytes(before * GIB, seen.used_bytes, seen.processes, {"files": engine})
    assert found == expected * GIB


def test_fused_attention_is_planned_without_memory_for_the_matrix_of_attention_scores() -> None:
    work = (INT4, HOUR, replace(PLAIN, windows=WindowingMode.SINGLE), free(24))
    one, other = (
        MemoryAdmission(VIBEVOICE_7B_SHAPE, (INT4,), None, fused).estimate(*work)[0].peak_bytes
        for fused in (True, False)
    )
    assert one < other - 2 * GIB
