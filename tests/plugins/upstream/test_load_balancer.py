"""Who gets a piece, who stands aside, when it is given up: told from values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.plugins.upstream.errors import UpstreamFailed
from sidecar.plugins.upstream.load_balancer import USUAL_LIMITS, ChunkAttempts, UpstreamBalancer
from sidecar.plugins.upstream.upstream_dialect import ChunkFailure, FailureStep


@pytest.fixture(autouse=True)
def impatient() -> None:
    """The figures as they are."""


def of(count: int, dice: float = 1.0) -> UpstreamBalancer:
    """So many upstreams, by their numbers."""
    return UpstreamBalancer(count, lambda: dice)


def trouble(step: FailureStep = FailureStep.AGAIN, *, sent: bool = True) -> ChunkFailure:
    return ChunkFailure(step, UpstreamFailed(), sent=sent)


def test_least_loaded_upstream_is_taken_and_equal_ones_in_turn() -> None:
    pool = of(3)
    assert [pool.take(0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    pool.left(1)
    assert pool.take(0.0) == 1
    pool.seen(0, 9)
    pool.seen(1, 2)  # both ours
    for index in (0, 0, 2):
        pool.left(index)
    assert pool.take(0.0) == 2


def test_load_counts_jobs_of_others_and_own_ones_once() -> None:
    pool = of(2)
    assert pool.take(0.0) == 0
    pool.seen(0, 1)
    pool.seen(1, 2)
    assert pool.take(0.0) == 0


def test_backoff_of_a_failing_upstream_doubles_up_to_a_minute() -> None:
    pool, now, times = of(1), 0.0, []
    for _ in range(12):
        assert pool.take(now) == 0
        pool.failed(0, now)
        pool.left(0)
        assert pool.take(now) is None
        times.append(pool.free_in(now))
        now += times[-1] or 0.0
    assert times[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert times[-1] == 60.0


def test_one_chunk_tries_an_upstream_after_its_backoff() -> None:
    pool = of(1)
    pool.failed(0, 0.0)
    assert pool.take(1.0) == 0
    assert pool.take(1.0) is None
    pool.left(0)
    pool.well(0)
    assert [pool.take(1.0), pool.take(1.0)] == [0, 0]


def test_simultaneous_failures_count_once() -> None:
    pool = of(1)
    for _ in range(8):
        pool.failed(0, 5.0)
    assert pool.servers[0].failures == 1


def test_healthy_answer_does_not_end_a_backoff() -> None:
    pool = of(1)
    pool.failed(0, 0.0)
    pool.seen(0, 0)
    assert pool.take(0.1) is None


def test_first_upstream_to_be_free_is_tried_before_giving_up() -> None:
    pool = of(2)
    for index, count in ((0, 9), (1, 3)):
        for _ in range(count):
            pool.failed(index, pool.servers[index].backoff_until)
    assert pool.take(2.0) is None
    assert [pool.trial(set()) for _ in range(3)] == [1, 0, None], "one at a time"
    pool.left(1)
    assert pool.trial({1}) is None
    assert pool.trial(set()) == 1


@given(dice=st.floats(0, 1))
def test_jitter_is_within_half_and_never_before_retry_after(dice: float) -> None:
    pool = of(2, dice)
    pool.failed(0, 0.0)
    assert 0.25 <= pool.servers[0].backoff_until <= 0.5
    pool.failed(1, 0.0, retry_after=7.0)
    assert 7.0 <= pool.servers[1].backoff_until <= 7.701
    assert pool.servers[1].failures == 0


def test_one_chunk_breaks_at_most_three_upstreams() -> None:
    patience = ChunkAttempts(0.0, 100.0)
    steps = [patience.after(index, trouble()) for index in range(USUAL_LIMITS.broken_servers)]
    assert steps == [FailureStep.AGAIN, FailureStep.AGAIN, FailureStep.NEVER]


def test_unread_request_and_busy_upstream_cost_no_attempt() -> None:
    patience = ChunkAttempts(0.0, 100.0)
    for _ in range(50):
        assert patience.after(0, trouble(sent=False)) is FailureStep.AGAIN
        assert patience.after(0, trouble(FailureStep.LATER)) is FailureStep.LATER


def test_refusing_upstream_is_not_asked_again() -> None:
    pool = of(2)
    patience = ChunkAttempts(0.0, 100.0)
    for index in (0, 1):
        assert pool.take(0.0, patience.refused) == index
        patience.after(index, trouble(FailureStep.ELSEWHERE))
        pool.left(index)
    assert pool.take(0.0, patience.refused) is None
    assert not patience.waits(0.0, pool.free_in(0.0, patience.refused))


def test_unreachable_upstreams_are_waited_for_shortly_and_busy_ones_fully() -> None:
    patience = ChunkAttempts(0.0, 100.0)
    patience.after(0, trouble(sent=False))
    assert patience.waits(7.0, 0.5)
    assert not patience.waits(7.0, 1.5)
    patience.after(0, trouble(FailureStep.LATER))
    assert patience.waits(90.0, 9.0)
    assert not patience.waits(90.0, 11.0)


def test_only_healthy_choice_skips_an_upstream_after_a_failure() -> None:
    pool = of(2)
    assert pool.take(0.0, {1}) == 0
    pool.failed(0, 0.0)
    pool.left(0)
    assert pool.take(100.0, well=True) == 1
    assert pool.take(100.0, {1}, well=True) is None
    assert pool.take(100.0, {1}) == 0


def test_upstream_with_a_long_backoff_is_tried_once() -> None:
    pool, patience = of(1), ChunkAttempts(0.0, 30.0)
    pool.failed(0, 0.0, retry_after=60.0)
    assert pool.choose(0.0, patience) == (0, None)
    pool.left(0)
    patience.asked.add(0)
    assert pool.choose(0.0, patience) == (None, None)
