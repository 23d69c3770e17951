from __future__ import annotations

import itertools

import pytest

from sidecar.transcripts.loop_guard import (
    SamplingOptions,
    SkippedAudio,
    next_skipped_audio,
    retry_sampling,
)
from sidecar.transcripts.transcript import LOOP_FLAG, NON_SPEECH_FLAG, Segment
from sidecar.transcripts.vibevoice_output import VibeVoiceOutputParser


def test_there_are_three_retries_and_each_is_less_strict() -> None:
    assert [retry_sampling(tried) for tried in range(4)] == [
        SamplingOptions(0.2, 0.95),
        SamplingOptions(0.3, 0.95),
        SamplingOptions(0.4, 0.95),
        None,
    ]


def test_behind_a_skip_there_is_no_retry() -> None:
    assert retry_sampling(0, lost_s=15.0) is None


@pytest.mark.parametrize(
    ("stuck_s", "lost_s", "claimed_end_s", "end_s"),
    [
        (100, 0, None, 115),
        (100, 15, None, 115),
        (100, 45, None, 115),
        (100, 120, None, 130),
        (100, 900, None, 160),
        (100, 0, 122.5, 122.5),
        (100, 0, 101, 105),
        (100, 0, 500, 160),
        (100, 0, 99, 115),
        (100, 15, 122.5, 115),
        (590, 0, None, 600),
        (590, 900, 599, 600),
        (599.5, 0, None, None),
        (600, 0, None, None),
    ],
)
def test_a_skip_is_as_long_as_the_text_claimed_and_grows_where_it_was_not_enough(
    stuck_s: float, lost_s: float, claimed_end_s: float | None, end_s: float | None
) -> None:
    skip = next_skipped_audio(stuck_s, 600.0, lost_s, claimed_end_s)
    assert skip == (None if end_s is None else SkippedAudio(stuck_s, end_s))


def test_a_skip_is_an_item_that_the_parser_reads() -> None:
    skip = SkippedAudio(100.0, 115.004)
    assert skip.text == '{"Start":100,"End":115,"Content":"[Unintelligible Speech]"}'
    (segment,) = VibeVoiceOutputParser(600.0).feed(skip.text)
    assert segment == Segment(100, 115, "[Unintelligible Speech]", flags=(NON_SPEECH_FLAG,))
    assert SkippedAudio(99.999, 100.129).text.startswith('{"Start":100,"End":100.13,')


def test_a_skip_is_flagged_on_the_clock_of_the_recording() -> None:
    assert SkippedAudio(100, 115).segment(3600.0) == Segment(
        3700, 3715, "[Unintelligible Speech]", flags=(NON_SPEECH_FLAG, LOOP_FLAG)
    )


def recovered(bad_from: float, bad_to: float, sentence_s: float) -> tuple[float, int]:
    """Seconds lost, and decodings that got stuck, where a stretch of an hour is always stuck."""
    at, lost, stuck, tried = 0.0, 0.0, 0, 0
    total = 0.0
    while at < 3600.0:
        if not bad_from - sentence_s < at < bad_to:
            at, lost, tried = at + sentence_s, 0.0, 0
            continue
        stuck += 1
        if retry_sampling(tried, lost):
            tried += 1
        elif skip := next_skipped_audio(at, 3600.0, lost):
            lost += skip.end - skip.start
            total += skip.end - skip.start
            at = skip.end
        else:
            break
    return total, stuck


@pytest.mark.parametrize(
    ("bad_from", "sentence_s"), list(itertools.product([0, 600, 613.7, 3540], [0.5, 4, 12]))
)
def test_an_hour_with_a_bad_minute_loses_that_minute_and_costs_a_few_attempts(
    bad_from: float, sentence_s: float
) -> None:
    """Beyond the minute: the sentence that it began in, and the rest of the last skip."""
    lost, stuck = recovered(bad_from, bad_from + 60.0, sentence_s)
    assert lost <= 60.0 + sentence_s + 15.0
    assert stuck <= 3 + 6


def test_a_song_of_five_minutes_costs_no_more_than_a_few_attempts_a_minute() -> None:
    lost, stuck = recovered(600.0, 900.0, 4.0)
    assert lost <= 300.0 * 1.25 + 4.0
    assert stuck <= 3 + 15
