"""Whether words before finals are worth what they cost."""

from __future__ import annotations

from sidecar.live.runtime.partial_results import (
    MAX_PARTIAL_WORK_S,
    RETRY_AFTER_S,
    RecognitionUrgency,
    WorkPace,
)

FINAL, EARLY, PARTIAL = (
    RecognitionUrgency.FINAL,
    RecognitionUrgency.SPECULATIVE,
    RecognitionUrgency.PARTIAL,
)


def test_all_is_worth_it_until_it_is_known_what_it_takes() -> None:
    pace = WorkPace()
    assert all(pace.allows(one, 0.0) for one in RecognitionUrgency)


def test_where_partials_take_long_there_are_none_but_one_to_try_it_again() -> None:
    pace = WorkPace()
    pace.took(PARTIAL, 2 * MAX_PARTIAL_WORK_S, now=0.0)
    assert not pace.allows(PARTIAL, RETRY_AFTER_S - 1)
    assert pace.allows(EARLY, 1.0)
    assert pace.allows(PARTIAL, RETRY_AFTER_S)
    pace.tried(PARTIAL, RETRY_AFTER_S)
    assert not pace.allows(PARTIAL, RETRY_AFTER_S)
    pace.took(PARTIAL, 0.01, RETRY_AFTER_S + 1)
    pace.took(PARTIAL, 0.01, RETRY_AFTER_S + 1)
    assert pace.allows(PARTIAL, RETRY_AFTER_S + 2)


def test_one_slow_stretch_among_quick_ones_changes_nothing() -> None:
    pace = WorkPace()
    for work_s in (0.1, 0.1, 1.5):
        pace.took(PARTIAL, work_s, 0.0)
    assert pace.allows(PARTIAL, 1.0)


def test_what_a_final_takes_is_what_one_before_its_time_would() -> None:
    pace = WorkPace()
    pace.took(FINAL, 2 * MAX_PARTIAL_WORK_S, 0.0)
    assert not pace.allows(EARLY, 1.0)
    assert pace.allows(FINAL, 1.0)
    assert pace.allows(PARTIAL, 1.0), "they may be heard in shorter windows"
