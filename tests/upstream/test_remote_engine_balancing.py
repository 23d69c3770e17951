"""Who gets the next live session: pure, with a clock and dice of the test's own."""

from __future__ import annotations

import pytest

from sidecar.upstream.load_balancer import ChunkAttempts, EngineAddress, UpstreamBalancer


@pytest.fixture(autouse=True)
def impatient() -> None:
    """The figures as they are."""


def of(*servers: int) -> tuple[UpstreamBalancer[EngineAddress], list[EngineAddress]]:
    """Names with so many machines each."""
    found: UpstreamBalancer[EngineAddress] = UpstreamBalancer(lambda: 0.0, shuffled=True)
    for server, count in enumerate(servers):
        found.found(
            server, {EngineAddress(server, f"10.{server}.0.{one}"): 0 for one in range(count)}
        )
    where = [
        EngineAddress(s, f"10.{s}.0.{one}")
        for s, count in enumerate(servers)
        for one in range(count)
    ]
    return found, where


def taken(addresses: UpstreamBalancer[EngineAddress], now: float = 0.0) -> EngineAddress | None:
    """One that is asked and takes the session."""
    one = addresses.take(now)
    if one is not None:
        addresses.answered(one)
        addresses.well(one)
    return one


def test_sessions_are_spread_over_all_machines_of_all_names() -> None:
    addresses, where = of(3, 1)
    got = [taken(addresses) for _ in range(8)]
    assert all(got.count(one) == 2 for one in where)
    addresses.left(where[2])
    assert taken(addresses) == where[2]


def test_of_a_name_with_two_kinds_of_address_the_second_is_for_when_the_first_fails() -> None:
    addresses: UpstreamBalancer[EngineAddress] = UpstreamBalancer(lambda: 0.0, shuffled=True)
    addresses.found(0, {EngineAddress(0, "::1"): 0, EngineAddress(0, "127.0.0.1"): 1})
    for _ in range(2):
        one = addresses.take(0.0)
        assert one is not None
        assert one.host == "::1"
        addresses.answered(one)
        addresses.left(one)
    addresses.failed(one, 0.0)
    other = addresses.take(0.0)
    assert other is not None
    assert other.host == "127.0.0.1"


def test_who_fails_rests_longer_each_time_and_is_tried_by_one_before_all() -> None:
    addresses, (one,) = of(1)
    rests = []
    now = 0.0
    for _ in range(3):
        assert addresses.take(now) == one
        addresses.failed(one, now)
        addresses.failed(one, now)  # what another session says of it is the same trouble
        addresses.answered(one)
        addresses.left(one)
        assert addresses.take(now) is None
        wait_s = addresses.free_in(now)
        assert wait_s is not None
        rests.append(wait_s)
        now += wait_s
    assert rests[0] < rests[1] < rests[2]
    assert addresses.take(now) == one
    assert addresses.take(now) is None, "one at a time"
    addresses.answered(one)
    addresses.well(one)
    assert addresses.take(now) == one
    assert addresses.running == 2


def test_before_it_is_told_that_nobody_answers_who_would_be_free_first_is_asked_once() -> None:
    addresses, (one, other) = of(2)
    addresses.failed(other, 0.0)
    addresses.failed(one, 0.0)
    addresses.failed(one, 60.0)
    assert addresses.trial(()) == other
    assert addresses.trial(()) == one, "one at a time"
    assert addresses.trial(()) is None
    addresses.answered(one)
    addresses.left(one)
    assert addresses.trial({one}) is None


def test_who_was_in_trouble_is_not_asked_where_only_those_are_who_are_well() -> None:
    addresses, (one, other) = of(2)
    addresses.take(0.0, {other})
    addresses.failed(one, 0.0)
    addresses.answered(one)
    addresses.left(one)
    assert addresses.take(100.0, well=True) == other
    assert addresses.take(100.0, {other}, well=True) is None
    assert addresses.take(100.0, {other}) == one


def test_who_is_full_or_about_to_end_is_asked_again_soon_and_has_not_failed() -> None:
    addresses, (one, other) = of(2)
    addresses.full(one, 0.0, 1.0)
    addresses.failed(other, 0.0, retry_after=2.0)
    assert addresses.take(0.0) is None
    assert addresses.is_full(0.0)
    assert addresses.take(1.5) == one
    assert not addresses.is_full(1.5)
    assert addresses.take(2.5) == other


def test_a_name_that_leads_elsewhere_now_keeps_the_sessions_that_it_had() -> None:
    addresses, (one, other) = of(2)
    assert {taken(addresses), taken(addresses)} == {one, other}
    addresses.found(0, {other: 0, EngineAddress(0, "10.9.9.9"): 0})
    assert [taken(addresses).host for _ in range(2)].count(one.host) == 0  # type: ignore[union-attr]
    assert addresses.running == 4
    addresses.left(one)
    assert addresses.running == 3
    assert addresses.free_in(0.0, [other, EngineAddress(0, "10.9.9.9")]) is None, (
        "nobody else is left"
    )


def test_who_begins_waits_for_nobody_who_is_full_and_who_goes_on_does() -> None:
    addresses, (one,) = of(1)
    addresses.full(one, 0.0, 1.0)
    assert addresses.choose(0.0, ChunkAttempts(0.0, 30.0)) == (None, None)
    goes_on: ChunkAttempts[EngineAddress] = ChunkAttempts(0.0, 30.0, reached=True)
    assert addresses.choose(0.0, goes_on) == (None, 1.0)
    assert addresses.choose(29.5, goes_on) == (one, None)


def test_who_stands_aside_for_longer_than_is_waited_is_asked_once_all_the_same() -> None:
    addresses, (one,) = of(1)
    patience: ChunkAttempts[EngineAddress] = ChunkAttempts(0.0, 30.0)
    addresses.failed(one, 0.0, retry_after=60.0)
    assert addresses.choose(0.0, patience) == (one, None)
    addresses.answered(one)
    addresses.left(one)
    patience.asked.add(one)
    assert addresses.choose(0.0, patience) == (None, None)
