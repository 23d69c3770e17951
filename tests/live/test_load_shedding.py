"""Who is let in and what is shed by predicted load, on machines of many speeds in virtual time."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overload_simulation import Machine, Person, Simulation

from sidecar.live.runtime import load_shedding

IN_TIME_S = 2.0
"""From the end of what is said to its final, the pause that ends it included."""


def p95(delays: list[float]) -> float:
    return statistics.quantiles(delays, n=20, method="inclusive")[18]


def talkers(count: int, owner: str = "everybody", within_s: float = 3.0) -> list[Person]:
    return [Person(owner, begins=number * within_s / count) for number in range(count)]


def listeners(count: int, listens_s: float = 1e9, owner: str = "everybody") -> list[Person]:
    return [Person(owner, number * 3 / count, listens_s) for number in range(count)]


@pytest.mark.slow_except("0.015-100")
@pytest.mark.parametrize("count", [48, 100, 200])
@pytest.mark.parametrize("final", [0.015, 0.03, 0.06, 0.12])
def test_admitted_speakers_get_finals_in_time_and_others_are_refused_at_once(
    count: int, final: float
) -> None:
    done = Simulation(Machine(final=final, partial=2 * final, label=final), talkers(count)).run(40)
    target = 0.75 * 2 / final / (1 + 3 * final)
    served = [one for one in done.people if one.delays]
    assert p95(done.delays) <= IN_TIME_S
    assert all(one.refused_at is not None for one in done.people if not one.delays)
    assert all(one.refused_at - one.begins < 0.1 for one in done.people if one.refused_at)
    assert len(served) >= min(count, int(0.9 * target))
    assert sum(one.shed for one in done.people) <= len(done.delays) / 20


@pytest.mark.slow
@given(
    st.integers(1, 8),
    st.floats(0.01, 0.3),
    st.floats(1.0, 5.0),
    st.floats(0.6, 4.0),
    st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_finals_are_in_time_whatever_the_speed_and_threads_of_the_machine(
    threads: int, final: float, talk_s: float, breath_s: float, seed: int
) -> None:
    people = talkers(min(120, max(10, round(3 * threads / final))))
    for one in people:
        one.talk_s, one.breath_s = talk_s, breath_s
    done = Simulation(Machine(threads, final, final, final), people, seed=seed).run(30)
    alone_s = 1.4 * 1.3 * talk_s * final
    assert p95(done.delays) <= IN_TIME_S + alone_s


def test_silent_sessions_are_admitted_on_a_full_machine() -> None:
    done = Simulation(Machine(), [*talkers(100), *listeners(200)]).run(30)
    assert not any(one.refused_at for one in done.people[100:])
    assert p95(done.delays) <= IN_TIME_S


def test_silent_sessions_that_all_begin_to_speak_stay_and_lose_utterances() -> None:
    done = Simulation(Machine(), listeners(100, listens_s=20)).run(60)
    assert not any(one.refused_at for one in done.people)
    assert p95(done.delays) <= IN_TIME_S
    shed = [one.shed for one in done.people]
    whole = [one for one in done.people if one.delays and not one.shed]
    assert sum(shed)
    assert len(whole) >= 15, "the first to speak are heard all the time"


def test_overload_sheds_partials_first_then_labels_then_utterances() -> None:
    people = [*talkers(20), *listeners(100, listens_s=15)]
    for number, one in enumerate(people[20:]):
        one.begins = number / 10
    at = Simulation(Machine(), people).run(60).shed_at
    assert at["PARTIALS"] <= at["LABELS"] <= at["utterance"]
    assert at["PARTIALS"] < at["utterance"]


def test_machine_with_room_sheds_nothing() -> None:
    done = Simulation(Machine(), talkers(8)).run(60)
    assert not done.shed_at
    assert not any(one.refused_at or one.shed for one in done.people)


def test_new_owner_is_neither_refused_nor_shed_on_a_machine_full_of_another_owner() -> None:
    late = talkers(8, "late")
    for one in late:
        one.begins += 10
    done = Simulation(Machine(final=0.08), [*talkers(100, "early"), *late]).run(60)
    early, late = done.people[:100], done.people[100:]
    assert not any(one.refused_at for one in late)
    assert not any(one.shed for one in late)
    assert p95(done.delays) <= IN_TIME_S
    heard = sum(len(one.delays) for one in early)
    assert heard > sum(len(one.delays) for one in late)


def test_owner_within_its_share_loses_nothing_to_another() -> None:
    small = [Person("small", 0.0, 15.0) for _ in range(5)]
    done = Simulation(Machine(), [*small, *listeners(150, 15.0, "big")]).run(60)
    assert not any(one.shed or one.refused_at for one in done.people[:5])
    assert sum(one.shed for one in done.people[5:])


def test_overload_limit_of_zero_refuses_and_sheds_nobody() -> None:
    done = Simulation(Machine(), talkers(60), limit_s=0.0).run(20)
    assert not done.shed_at
    assert not any(one.refused_at or one.shed for one in done.people)


def test_slowest_machine_serves_a_single_session_and_refuses_a_second() -> None:
    model = load_shedding.EngineLoadModel(1, 1.0)
    model.costs.measured(1.0, 9.0)
    assert (
        model.admission(load_shedding.ArrivingUtterance("me", None, True), [], 0.0)
        is load_shedding.UtteranceAdmission.SERVE
    )
    other = load_shedding.ServedSession("me", 0, True, 1.0)
    assert (
        model.admission(load_shedding.ArrivingUtterance("me", None, True), [other], 0.0)
        is load_shedding.UtteranceAdmission.REFUSE
    )
    assert (
        model.admission(load_shedding.ArrivingUtterance("me", 0, False), [other], 99.0)
        is load_shedding.UtteranceAdmission.SERVE
    )


def test_channel_is_served_beside_its_sessions_other_channel_and_shed_beside_another_session() -> (
    None
):
    model = load_shedding.EngineLoadModel(1, 1.0)
    model.costs.measured(1.0, 9.0)
    channel = load_shedding.ServedSession("me", 0, True, 1.0)
    beside = load_shedding.ArrivingUtterance("me", 0, False)
    assert model.admission(beside, [channel], 99.0) is load_shedding.UtteranceAdmission.SERVE
    other = load_shedding.ServedSession("you", 1, True, 1.0)
    assert model.admission(beside, [channel, other], 99.0) is load_shedding.UtteranceAdmission.SHED


def test_recognition_costs_are_a_default_then_a_sample_then_the_measured_work() -> None:
    costs = load_shedding.WorkCosts()
    assert costs.of(load_shedding.WorkKind.FINAL) == load_shedding.INITIAL_COST
    costs.measured(4.0, 0.08)
    assert costs.of(load_shedding.WorkKind.FINAL) == pytest.approx(
        load_shedding.RECOGNITIONS_PER_FINAL * 0.02
    )
    for _ in range(100):
        costs.add_work(load_shedding.WorkKind.FINAL, 0.3)
        costs.add_work(load_shedding.WorkKind.PARTIAL, 0.6)
        costs.spoken(3.0)
    assert costs.of(load_shedding.WorkKind.FINAL) == pytest.approx(0.1, rel=0.1)
    assert costs.of(load_shedding.WorkKind.PARTIAL) == pytest.approx(0.2, rel=0.1)
    assert costs.of(load_shedding.WorkKind.LABEL) == 0


def test_speech_share_is_whole_at_first_then_of_the_last_minute_and_never_more() -> None:
    share = load_shedding.SpeechShare(0.0)
    assert share.at(0.0) == 1.0
    assert share.at(10.0) < 0.25
    for second in range(11, 71):
        share.spoken(0.5, second)
    assert share.at(71.0) == pytest.approx(0.45, abs=0.1)
    for second in range(72, 102):
        share.spoken(4.0, second)  # sent faster than anybody speaks
    assert share.at(102.0) == 1.0


def test_shedding_level_stays_for_its_minimum_time_and_ends_then() -> None:
    model = load_shedding.EngineLoadModel(2, 1.0)
    model.update_level(40, 0.0, now=0.0)
    assert model.level(0.0) is load_shedding.SheddingLevel.LABELS
    model.update_level(1, 0.0, now=load_shedding.MIN_SHEDDING_S / 2)
    assert model.level(load_shedding.MIN_SHEDDING_S / 2) is load_shedding.SheddingLevel.LABELS
    model.update_level(1, 0.0, now=load_shedding.MIN_SHEDDING_S)
    assert model.level(load_shedding.MIN_SHEDDING_S) is load_shedding.SheddingLevel.NOTHING


@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=8), st.floats(0.0, 100.0))
def test_fair_share_gives_out_all_capacity_or_all_that_is_demanded(
    demands: list[float], capacity: float
) -> None:
    most = load_shedding.fair_share(demands, capacity)
    given_out = [min(one, most) for one in demands]
    assert sum(given_out) <= max(capacity, 0.0) + 1e-6 or most == float("inf")
    if sum(demands) > capacity + 1e-6:
        assert sum(given_out) == pytest.approx(capacity, abs=1e-6)
    else:
        assert given_out == pytest.approx(demands, abs=1e-6)
