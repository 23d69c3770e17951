"""Who is next in several places that take from one line: by property."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.scheduler import OwnerShares, SchedulerMoment, WaitingJob, schedule_jobs

A, B = Precision.BF16, Precision.INT8

works = st.floats(0.2, 1000.0)
jobs = st.builds(WaitingJob, st.sampled_from("abc"), st.sampled_from([A, B]), works)
line = st.lists(jobs, min_size=1, max_size=12)
alike = st.lists(st.builds(WaitingJob, st.sampled_from("abc"), st.just(A), works), min_size=1)
shares = st.builds(OwnerShares, works, st.dictionaries(st.sampled_from("abc"), works))
busy = st.lists(st.sampled_from([0.0, 0.0, 5.0, 400.0]), min_size=1, max_size=5)
READY = SchedulerMoment(0.0, A)


@given(line, shares, st.sampled_from([None, A, B]), busy)
def test_everybody_has_one_turn_and_nobody_goes_before_who_is_next(
    waiting: list[WaitingJob], shares: OwnerShares, loaded: Precision | None, busy_s: list[float]
) -> None:
    moment = SchedulerMoment(0.0, loaded, 0.0)
    order = [*schedule_jobs(waiting, shares, moment, busy_s=busy_s, load_s=30.0)]
    assert sorted(turn.index for turn in order) == [*range(len(waiting))]
    waits = [turn.wait_s for turn in order]
    assert waits == sorted(waits)
    assert waits[0] == min(busy_s)


@given(alike, shares, st.sampled_from([None, A, B]), busy)
def test_a_place_is_idle_only_when_nobody_waits(
    waiting: list[WaitingJob], shares: OwnerShares, loaded: Precision | None, busy_s: list[float]
) -> None:
    free_s, loads_s = [*busy_s], [0.0 if loaded is A else 30.0] * len(busy_s)
    for turn in schedule_jobs(
        waiting, shares, SchedulerMoment(0.0, loaded), busy_s=busy_s, load_s=30.0
    ):
        assert turn.wait_s == min(free_s)
        place = free_s.index(turn.wait_s)
        free_s[place] += loads_s[place]
        free_s[place] += waiting[turn.index].work_s
        loads_s[place] = 0.0


@given(alike, shares, st.integers(1, 5))
def test_with_one_place_more_nobody_waits_longer_and_the_turns_are_the_same(
    waiting: list[WaitingJob], shares: OwnerShares, count: int
) -> None:
    few, more = (
        [*schedule_jobs(waiting, shares, READY, busy_s=[0.0] * number)]
        for number in (count, count + 1)
    )
    assert [turn.index for turn in few] == [turn.index for turn in more]
    for one, other in zip(few, more, strict=True):
        assert other.wait_s <= one.wait_s + 1e-6


@given(alike, shares, st.integers(1, 5))
def test_all_is_done_within_a_fair_part_and_the_longest(
    waiting: list[WaitingJob], shares: OwnerShares, count: int
) -> None:
    """Graham's bound for list schedules."""
    order = schedule_jobs(waiting, shares, READY, busy_s=[0.0] * count)
    ends = [turn.wait_s + waiting[turn.index].work_s for turn in order]
    works_s = [job.work_s for job in waiting]
    assert max(ends) <= sum(works_s) / count + max(works_s) * (1 - 1 / count) + 1e-6
