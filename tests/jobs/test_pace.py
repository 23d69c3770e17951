"""How long work takes, as far as anybody can tell."""

from __future__ import annotations

from sidecar.jobs.pace import GUESS, LEAST_S, REMEMBERED, USUAL_S, Pace, remaining_s


def test_before_anything_was_measured_it_is_a_guess_and_then_what_was_measured() -> None:
    pace = Pace()
    assert pace.seconds("int8", 100.0) == 100.0 * GUESS
    assert pace.seconds("int8", 100.0, 7.0) == 7.0
    assert pace.seconds("int8", None) == USUAL_S * GUESS
    pace.learn("int8", 200.0, 20.0)
    assert pace.seconds("int8", 100.0, 7.0) == 10.0
    assert pace.seconds("fp32", 100.0, 7.0) == 7.0, "another precision is another pace"


def test_one_that_was_slow_is_no_measure_and_what_is_long_ago_none_either() -> None:
    pace = Pace()
    for took in (10.0, 10.0, 500.0):
        pace.learn("int8", 100.0, took)
    assert pace.seconds("int8", 100.0) == 10.0
    for _ in range(REMEMBERED):
        pace.learn("int8", 100.0, 30.0)
    assert pace.seconds("int8", 100.0) == 30.0
    pace.learn("int8", 0.0, 30.0)


def test_nothing_takes_no_time_and_what_runs_is_never_over() -> None:
    assert Pace().seconds("int8", 0.0) == LEAST_S
    assert remaining_s(60.0, 20.0, None) == 40.0
    assert remaining_s(60.0, 20.0, 0.25) == 60.0
    assert remaining_s(60.0, 80.0, None) == remaining_s(60.0, 80.0, 1.0) == LEAST_S
