"""Whether words before finals are worth what they cost."""

from __future__ import annotations

from sidecar.live.runtime.speech_segments import AGAIN_S, MOST_S, Pace, Urgency

FINAL, EARLY, PARTIAL = Urgency.FINAL, Urgency.SPECULATIVE, Urgency.PARTIAL


def test_all_is_worth_it_until_it_is_known_what_it_takes() -> None:
    pace = Pace()
    assert all(pace.allows(one, 0.0) for one in Urgency)


def test_where_partials_take_long_there_are_none_but_one_to_try_it_again() -> None:
    pace = Pace()
    pace.took(PARTIAL, 2 * MOST_S, now=0.0)
    assert not pace.allows(PARTIAL, AGAIN_S - 1)
    assert pace.allows(EARLY, 1.0)
    assert pace.allows(PARTIAL, AGAIN_S)
    pace.tried(PARTIAL, AGAIN_S)
    assert not pace.allows(PARTIAL, AGAIN_S)
    pace.took(PARTIAL, 0.01, AGAIN_S + 1)
    pace.took(PARTIAL, 0.01, AGAIN_S + 1)
    assert pace.allows(PARTIAL, AGAIN_S + 2)


def test_one_slow_stretch_among_quick_ones_changes_nothing() -> None:
    pace = Pace()
    for work_s in (0.1, 0.1, 1.5):
        pace.took(PARTIAL, work_s, 0.0)
    assert pace.allows(PARTIAL, 1.0)


def test_what_a_final_takes_is_what_one_before_its_time_would() -> None:
    pace = Pace()
    pace.took(FINAL, 2 * MOST_S, 0.0)
    assert not pace.allows(EARLY, 1.0)
    assert pace.allows(FINAL, 1.0)
    assert pace.allows(PARTIAL, 1.0), "they may be heard in shorter windows"
