"""Who is next in several places that take from one line: by property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.jobs.order import At, Moment, Shares, Turn, Waiting, schedule, turns
from sidecar.speech.engine import Precision

A, B, C = Precision.BF16, Precision.INT8, Precision.INT4

works = st.floats(0.2, 1000.0)
jobs = st.builds(Waiting, st.sampled_from("abc"), st.sampled_from([A, B]), works)
line = st.lists(jobs, min_size=1, max_size=12)
shares = st.builds(Shares, works, st.dictionaries(st.sampled_from("abc"), works))


@st.composite
def several(draw: st.DrawFn, loads_s: float = 30.0) -> list[At]:
    """Places that have what they have, busy or not; in some all want what is loaded there."""
    waiting = draw(line)
    found = []
    for _ in range(draw(st.integers(1, 5))):
        loaded = draw(st.sampled_from([None, A, B]))
        own = [replace(job, wanted=loaded or A) for job in waiting]
        found.append(
            At(
                draw(st.sampled_from([waiting, own])),
                Moment(0.0, loaded, 0.0),
                busy_s=draw(st.sampled_from([0.0, 0.0, 5.0, 400.0])),
                load_s=loads_s,
            )
        )
    return found


def ends_s(places: list[At], order: list[Turn]) -> list[list[tuple[float, float]]]:
    """When each job begins and ends, by place; loads are part of it."""
    loaded = [place.moment.loaded for place in places]
    found: list[list[tuple[float, float]]] = [[] for _ in places]
    for turn in order:
        place, job = places[turn.at], places[turn.at].waiting[turn.index]
        load_s = place.load_s if job.wanted is not loaded[turn.at] else 0.0
        loaded[turn.at] = job.wanted
        found[turn.at].append((turn.wait_s, turn.wait_s + load_s + job.work_s))
    return found


@given(several(), shares)
def test_everybody_has_one_turn_and_a_place_is_idle_only_when_nobody_waits(
    places: list[At], shares: Shares
) -> None:
    order = [*schedule(places, shares)]
    assert sorted(turn.index for turn in order) == [*range(len(places[0].waiting))]
    waits = [turn.wait_s for turn in order]
    assert waits == sorted(waits)
    for place, ran in zip(places, ends_s(places, order), strict=True):
        free_s = place.busy_s
        for begins_s, over_s in ran:
            assert begins_s == pytest.approx(free_s)  # one after the other, without a gap
            free_s = over_s
        assert free_s >= waits[-1] - 1e-6, "it had time while somebody waited"


@given(line, shares, st.sampled_from([None, A, B]), st.floats(0, 100), st.floats(0, 60))
def test_one_place_is_what_it_was(
    waiting: list[Waiting], shares: Shares, loaded: Precision | None, busy_s: float, load_s: float
) -> None:
    moment = Moment(0.0, loaded)
    alone = turns(waiting, shares, moment, busy_s=busy_s, load_s=load_s)
    assert [*schedule([At(waiting, moment, None, busy_s, load_s)], shares)] == [*alone]


@given(line, shares, st.integers(1, 5))
def test_with_one_place_more_nobody_waits_longer_and_the_turns_are_the_same(
    waiting: list[Waiting], shares: Shares, count: int
) -> None:
    waiting = [replace(job, wanted=A) for job in waiting]
    few, more = (
        [*schedule([At(waiting, Moment(0.0, A))] * number, shares)] for number in (count, count + 1)
    )
    assert [turn.index for turn in few] == [turn.index for turn in more]
    for one, other in zip(few, more, strict=True):
        assert other.wait_s <= one.wait_s + 1e-6


@given(line, shares, st.integers(1, 5))
def test_all_is_done_within_a_fair_part_and_the_longest(
    waiting: list[Waiting], shares: Shares, count: int
) -> None:
    """Graham's bound for list schedules."""
    waiting = [replace(job, wanted=A) for job in waiting]
    places = [At(waiting, Moment(0.0, A)) for _ in range(count)]
    ends = [over for ran in ends_s(places, [*schedule(places, shares)]) for _, over in ran]
    works_s = [job.work_s for job in waiting]
    assert max(ends) <= sum(works_s) / count + max(works_s) * (1 - 1 / count) + 1e-6


@pytest.mark.parametrize(
    ("loaded", "wanted", "expected"),
    [
        ((A, B), (B,), [(0, 1)]),
        ((A, B), (A, B), [(0, 0), (1, 1)]),
        ((A, B), (B, A), [(0, 1), (1, 0)]),
        ((C, None), (B,), [(0, 1)]),
        ((C, C), (B, A), [(0, 0), (1, 1)]),
        ((A, B), (A, A, A), [(0, 0), (1, 1), (2, 0)]),
        ((None, None), (A, A), [(0, 0), (1, 1)]),
    ],
)
def test_of_free_places_the_one_takes_who_is_due_that_has_what_it_wants(
    loaded: tuple[Precision | None, ...],
    wanted: tuple[Precision, ...],
    expected: list[tuple[int, int]],
) -> None:
    waiting = [Waiting("me", one, 10.0) for one in wanted]
    places = [At(waiting, Moment(0.0, one, 0.0), load_s=20.0) for one in loaded]
    assert [(turn.index, turn.at) for turn in schedule(places, Shares())] == expected


def test_who_runs_at_what_is_loaded_can_be_taken_out_of_the_middle_of_another_place_s_line() -> (
    None
):
    wants = [Waiting("me", B, 10.0), Waiting("me", A, 10.0), Waiting("me", A, 10.0)]
    others = [replace(wants[0]), replace(wants[1], wanted=B), replace(wants[2], wanted=B)]
    places = [At(wants, Moment(0.0, A, 0.0)), At(others, Moment(0.0, B, 0.0), busy_s=15.0)]
    found = [(turn.index, turn.at) for turn in schedule(places, Shares())]
    assert found == [(1, 0), (2, 0), (0, 1)]
