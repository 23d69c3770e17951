"""Sessions of VibeVoice-ASR-Streaming on every card: within its memory, and in time."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.gpu_memory import cards
from sidecar.gpu_memory.memory_footprint import reserve_bytes
from sidecar.gpu_memory.memory_plan import DeviceRoom
from sidecar.gpu_memory.streaming_memory import (
    PERIOD_SHARE,
    STREAMING_SHAPES,
    WINDOWS_AT_ONCE,
    StreamingFootprint,
    default_precision,
)
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions

GIB = 1 << 30
MODELS = tuple(STREAMING_SHAPES)
PRECISIONS = (Precision.BF16, Precision.INT4, Precision.INT8)


@given(
    name=st.sampled_from(sorted(cards.BANDWIDTHS)),
    model=st.sampled_from(MODELS),
    precision=st.sampled_from(PRECISIONS),
)
def test_live_sessions_forecast_for_a_card_are_the_most_that_fit_its_memory_and_are_in_time(
    name: str, model: str, precision: Precision
) -> None:
    assume(precision is not Precision.BF16 or not name.startswith(cards.WITHOUT_BF16))
    card = cards.find_card(name)
    footprint = StreamingFootprint(STREAMING_SHAPES[model], precision)
    room = DeviceRoom(card.memory_bytes, 1e9 * card.bandwidths[0])
    count = footprint.sessions(room)

    def held(sessions: int) -> bool:
        fits = footprint.loaded_bytes + sessions * footprint.session_bytes <= room.available_bytes
        late = footprint.chunk_s(sessions, room.bandwidth or 0) > PERIOD_SHARE * footprint.period_s
        return fits and (sessions == 1 or not late)

    assert not count or held(count)
    assert count == 100 or not held(count + 1), "one more would not have fitted"
    found = cards.forecast_on(card, 3600.0, TranscribeOptions(precision=precision), model)
    assert found.fits is (count > 0)
    assert not found.fits or f"at most {count} live session" in found.sentence
    if found.smaller is not None and found.smaller.fits:
        assert found.fits


@pytest.mark.parametrize(
    ("model", "cards_gb"),
    [
        (MODELS[0], {12: Precision.INT4, 24: Precision.INT4, 32: Precision.BF16}),
        (MODELS[1], {6: Precision.INT4, 8: Precision.BF16}),
    ],
)
def test_default_precision_of_a_card_is_the_widest_that_holds_a_session_or_int4_for_twice_as_many(
    model: str, cards_gb: dict[int, Precision]
) -> None:
    for size, precision in cards_gb.items():
        found = cards.forecast_on(cards.find_card(f"{size}GB"), None, TranscribeOptions(), model)
        assert (found.fits, found.precision) == (True, precision)
    eight = cards.forecast_on(cards.find_card("8GB"), None, TranscribeOptions(), MODELS[0])
    assert not eight.fits
    assert "int4 takes" in eight.sentence


def test_forecast_of_a_card_says_why_int4_is_its_default_and_a_named_precision_holds() -> None:
    card = cards.find_card("RTX 3090")
    found = cards.forecast_on(card, None, TranscribeOptions(), MODELS[0])
    assert found.precision is Precision.INT4
    assert found.sentence.endswith("int4 by default: 16 live sessions, 7 in bf16")
    named = TranscribeOptions(precision=Precision.BF16)
    found = cards.forecast_on(card, None, named, MODELS[0])
    assert found.precision is Precision.BF16
    assert "by default" not in found.sentence


@pytest.mark.parametrize(
    ("sessions", "wanted"),
    [
        ({Precision.BF16: 7, Precision.INT4: 13}, Precision.BF16),
        ({Precision.BF16: 7, Precision.INT4: 14}, Precision.INT4),
        ({Precision.BF16: 0, Precision.INT4: 1, Precision.INT8: 1}, Precision.INT4),
        ({Precision.BF16: 2, Precision.FP32: 0}, Precision.BF16),
    ],
)
def test_int4_is_the_default_only_if_it_holds_twice_the_sessions(
    sessions: dict[Precision, int], wanted: Precision
) -> None:
    found = default_precision(sessions)
    assert found is not None
    assert found[0] is wanted
    assert bool(found[1]) is (sessions[Precision.BF16] > 0 and wanted is Precision.INT4)
    assert default_precision(dict.fromkeys(sessions, 0)) is None


def test_card_without_bf16_runs_a_streaming_model_in_int4() -> None:
    for precision in (Precision.AUTO, Precision.BF16):
        options = TranscribeOptions(precision=precision)
        found = cards.forecast_on(cards.find_card("V100 32GB"), None, options, MODELS[0])
        assert found.precision is Precision.INT4


@pytest.mark.parametrize(("model", "measured"), [(MODELS[0], 0.18), (MODELS[1], 0.087)])
def test_predicted_time_of_a_usual_recording_is_within_20_percent_of_the_published_one(
    model: str, measured: float
) -> None:
    footprint = StreamingFootprint(STREAMING_SHAPES[model], Precision.BF16)
    seconds = footprint.forecast(100.0, 3600.0, DeviceRoom(24 * GIB, 936e9)).seconds
    assert seconds == pytest.approx(100 * measured, rel=0.2)


def test_sessions_that_share_passes_are_predicted_faster_than_one_after_the_other() -> None:
    footprint = StreamingFootprint(STREAMING_SHAPES[MODELS[0]], Precision.BF16)
    alone, together = (footprint.chunk_s(count, 1e12) for count in (1, WINDOWS_AT_ONCE))
    assert together < 0.3 * WINDOWS_AT_ONCE * alone
    assert footprint.chunk_s(WINDOWS_AT_ONCE + 1, 1e12) == pytest.approx(together + alone)


def test_parameter_counts_of_streaming_shapes_are_those_of_the_released_models() -> None:
    """The releases have the acoustic tokenizer's decoder besides, the 1.5B its tokens twice."""
    large, small = STREAMING_SHAPES.values()
    unused = large.acoustic.parameters
    assert large.parameters + unused == pytest.approx(8.67e9, rel=0.001)
    assert small.parameters + small.table_parameters + unused == pytest.approx(2.81e9, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_planned_memory_of_eight_sessions_is_0_to_5_percent_above_the_simulated_peak(
    model: str, precision: Precision
) -> None:
    pytest.importorskip("transformers")
    import memory_simulation

    footprint = StreamingFootprint(STREAMING_SHAPES[model], precision)
    planned = footprint.loaded_bytes + WINDOWS_AT_ONCE * footprint.session_bytes
    tensors = memory_simulation.simulate_sessions(footprint.shape, precision).highest
    simulated = tensors + reserve_bytes(tensors)
    assert 0.95 * planned <= simulated <= planned


@pytest.mark.parametrize("model", MODELS)
def test_checkpoint_of_shorter_chunks_has_less_time_for_a_session_and_less_memory_of_a_window(
    model: str,
) -> None:
    usual = StreamingFootprint(STREAMING_SHAPES[model], Precision.BF16)
    short = replace(usual, chunk_frames=15)
    assert short.period_s == pytest.approx(2.0)
    assert short.session_bytes < usual.session_bytes
    assert short.loaded_bytes < usual.loaded_bytes
    room = DeviceRoom(1 << 50, 1e12)
    assert short.sessions(room) < usual.sessions(room)
    assert (
        short.forecast(3600.0, 7200.0, room).seconds > usual.forecast(3600.0, 7200.0, room).seconds
    )
