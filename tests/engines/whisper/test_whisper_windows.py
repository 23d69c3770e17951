"""Stretches of speech into windows of half a minute, and words into segments."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_cases import parametrize_by_name

from sidecar import errors
from sidecar.engines.whisper.whisper_decoder import (
    WhisperAttempt,
    choose_device,
    chosen_attempt,
    compute_type_of,
    cpu_threads,
    is_repetitive,
    is_silence,
    load_whisper,
)
from sidecar.engines.whisper.whisper_transcription import (
    MAX_SEGMENT_S,
    WINDOW_S,
    WhisperWindow,
    WindowPacker,
    place_words,
    segments_of,
)
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.transcripts import loop_guard
from sidecar.transcripts.overlapping_words import OVERLAP_S
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Word

OVER = float("inf")
Span = tuple[float, float]


def packed(*spans: Span, heard_s: float = OVER) -> list[WhisperWindow]:
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    return packing.take([SpeakerTurn(*span, 0) for span in spans], heard_s)


def pieces(windows: list[WhisperWindow]) -> list[list[Span]]:
    return [
        [(round(start, 2), round(end, 2)) for start, end in window.pieces] for window in windows
    ]


def own_pieces(window: WhisperWindow, windows: list[WhisperWindow]) -> list[Span]:
    """The regions of a window without what the windows beside it have, too."""
    cuts = {one.end_s for one in windows if one.cut}
    found = [*window.pieces]
    if any(abs(found[0][0] + OVERLAP_S - at) < 1e-6 for at in cuts):
        found[0] = found[0][0] + OVERLAP_S, found[0][1]
    if window.cut:
        found[-1] = found[-1][0], window.end_s
    return found


@parametrize_by_name(
    "spans, expected",
    {
        "no turns": ([], []),
        "margin of silence": ([(1, 3)], [[(0.7, 3.3)]]),
        "short silence is kept": ([(1, 3), (3.8, 5)], [[(0.7, 5.3)]]),
        "long silence is left out": ([(1, 3), (60, 62)], [[(0.7, 3.3), (59.7, 62.3)]]),
        "window is full enough": ([(1, 29), (29.5, 40)], [[(0.7, 29.25)], [(29.25, 40.3)]]),
        "window takes part of next turn": ([(1, 5), (6, 40)], [[(0.7, 28.1)], [(27.1, 40.3)]]),
        "long turn is cut": ([(0, 70)], [[(0, 27.4)], [(26.4, 53.8)], [(52.8, 70.3)]]),
    },
)
def test_turns_are_packed_into_windows_of_30_s_without_long_silence_and_long_turns_are_cut(
    spans: list[Span], expected: list[list[Span]]
) -> None:
    assert pieces(packed(*spans)) == expected


speech = st.lists(st.tuples(st.floats(0.05, 9.0), st.floats(0.2, 45.0)), min_size=1, max_size=40)


@given(speech, st.lists(st.floats(1.0, 30.0), min_size=1, max_size=60))
def test_all_speech_is_packed_once_in_order_in_windows_of_at_most_30_s_however_it_arrives(
    gaps_and_lengths: list[tuple[float, float]], steps: list[float]
) -> None:
    """None is lost, no window is longer than 30 s, they come in order, and only half a second on
    both sides of a cut within speech is in two windows."""
    at, spans = 0.0, []
    for gap, length in gaps_and_lengths:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    windows, known = [], 0.0
    for step in steps:
        known += step
        if known < at:
            so_far = [
                SpeakerTurn(start, min(end, known), 0) for start, end in spans if start < known
            ]
            windows += packing.take(so_far, known)
    windows += packing.take([SpeakerTurn(*span, 0) for span in spans], OVER)
    heard = [piece for window in windows for piece in window.pieces]
    for window, after in pairwise(windows):
        if window.cut:
            last = window.pieces[-1], after.pieces[0]
            assert last[0][1] - window.end_s == pytest.approx(OVERLAP_S)
            assert window.end_s - last[1][0] == pytest.approx(OVERLAP_S)
    heard = [piece for window in windows for piece in own_pieces(window, windows)]
    assert all(window.length_s <= WINDOW_S + 1e-6 for window in windows)
    assert all(one[1] <= other[0] + 1e-6 for one, other in pairwise(heard))
    for start, end in spans:
        inside = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in heard)
        assert inside == pytest.approx(end - start, abs=0.01)


def test_window_is_held_back_while_more_speech_may_fit() -> None:
    assert packed((1, 3), heard_s=20) == []
    assert packed((1, 25), heard_s=25.2) == []
    assert len(packed((1, 25), (26, 33), heard_s=40)) == 1


def test_audio_without_speech_or_already_packed_into_a_window_is_no_longer_needed() -> None:
    packing = WindowPacker(lambda start, end: (start + end) / 2)
    assert packing.take([], 3600) == []
    assert packing.needed_s == pytest.approx(3599.5)
    assert packing.take([SpeakerTurn(3610, 3620, 0)], 3650) == []
    assert packing.needed_s == pytest.approx(3609.5)
    turns = [SpeakerTurn(3610, 3635, 0), SpeakerTurn(3636, 3650, 0)]
    assert len(packing.take(turns, 3652)) == 1
    assert packing.needed_s == pytest.approx(3635.5)


def test_times_and_words_in_a_window_of_joined_stretches_get_their_times_in_the_recording() -> None:
    window = WhisperWindow(((10.0, 15.0), (30.0, 32.0)), 32.0)
    assert window.length_s == 7
    assert window.placed(1, 2) == (11, 12)
    assert window.placed(5.5, 6) == (30.5, 31)
    assert window.placed(4.9, 6.0) == (30.0, 31.0), "all of a word is where its middle is"
    assert window.placed(6.5, 9) == (31.5, 32)
    words = [Word(4.0, 4.8, " a"), Word(4.9, 6.0, " b")]
    assert place_words(words, window) == [Word(14.0, 14.8, " a"), Word(30.0, 31.0, " b")]


def words_of(text: str, step: float = 0.5) -> list[Word]:
    return [Word(step * at, step * (at + 1), f" {one}") for at, one in enumerate(text.split())]


@parametrize_by_name(
    "words, texts",
    {
        "no words": ([], []),
        "one sentence": (words_of("a b c"), ["a b c"]),
        "pause begins segment": ([*words_of("a b"), Word(2.0, 2.5, " c")], ["a b", "c"]),
        "short sentences stay together": (words_of("a. b. c"), ["a. b. c"]),
        "long sentence": (words_of("a b c d e f g h i j. k l"), ["a b c d e f g h i j.", "k l"]),
        "no spaces": ([Word(0, 1, "你"), Word(1, 2, "好")], ["你好"]),
        "only space": ([Word(0, 1, " ")], []),
    },
)
def test_words_are_grouped_into_segments_that_end_at_pauses_and_long_sentences(
    words: list[Word], texts: list[str]
) -> None:
    found = segments_of(words)
    assert [segment.text for segment in found] == texts
    assert all(word.text == word.text.strip() for one in found for word in one.words)


def test_words_without_pause_are_cut_into_segments_within_the_limit_and_none_is_lost() -> None:
    found = segments_of(words_of("la " * 200))
    assert max(segment.end - segment.start for segment in found) <= MAX_SEGMENT_S
    assert sum(len(segment.words) for segment in found) == 200


PLAIN = list(range(100, 160))
LOOP = [*PLAIN[:20], *[7, 8, 9] * 60]
VERSE = [*range(1, 8), 9, 9, 9]


@pytest.mark.parametrize(
    ("tokens", "characters", "seconds", "ended", "kept"),
    [
        pytest.param(PLAIN, 240, 20, True, None, id="plain speech"),
        pytest.param(PLAIN, 240, 20, False, None, id="plain speech that is cut off"),
        pytest.param(LOOP, 600, 30, True, None, id="repetition that ends"),
        pytest.param(LOOP, 600, 30, False, 23, id="endless loop keeps one copy"),
        pytest.param(LOOP, 600, 5, True, 23, id="more tokens than speech has"),
        pytest.param([*PLAIN[:20], *VERSE * 4], 600, 5, True, 30, id="verse with its own end"),
        pytest.param([1, 5, 1, 3, 2, 5, 4] * 3 + [5, 2, 1], 900, 5, True, None, id="too short"),
    ],
)
def test_endless_or_too_dense_repetition_of_tokens_is_cut_to_one_copy_and_other_text_is_kept(
    tokens: list[int], characters: int, seconds: float, ended: bool, kept: int | None
) -> None:
    assert loop_guard.tokens_before_loop(tokens, "x" * characters, seconds, ended=ended) == kept


def test_random_tokens_of_few_words_are_repetition_loop() -> None:
    tokens = Random(1).choices(range(11), k=200)
    assert loop_guard.tokens_before_loop(tokens, "x" * 800, 30, ended=False) == 0


@pytest.mark.parametrize(
    ("no_speech", "log_probability", "silence"),
    [(0.9, -1.5, True), (0.9, -0.3, False), (0.1, -1.5, False)],
)
def test_window_is_silence_only_if_no_speech_is_likely_and_words_are_unlikely(
    no_speech: float, log_probability: float, silence: bool
) -> None:
    assert is_silence(no_speech, log_probability) is silence


LOOPED = "And I'd say. " * 40
ENDS = WhisperAttempt((1,) * 9, "She was fond of all boys' plays.", -0.4, 0.1, True)
REPEATS = replace(ENDS, text=LOOPED, tokens=(1,) * 200)
LOOPS = replace(REPEATS, kept=20)
SILENT = replace(ENDS, no_speech=0.9, likely=-1.5)


@pytest.mark.parametrize(
    ("attempts", "chosen", "retried"),
    [
        pytest.param([ENDS], ENDS, False, id="plain speech"),
        pytest.param([SILENT], SILENT, False, id="silence"),
        pytest.param([REPEATS, ENDS], ENDS, True, id="a loop that time allows"),
        pytest.param([LOOPS, REPEATS, ENDS], ENDS, True, id="two loops"),
        pytest.param([LOOPS, LOOPS, LOOPS], LOOPS, False, id="always a loop"),
        pytest.param([REPEATS, LOOPS, LOOPS], REPEATS, False, id="a person repeats it"),
        pytest.param([REPEATS, SILENT], REPEATS, False, id="words are kept over silence"),
        pytest.param([LOOPS, SILENT], SILENT, True, id="a loop over silence"),
    ],
)
def test_window_whose_text_repeats_is_tried_again_and_words_that_a_person_may_repeat_are_kept(
    attempts: list[WhisperAttempt], chosen: WhisperAttempt, retried: bool
) -> None:
    asked = iter(attempts)
    assert chosen_attempt(asked) == (chosen, retried)
    assert next(asked, None) is None


@pytest.mark.parametrize(
    ("text", "repetitive"),
    [
        (LOOPED, True),
        ("No, no, no, no, no, no. ", False),
        ("Where there are heads and arms and legs enough for the number. " * 2, False),
        ("", False),
    ],
)
def test_text_is_repetitive_if_it_can_be_compressed_a_lot(text: str, repetitive: bool) -> None:
    assert is_repetitive(text) is repetitive


CPU, GPU = {"int8", "int8_float32", "float32"}, {"int8_float16", "float16", "float32"}


def test_gpu_without_room_for_whisper_is_model_load_failed_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr("faster_whisper.WhisperModel", full)
    with pytest.raises(errors.ModelLoadFailed, match="CUDA out of memory: ") as failed:
        load_whisper(LoadOptions(checkpoint=str(tmp_path), device="cpu"))
    assert "smaller precision" in failed.value.hint


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
def test_requested_precision_maps_to_a_compute_type_that_the_device_supports(
    precision: str, device: str, supported: set[str], used: str, name: str
) -> None:
    assert compute_type_of(Precision(precision), device, supported) == (Precision(used), name)


def test_device_auto_is_cuda_if_present_else_cpu_and_missing_requested_cuda_is_an_error() -> None:
    assert [choose_device("auto", 0), choose_device("auto", 1), choose_device("cpu", 1)] == [
        "cpu",
        "cuda",
        "cpu",
    ]
    with pytest.raises(errors.ModelLoadFailed):
        choose_device("cuda", 0)


def test_whisper_uses_half_of_the_cores_at_most_8_unless_omp_num_threads_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, used in ((1, 1), (2, 1), (4, 2), (12, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert cpu_threads() == used
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
