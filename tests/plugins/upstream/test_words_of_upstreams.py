"""Words that an upstream answered are in the transcript, once: whatever it is, whatever it does."""

import math

import pytest
from marked_upstreams import SEGMENTS, TEXT, WORDS, MarkedUpstream, marked, words_until
from upstream_engine_samples import Engine

from sidecar.transcripts.transcript import WORDS_BY_ALIGNMENT


@pytest.mark.parametrize("diarize", [False, True])
def test_words_of_an_upstream_without_times_come_once_from_the_first_recording_on(
    diarize: bool,
) -> None:
    """The noise is no speech for the diarizer of this service: it is sent all the same."""
    with MarkedUpstream("openai", TEXT) as there:
        engine = Engine(there.url, piece_s=40.0)
        for seconds in (90, 70):
            found = engine.transcript(marked(seconds), diarize=diarize)
            assert found.text.split() == words_until(seconds)
            assert all(one.words for one in found.segments), "they are aligned"
            assert {one.words_by for one in found.segments} == {WORDS_BY_ALIGNMENT}


@pytest.mark.parametrize(
    ("dialect", "form"),
    [
        ("sidecar", SEGMENTS),
        ("sidecar", WORDS),
        ("openai", SEGMENTS),
        ("openai", WORDS),
        ("vllm", SEGMENTS),
    ],
)
@pytest.mark.parametrize(
    "odd",
    [
        (math.nan, 2.0),
        (3.0, math.nan),
        (math.nan, math.nan),
        (1.0, math.inf),
        (None, 4.0),
        (5.0, 2.0),
        (100.0, 101.0),
        (-7.0, -3.0),
    ],
    ids=str,
)
def test_words_with_times_that_are_none_or_beyond_the_recording_stay_within_it(
    dialect: str, form: str, odd: tuple[float | None, float | None]
) -> None:
    """An item of VibeVoice's list has one time at least: without it is no item."""
    if (dialect, str(odd)) == ("vllm", "(nan, nan)"):
        return
    with MarkedUpstream(dialect, form, odd=odd) as there:
        engine = Engine(there.url)
        found = engine.transcript(marked(12, engine.engine.sample_rate), diarize=False)
    assert sorted(found.text.split()) == sorted(words_until(12))
    times = [found.segments, *(one.words for one in found.segments)]
    assert all(0 <= one.start <= one.end <= 12 for some in times for one in some)
