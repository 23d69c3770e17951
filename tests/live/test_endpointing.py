"""Utterances are cut out of probabilities: each once, in order, and never too long."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.interfaces.live_options import ALL_AUDIO, EndpointingOptions
from sidecar.interfaces.live_options import LIVE_RATE as RATE
from sidecar.live.runtime.endpointing import (
    FRAME_SAMPLES,
    Endpointer,
    EndpointEvent,
    UtteranceBegan,
    UtteranceEnded,
    UtterancePaused,
    UtteranceResumed,
)

EXACT = EndpointingOptions(pre_roll_s=0, post_roll_s=0)
"""Utterances that are as long as speech was."""
SPEECH, QUIET, SURE, UNSURE = 0.6, 0.1, 0.9, 0.4


def told(endpointer: Endpointer, *stretches: tuple[float, int]) -> list[EndpointEvent]:
    """What is told of so many frames of each probability."""
    return [
        event
        for probability, frames in stretches
        for _ in range(frames)
        for event in endpointer.feed(probability)
    ]


def frames(number: float) -> int:
    """The position where so many frames end."""
    return round(number * FRAME_SAMPLES)


def test_utterance_includes_its_pre_roll_and_post_roll() -> None:
    by = EndpointingOptions(pre_roll_s=0.1, post_roll_s=0.05)
    assert told(Endpointer(by, at=7), (QUIET, 10), (SPEECH, 20), (QUIET, 16)) == [
        UtteranceBegan(7 + frames(10) - 1600),
        UtterancePaused(7 + frames(30) + 800),
        UtteranceEnded(7 + frames(30) + 800, "silence"),
    ]


def test_all_audio_setting_makes_one_utterance_even_of_silence_until_the_commit() -> None:
    for count in (1, 2, 100):
        endpointer = Endpointer(ALL_AUDIO, at=7)
        assert told(endpointer, (0.0, count)) == [UtteranceBegan(7)]
        end = 7 + frames(count) + 100
        assert list(endpointer.stop("commit", end)) == [UtteranceEnded(end, "commit")]


def test_utterance_is_begun_by_three_speech_frames_or_two_confident_ones_and_not_by_fewer() -> None:
    assert not told(Endpointer(EXACT), (SPEECH, 2), (QUIET, 1), (SPEECH, 1), (SURE, 1), (QUIET, 1))
    assert told(Endpointer(EXACT), (QUIET, 1), (SPEECH, 3)) == [UtteranceBegan(frames(1))]
    assert told(Endpointer(EXACT), (QUIET, 1), (SURE, 2)) == [UtteranceBegan(frames(1))]


def test_speech_after_a_pause_event_resumes_the_utterance() -> None:
    endpointer = Endpointer(EXACT)
    told(endpointer, (SPEECH, 10))
    assert not told(endpointer, (QUIET, 6), (SPEECH, 1))
    assert told(endpointer, (QUIET, 7)) == [UtterancePaused(frames(17))]
    assert told(endpointer, (UNSURE, 1), (SPEECH, 1)) == [UtteranceResumed(frames(25))]
    assert told(endpointer, (QUIET, 16)) == [
        UtterancePaused(frames(26)),
        UtteranceEnded(frames(26), "silence"),
    ]


def test_unsure_frames_count_as_speech_after_speech_and_as_silence_after_a_quiet_frame() -> None:
    endpointer = Endpointer(EXACT)
    assert told(endpointer, (SPEECH, 3), (UNSURE, 100)) == [UtteranceBegan(0)]
    assert told(endpointer, (QUIET, 1), (UNSURE, 15)) == [
        UtterancePaused(frames(103)),
        UtteranceEnded(frames(103), "silence"),
    ]


def test_endless_speech_is_cut_at_the_least_likely_frame_of_the_second_half() -> None:
    by = replace(EXACT, longest_s=100 * FRAME_SAMPLES / RATE)
    dips = ((SPEECH, 30), (UNSURE, 1), (SPEECH, 39), (0.45, 1), (SPEECH, 28))
    cut = frames(70.5)
    endpointer = Endpointer(by)
    assert told(endpointer, *dips) == [UtteranceBegan(0)]
    assert told(endpointer, (SPEECH, 1)) == [UtteranceEnded(cut, "cut"), UtteranceBegan(cut)]
    assert told(endpointer, (QUIET, 16))[-1] == UtteranceEnded(frames(100), "silence")


def test_endless_speech_is_cut_at_its_quietest_frame_but_not_before_the_transcribed_end() -> None:
    by = replace(EXACT, longest_s=100 * FRAME_SAMPLES / RATE)
    for given_to, cut in ((60, 70.5), (80, 80), (99, 99)):
        endpointer = Endpointer(by)
        told(endpointer, (SPEECH, 70), (UNSURE, 1), (SPEECH, 28))
        endpointer.given_to = frames(given_to)
        assert told(endpointer, (SPEECH, 1))[0] == UtteranceEnded(frames(cut), "cut")


def test_speech_of_nan_probabilities_is_cut_in_the_middle() -> None:
    endpointer = Endpointer(replace(EXACT, longest_s=100 * FRAME_SAMPLES / RATE))
    told(endpointer, (SPEECH, 3))
    assert told(endpointer, (math.nan, 97))[0] == UtteranceEnded(frames(50), "cut")


def test_speech_after_pause_and_length_limit_ends_utterance_at_its_pause_and_begins_another() -> (
    None
):
    by = EndpointingOptions(longest_s=100 * FRAME_SAMPLES / RATE, silence_s=2, pre_roll_s=0.064)
    endpointer = Endpointer(by)
    (_, paused) = told(endpointer, (SPEECH, 90), (QUIET, 30))
    assert told(endpointer, (SPEECH, 1)) == [
        UtteranceEnded(paused.at, "cut"),
        UtteranceBegan(frames(118)),
    ]


def test_commit_within_a_frame_ends_the_open_utterance_there_and_the_next_begins_there() -> None:
    endpointer = Endpointer(EXACT)
    assert endpointer.stop("commit") == ()
    told(endpointer, (SPEECH, 10))
    assert endpointer.stop("commit", frames(10) + 100) == (
        UtteranceEnded(frames(10) + 100, "commit"),
    )
    assert endpointer.stop("commit") == ()
    assert told(endpointer, (SPEECH, 3)) == [UtteranceBegan(frames(10) + 100)]
    assert endpointer.stop("finish") == (UtteranceEnded(frames(13), "finish"),)


def test_end_outside_the_frame_that_comes_next_is_refused() -> None:
    endpointer = Endpointer(EXACT)
    told(endpointer, (SPEECH, 13))
    for elsewhere in (frames(13) - 1, frames(14)):
        with pytest.raises(ValueError, match="not between"):
            endpointer.stop("finish", elsewhere)


def test_commit_after_a_pause_event_ends_the_utterance_at_the_pause() -> None:
    endpointer = Endpointer(EXACT)
    (_, paused) = told(endpointer, (SPEECH, 10), (QUIET, 8))
    assert endpointer.stop("commit", frames(18) + 3) == (UtteranceEnded(paused.at, "commit"),)


def test_threshold_zero_takes_silence_as_speech_until_a_commit_or_the_length_limit() -> None:
    by = EndpointingOptions(
        0, 0, min_speech_s=0, pre_roll_s=0, longest_s=100 * FRAME_SAMPLES / RATE
    )
    endpointer = Endpointer(by)
    assert told(endpointer, (0.0, 100)) == [
        UtteranceBegan(0),
        UtteranceEnded(frames(50.5), "cut"),
        UtteranceBegan(frames(50.5)),
    ]
    assert endpointer.stop("commit") == (UtteranceEnded(frames(100), "commit"),)
    assert told(endpointer, (0.0, 1)) == [UtteranceBegan(frames(100))]


def test_changed_settings_apply_to_the_next_utterance_and_not_to_the_open_one() -> None:
    endpointer = Endpointer(EXACT)
    told(endpointer, (SPEECH, 5))
    endpointer.use(replace(EXACT, silence_s=1, longest_s=1))
    assert told(endpointer, (SPEECH, 100), (QUIET, 16))[-1] == UtteranceEnded(
        frames(105), "silence"
    )
    assert isinstance(told(endpointer, (SPEECH, 33))[-1], UtteranceBegan)
    assert endpointer.speaking


def test_utterance_of_all_audio_without_speech_ends_where_the_settings_change() -> None:
    endpointer = Endpointer(ALL_AUDIO)
    told(endpointer, (SPEECH, 10))
    endpointer.stop("commit")
    told(endpointer, (0.0, 10))
    assert endpointer.use(EXACT) == (UtteranceEnded(frames(20), "cut"),)
    assert told(endpointer, (0.0, 100), (SPEECH, 3)) == [UtteranceBegan(frames(120))]
    assert told(endpointer, (0.0, 16))[-1] == UtteranceEnded(frames(123), "silence")


def test_utterance_of_all_audio_with_speech_ends_at_a_pause_once_the_settings_know_pauses() -> None:
    endpointer = Endpointer(ALL_AUDIO)
    told(endpointer, (SPEECH, 200), (0.0, 10))
    assert endpointer.use(replace(EXACT, longest_s=1)) == ()
    assert told(endpointer, (SPEECH, 10), (0.0, 16)) == [
        UtterancePaused(frames(220)),
        UtteranceEnded(frames(220), "silence"),
    ]
    began, cut, *_ = told(endpointer, (SPEECH, 40))
    assert cut.at - began.at <= RATE, "the next one has all of the new settings"


def test_settings_changed_from_all_audio_to_all_audio_cut_in_silence_and_not_within_speech() -> (
    None
):
    endpointer = Endpointer(ALL_AUDIO)
    told(endpointer, (SPEECH, 10))
    assert endpointer.use(ALL_AUDIO) == (), "in the middle of a word"
    told(endpointer, (0.0, 1))
    assert endpointer.use(ALL_AUDIO) == (UtteranceEnded(frames(11), "cut"),)
    assert told(endpointer, (0.0, 1)) == [UtteranceBegan(frames(11))]


@given(st.floats(0, 1, exclude_min=True))
def test_silence_ends_an_utterance_at_every_threshold_above_zero_and_not_at_zero(
    threshold: float,
) -> None:
    by = EXACT.with_threshold(threshold)
    assert told(Endpointer(by), (threshold, 10), (0.0, 16))[-1] == UtteranceEnded(
        frames(10), "silence"
    )
    assert told(Endpointer(EXACT.with_threshold(0)), (0.0, 100)) == [UtteranceBegan(0)]
    assert EXACT.with_threshold(EXACT.threshold) == EXACT


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("threshold", (1.1, math.nan)),
        ("neg_threshold", (0.6, -0.1)),
        ("min_speech_s", (4,)),
        ("min_sure_speech_s", (4,)),
        ("pre_roll_s", (-1, 4)),
        ("post_roll_s", (1e308,)),
        ("pause_s", (math.inf,)),
        ("silence_s", (0, 1e305, 5e-324)),
        ("longest_s", (0.5, math.inf, 10**400)),
    ],
)
def test_impossible_endpointing_settings_are_refused_with_the_name_of_the_setting(
    field: str, values: Sequence[float]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"\b{field}\b"):
            EndpointingOptions(**{field: value})


@st.composite
def endpointings(draw: st.DrawFn) -> EndpointingOptions:
    low, high = sorted(draw(st.tuples(*[st.sampled_from([0, 0.2, 0.35, 0.5, 0.7, 1])] * 2)))
    short = st.sampled_from([0, 0.02, 0.05, 0.1, 0.3])
    return EndpointingOptions(
        high,
        low,
        min_speech_s=draw(short),
        min_sure_speech_s=draw(short),
        pre_roll_s=draw(short),
        post_roll_s=draw(short),
        pause_s=draw(short),
        silence_s=draw(st.sampled_from([0.01, 0.1, 0.5, 2])),
        longest_s=draw(st.sampled_from([1.46, 1.5, 2, 3])),
    )


Step = float | int | EndpointingOptions
"""A frame's probability; a commit so many samples into the next frame; other settings."""
PROBABILITIES = st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.85, 1.0])
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(PROBABILITIES, st.integers(1, 60)).map(lambda run: [run[0]] * run[1]),
        st.lists(st.floats(0, 1), max_size=20),
        st.integers(0, FRAME_SAMPLES - 1).map(lambda part: [part]),
        endpointings().map(lambda by: [by]),
    ),
    max_size=25,
).map(lambda parts: [step for part in parts for step in part])


