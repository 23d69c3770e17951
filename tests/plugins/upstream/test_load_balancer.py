"""Who gets a piece, who stands aside, when it is given up: told from values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.errors import Fault
from sidecar.plugins.upstream.errors import UpstreamBusy, UpstreamFailed
from sidecar.plugins.upstream.load_balancer import DEFAULT_LIMITS, ChunkAttempts, UpstreamBalancer
from sidecar.plugins.upstream.upstream_dialect import (
    ChunkFailure,
    FailureStep,
    unreachable_failure,
)


@pytest.fixture(autouse=True)
def impatient() -> None:
    """The figures as they are."""


def of(count: int, dice: float = 1.0) -> UpstreamBalancer:
    """So many upstreams, by their numbers."""
    return UpstreamBalancer(count, lambda: dice)


def failure(step: FailureStep = FailureStep.AGAIN, *, sent: bool = True) -> ChunkFailure:
    return ChunkFailure(step, UpstreamFailed(), sent=sent)


def test_least_loaded_upstream_is_taken_and_equal_ones_in_turn() -> None:
    balancer = of(3)
    assert [balancer.take(0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    balancer.release(1)
    assert balancer.take(0.0) == 1
    balancer.note_health(0, 9)
    balancer.note_health(1, 2)  # both ours
    for index in (0, 0, 2):
        balancer.release(index)
    assert balancer.take(0.0) == 2


def test_load_counts_jobs_of_others_and_own_ones_once() -> None:
    balancer = of(2)
    assert balancer.take(0.0) == 0
    balancer.note_health(0, 1)
    balancer.note_health(1, 2)
    assert balancer.take(0.0) == 0


def test_backoff_of_a_failing_upstream_doubles_up_to_a_minute() -> None:
    balancer, now, times = of(1), 0.0, []
    for _ in range(12):
        assert balancer.take(now) == 0
        balancer.failed(0, now)
        balancer.release(0)
        assert balancer.take(now) is None
        times.append(balancer.free_in(now))
        now += times[-1] or 0.0
    assert times[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert times[-1] == 60.0


def test_only_one_chunk_tries_an_upstream_after_its_backoff_until_it_succeeded() -> None:
    balancer = of(1)
    balancer.failed(0, 0.0)
    assert balancer.take(1.0) == 0
    assert balancer.take(1.0) is None
    balancer.release(0)
    balancer.succeeded(0)
    assert [balancer.take(1.0), balancer.take(1.0)] == [0, 0]


def test_simultaneous_failures_of_an_upstream_count_once() -> None:
    balancer = of(1)
    for _ in range(8):
        balancer.failed(0, 5.0)
    assert balancer.upstreams[0].failures == 1


def test_health_answer_of_an_upstream_does_not_end_its_backoff() -> None:
    balancer = of(1)
    balancer.failed(0, 0.0)
    balancer.note_health(0, 0)
    assert balancer.take(0.1) is None


def test_upstreams_in_backoff_are_tried_in_order_of_its_end_by_one_chunk_at_a_time() -> None:
    balancer = of(2)
    for index, count in ((0, 9), (1, 3)):
        for _ in range(count):
            balancer.failed(index, balancer.upstreams[index].backoff_until)
    assert balancer.take(2.0) is None
    assert [balancer.trial(set()) for _ in range(3)] == [1, 0, None], "one at a time"
    balancer.release(1)
    assert balancer.trial({1}) is None
    assert balancer.trial(set()) == 1


@given(dice=st.floats(0, 1))
def test_jitter_shortens_a_backoff_by_up_to_half_and_lengthens_retry_after_by_up_to_a_tenth(
    dice: float,
) -> None:
    balancer = of(2, dice)
    balancer.failed(0, 0.0)
    assert 0.25 <= balancer.upstreams[0].backoff_until <= 0.5
    balancer.failed(1, 0.0, retry_after=7.0)
    assert 7.0 <= balancer.upstreams[1].backoff_until <= 7.701
    assert balancer.upstreams[1].failures == 0


def test_chunk_is_given_up_after_it_failed_on_three_upstreams() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    steps = [attempts.after(index, failure()) for index in range(DEFAULT_LIMITS.broken_servers)]
    assert steps == [FailureStep.AGAIN, FailureStep.AGAIN, FailureStep.NEVER]


def test_unread_request_and_busy_upstream_cost_no_attempt() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    for _ in range(50):
        assert attempts.after(0, failure(sent=False)) is FailureStep.AGAIN
        assert attempts.after(0, failure(FailureStep.LATER)) is FailureStep.LATER


def test_failure_on_a_chunk_between_two_unreachable_tries_counts_as_a_death_and_names_both() -> (
    None
):
    attempts, away = ChunkAttempts(0.0, 100.0), unreachable_failure("good:2 does not answer.")
    attempts.after(1, away)
    assert not attempts.error.counts_as_death
    attempts.after(0, ChunkFailure(FailureStep.AGAIN, UpstreamFailed("bad:1 failed."), sent=True))
    attempts.after(1, away)
    as_a_job_has_it = errors.from_wire(attempts.error.to_wire())
    assert as_a_job_has_it.fault is Fault.UPSTREAM
    assert as_a_job_has_it.counts_as_death
    assert as_a_job_has_it.retry_after == away.error.retry_after
    assert as_a_job_has_it.detail == "bad:1 failed. Then: good:2 does not answer."


def test_failure_on_a_chunk_followed_by_a_busy_answer_counts_as_no_death() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    attempts.after(0, failure())
    attempts.after(0, ChunkFailure(FailureStep.LATER, UpstreamBusy(), 300.0))
    assert not attempts.error.counts_as_death


def test_upstream_that_refused_a_chunk_is_not_asked_for_it_again() -> None:
    balancer = of(2)
    attempts = ChunkAttempts(0.0, 100.0)
    for index in (0, 1):
        assert balancer.take(0.0, attempts.refused) == index
        attempts.after(index, failure(FailureStep.ELSEWHERE))
        balancer.release(index)
    assert balancer.take(0.0, attempts.refused) is None
    assert not attempts.waits(0.0, balancer.free_in(0.0, attempts.refused))


def test_unreachable_upstreams_are_waited_for_shortly_and_busy_ones_fully() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    attempts.after(0, failure(sent=False))
    assert attempts.waits(7.0, 0.5)
    assert not attempts.waits(7.0, 1.5)
    attempts.after(0, failure(FailureStep.LATER))
    assert attempts.waits(90.0, 9.0)
    assert not attempts.waits(90.0, 11.0)


def test_choice_of_healthy_upstreams_skips_one_that_failed_even_after_its_backoff() -> None:
    balancer = of(2)
    assert balancer.take(0.0, {1}) == 0
    balancer.failed(0, 0.0)
    balancer.release(0)
    assert balancer.take(100.0, healthy=True) == 1
    assert balancer.take(100.0, {1}, healthy=True) is None
    assert balancer.take(100.0, {1}) == 0


def test_upstream_whose_backoff_is_longer_than_the_chunk_may_wait_is_tried_once() -> None:
    balancer, attempts = of(1), ChunkAttempts(0.0, 30.0)
    balancer.failed(0, 0.0, retry_after=60.0)
    assert balancer.choose(0.0, attempts) == (0, None)
    balancer.release(0)
    attempts.tried.add(0)
    assert balancer.choose(0.0, attempts) == (None, None)
