"""Who is next: by table, by property, and in long simulations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from executed_lines import executed_lines
from hypothesis import given
from hypothesis import strategies as st

from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import Priority
from sidecar.jobs.scheduler import (
    BATCH_AGING_S,
    MAX_PASSED_OVER_S,
    OwnerShares,
    ScheduledJob,
    SchedulerMoment,
    WaitingJob,
    schedule_jobs,
)

A, B, C = Precision.BF16, Precision.INT8, Precision.INT4
LONG = MAX_PASSED_OVER_S
BATCH = Priority.BATCH

works = st.floats(0.2, 1000.0)
owners = st.sampled_from("abc")
line = st.lists(
    st.builds(
        WaitingJob,
        owners,
        st.sampled_from([A, B]),
        works,
        st.floats(-2 * BATCH_AGING_S, 0),
        st.sampled_from(Priority),
    ),
    min_size=1,
    max_size=12,
)
alike = st.lists(st.builds(WaitingJob, owners, st.just(A), works), min_size=1)
busy = st.lists(st.sampled_from([0.0, 0.0, 5.0, 400.0]), min_size=1, max_size=5)
shares = st.builds(OwnerShares, works, st.dictionaries(owners, works))
moments = st.builds(
    SchedulerMoment, st.just(0.0), st.sampled_from([None, A, B]), st.floats(-2 * LONG, 0)
)


# One owner: what it was before there were several.


@pytest.mark.parametrize(
    ("wanted", "passed_over_s", "loaded", "expected"),
    [
        ([A], [0.0], None, 0),
        ([A, B], [5.0, 1.0], None, 0),
        ([A, B], [5.0, 1.0], A, 0),
        ([A, B], [5.0, 1.0], B, 1),
        ([A, C, B, B], [5.0, 4.0, 3.0, 2.0], B, 2),
        ([A, B], [5.0, 1.0], C, 0),
        ([A, B], [LONG, 1.0], B, 0),
        ([A, B], [LONG - 0.1, 1.0], B, 1),
        ([A, A, B], [LONG + 9, LONG + 9, 0.0], B, 0),
    ],
)
def test_job_of_loaded_precision_goes_first_until_another_was_passed_over_too_long(
    wanted: list[Precision], passed_over_s: list[float], loaded: Precision | None, expected: int
) -> None:
    waiting = [
        WaitingJob("me", one, work_s, -passed)
        for one, passed, work_s in zip(wanted, passed_over_s, (9.0, 1.0, 5.0, 3.0), strict=False)
    ]
    assert next_job(waiting, OwnerShares(), SchedulerMoment(0.0, loaded)) == expected


@pytest.mark.parametrize("job_s", [1.0, 10.0, 45.0])
@pytest.mark.parametrize("owners", [("me", "me"), ("me", "you")], ids=["one owner", "two"])
def test_two_precisions_over_an_hour_need_few_loads_and_short_waits(
    owners: tuple[str, str], job_s: float
) -> None:
    """Two clients keep ten jobs each in the queue; every job takes ``job_s``, a load 20 s."""
    load_s, now, loads = 20.0, 0.0, 0
    whose = dict(zip((A, B), owners, strict=True))
    queue = [((A, B)[number % 2], 0.0) for number in range(20)]
    loaded, loaded_at, shares = None, 0.0, OwnerShares()
    longest = {A: 0.0, B: 0.0}
    while now < 3600.0:
        waiting = [WaitingJob(whose[wanted], wanted, job_s, came) for wanted, came in queue]
        index = next_job(waiting, shares, SchedulerMoment(now, loaded, loaded_at))
        wanted, came = queue.pop(index)
        shares = shares.charged(whose[wanted], job_s, set(owners))
        if wanted is not loaded:
            now += load_s
            loads, loaded, loaded_at = loads + 1, wanted, now
        longest[wanted] = max(longest[wanted], now - came)
        now += job_s
        queue.append((wanted, now))
    turns = 3600.0 / (MAX_PASSED_OVER_S + load_s)
    assert loads <= turns + 2
    # Ten jobs of one's own, in turns of at least PASSED_OVER_S with as long a turn of the other.
    turn_s = MAX_PASSED_OVER_S + job_s + load_s
    own_turns = -(-10 * job_s // MAX_PASSED_OVER_S)
    assert max(longest.values()) <= 2 * turn_s * (own_turns + 1)


@given(st.lists(works, min_size=1, max_size=20), shares)
def test_jobs_of_one_owner_and_precision_run_in_order_of_arrival(
    sizes: list[float], shares: OwnerShares
) -> None:
    waiting = [WaitingJob("a", A, work_s) for work_s in sizes]
    assert [turn.index for turn in schedule_jobs(waiting, shares, SchedulerMoment(0.0, A))] == [
        *range(len(sizes))
    ]


# Several owners.


@given(line, shares, moments, busy, st.floats(0, 60))
def test_schedule_has_each_job_once_and_never_decreasing_waits(
    waiting: list[WaitingJob],
    shares: OwnerShares,
    moment: SchedulerMoment,
    busy_s: list[float],
    load_s: float,
) -> None:
    every = [*schedule_jobs(waiting, shares, moment, busy_s=busy_s, load_s=load_s)]
    assert sorted(turn.index for turn in every) == [*range(len(waiting))]
    waits = [turn.wait_s for turn in every]
    assert waits == sorted(waits)
    assert waits[0] == min(busy_s)
    for turn, wait_s, next_s in zip(every, waits, waits[1:], strict=False):
        work_s = waiting[turn.index].work_s
        assert next_s - wait_s <= work_s + load_s + 2e-6
        assert len(busy_s) > 1 or work_s <= next_s - wait_s + 1e-6


@dataclass(frozen=True)
class Served:
    """A job of ``work_s`` seconds that came ``at`` seconds, and when it began."""

    at: float
    owner: str
    work_s: float
    began: float = 0.0


def next_job(waiting: Sequence[WaitingJob], shares: OwnerShares, moment: SchedulerMoment) -> int:
    """The index of the job to run; ``waiting`` is in order of arrival and not empty."""
    return next(schedule_jobs(waiting, shares, moment)).index


def served(arrivals: Sequence[Served]) -> list[Served]:
    """All jobs, in the order in which one engine runs them."""
    coming = sorted(arrivals, key=lambda job: job.at)
    waiting: list[Served] = []
    done: list[Served] = []
    shares, now = OwnerShares(), 0.0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0].at)
        while coming and coming[0].at <= now:
            job = coming.pop(0)
            if job.owner not in {one.owner for one in waiting}:
                shares = shares.joined(job.owner)
            waiting.append(job)
        values = [WaitingJob(job.owner, A, job.work_s, job.at) for job in waiting]
        job = waiting[next_job(values, shares, SchedulerMoment(now, A))]
        shares = shares.charged(job.owner, job.work_s, {one.owner for one in waiting})
        waiting.remove(job)
        done.append(replace(job, began=now))
        now += job.work_s
    return done


def test_short_job_goes_before_forty_waiting_jobs_of_another_owner() -> None:
    forty = [Served(0.0, "many", 300.0) for _ in range(40)]
    (short,) = [one for one in served([*forty, Served(1.0, "one", 10.0)]) if one.owner == "one"]
    assert short.began <= 300.0, "only what ran already goes before it"


def test_owner_that_returns_after_an_idle_hour_gets_only_an_equal_share() -> None:
    """An hour of nothing gives no right to an hour of everything."""
    busy = [Served(0.0, "busy", 60.0) for _ in range(120)]
    back = [Served(3600.0, "back", 60.0) for _ in range(60)]
    after = [one for one in served(busy + back) if one.began >= 3600.0][:40]
    share = Counter(one.owner for one in after)
    assert abs(share["busy"] - share["back"]) <= 2


def test_owner_that_ran_alone_gets_half_of_the_first_turns_after_newcomers_arrive() -> None:
    """Nobody else wanted that time."""
    alone = [Served(0.0, "busy", 60.0) for _ in range(120)]
    newcomers = [Served(3600.0 + 1.0 * n, f"new-{n}", 60.0) for n in range(5)]
    after = [one for one in served(alone + newcomers) if one.began >= 3600.0][:12]
    assert sum(one.owner == "busy" for one in after) >= 6


def test_wait_of_long_job_does_not_grow_with_the_number_of_newcomers_with_short_jobs() -> None:
    """However many still come: its turn does not depend on them."""

    def wait_s(count: int) -> float:
        newcomers = [Served(10.0 * n, f"new-{n}", 10.0) for n in range(count)]
        done = served([*newcomers, Served(5.0, "patient", 600.0)])
        return next(one.began - one.at for one in done if one.owner == "patient")

    assert wait_s(300) == wait_s(600) < 3000.0


def test_batch_job_goes_after_interactive_jobs_of_owner_until_it_ages() -> None:
    def order(waiting: Sequence[WaitingJob]) -> list[int]:
        return [
            turn.index for turn in schedule_jobs(waiting, OwnerShares(), SchedulerMoment(0.0, A))
        ]

    old, young = WaitingJob("me", A, 9.0, -50.0, BATCH), WaitingJob("me", A, 9.0, -1.0)
    assert order([old, old, young]) == [2, 0, 1]
    aged = WaitingJob("me", A, 9.0, -BATCH_AGING_S, BATCH)
    assert order([aged, old, young]) == [0, 2, 1]


def test_refund_of_lost_work_puts_owner_first_again() -> None:
    before = OwnerShares().joined("me").joined("you")
    begun = before.charged("me", 100.0, {"me", "you"})
    waiting = [WaitingJob("me", A, 1.0), WaitingJob("you", A, 90.0)]
    assert next_job(waiting, begun, SchedulerMoment(0.0, A)) == 1
    assert next_job(waiting, begun.refunded("me", 100.0), SchedulerMoment(0.0, A)) == 0


def test_owner_without_jobs_is_forgotten_once_others_had_their_share_too() -> None:
    before = OwnerShares().joined("me").joined("you")
    begun = before.charged("me", 100.0, {"me", "you"})
    assert set(begun.tags) == {"me", "you"}
    later = begun.charged("you", 500.0, {"you"}).charged("you", 10.0, {"you"})
    assert set(later.tags) == {"you"}


def test_owners_get_equal_turns_although_one_ran_none_of_its_jobs_before() -> None:
    shares = OwnerShares().joined("first").joined("busy")
    for _ in range(20):
        shares = shares.charged("busy", 900.0, {"first", "busy"})
    shares = shares.joined("new")
    waiting = [WaitingJob(owner, A, 900.0) for owner in ("first", "busy", "new") for _ in range(9)]
    counted = Counter[str]()
    for _ in range(9):
        job = waiting.pop(next_job(waiting, shares, SchedulerMoment(0.0, A)))
        counted[job.owner] += 1
        shares = shares.charged(job.owner, job.work_s, {"first", "busy", "new"})
    assert sorted(counted.values()) in ([2, 3, 4], [3, 3, 3]), counted


@given(line, shares)
def test_next_turn_is_of_the_owner_with_the_least_charged_work_including_its_next_job(
    waiting: list[WaitingJob], shares: OwnerShares
) -> None:
    waiting = [replace(job, wanted=A) for job in waiting]
    for job in waiting:
        shares = shares.joined(job.owner)
    left, order = [*range(len(waiting))], schedule_jobs(waiting, shares, SchedulerMoment(0.0, A))
    for index in [turn.index for turn in order]:
        own: dict[str, list[int]] = {waiting[one].owner: [] for one in left}
        for one in left:
            own[waiting[one].owner].append(one)
        heads = [min(jobs, key=lambda one: not waiting[one].urgent(0.0)) for jobs in own.values()]
        ends = {one: shares.tag(waiting[one].owner) + waiting[one].work_s for one in heads}
        assert ends[index] == min(ends.values())
        left.remove(index)
        shares = shares.charged(waiting[index].owner, waiting[index].work_s, own)


def test_schedule_of_400_owners_executes_less_than_three_times_the_lines_of_one_owners() -> None:
    def steps(owners: int) -> int:
        """Lines of Python that it takes to put 400 jobs in their order."""
        waiting = [WaitingJob(f"owner {number % owners}", A, 9.0) for number in range(400)]
        scheduled = list[ScheduledJob]()
        lines = executed_lines(
            lambda: scheduled.extend(schedule_jobs(waiting, OwnerShares(), SchedulerMoment()))
        )
        assert len(scheduled) == 400
        return lines

    assert steps(400) < 3 * steps(1)


# Several places that take from one line.


@given(alike, shares, st.sampled_from([None, A, B]), busy)
def test_dispatcher_is_idle_only_when_no_job_waits(
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
def test_one_more_dispatcher_keeps_the_order_and_delays_no_job(
    waiting: list[WaitingJob], shares: OwnerShares, count: int
) -> None:
    few, more = (
        [*schedule_jobs(waiting, shares, SchedulerMoment(0.0, A), busy_s=[0.0] * number)]
        for number in (count, count + 1)
    )
    assert [turn.index for turn in few] == [turn.index for turn in more]
    for one, other in zip(few, more, strict=True):
        assert other.wait_s <= one.wait_s + 1e-6


@given(alike, shares, st.integers(1, 5))
def test_schedule_over_several_dispatchers_ends_within_grahams_bound_for_list_schedules(
    waiting: list[WaitingJob], shares: OwnerShares, count: int
) -> None:
    """Graham's bound for list schedules."""
    order = schedule_jobs(waiting, shares, SchedulerMoment(0.0, A), busy_s=[0.0] * count)
    ends = [turn.wait_s + waiting[turn.index].work_s for turn in order]
    works_s = [job.work_s for job in waiting]
    assert max(ends) <= sum(works_s) / count + max(works_s) * (1 - 1 / count) + 1e-6