@settings(max_examples=120, deadline=None)
@given(endpointings(), STEPS)
def test_random_probabilities_commits_and_settings_give_ordered_utterances_without_overlap(
    by: EndpointingOptions, steps: Iterable[Step]
) -> None:
    endpointer = Endpointer(by)
    open_from: int | None = None
    over, may_end, heard = 0, None, 0
    for step in [*steps, "finish"]:
        kept = endpointer.keep_from
        if isinstance(step, EndpointingOptions):
            events = endpointer.use(step)
        elif step == "finish":
            events, heard = endpointer.stop("finish"), endpointer.position
        elif isinstance(step, int):
            heard = endpointer.position + step
            events = endpointer.stop("commit", heard)
        else:
            events = endpointer.feed(step)
            heard = max(heard, endpointer.position)
        for event in events:
            assert kept <= event.at <= heard
            if isinstance(event, UtteranceBegan):
                assert open_from is None
                assert event.at >= over
                open_from, may_end = event.at, None
            elif isinstance(event, UtteranceEnded):
                assert open_from is not None
                assert open_from < event.at <= open_from + 3 * RATE
                assert may_end in (None, event.at)
                open_from, over = None, event.at
            else:
                assert open_from is not None
                assert open_from < event.at
                assert (may_end is None) == isinstance(event, UtterancePaused)
                may_end = event.at if isinstance(event, UtterancePaused) else None
        assert endpointer.speaking == (open_from is not None)
        assert endpointer.keep_from >= kept
    assert open_from is None


@settings(max_examples=100, deadline=None)
@given(endpointings(), st.lists(PROBABILITIES, max_size=400))
def test_utterance_is_never_longer_than_its_limit(
    by: EndpointingOptions, likely: list[float]
) -> None:
    endpointer, begun = Endpointer(by), 0
    for event in [*told(endpointer, *((one, 1) for one in likely)), *endpointer.stop("finish")]:
        if isinstance(event, UtteranceBegan):
            begun = event.at
        elif isinstance(event, UtteranceEnded):
            assert event.at - begun <= by.longest_s * RATE


@settings(max_examples=50, deadline=None)
@given(endpointings(), st.lists(PROBABILITIES, max_size=200), st.integers(0, 10**9))
def test_start_position_only_shifts_the_events(
    by: EndpointingOptions, likely: list[float], at: int
) -> None:
    early, late = Endpointer(by), Endpointer(by, at)
    for one in likely:
        moved = tuple(replace(event, at=event.at + at) for event in early.feed(one))
        assert late.feed(one) == moved
