"""Who gets a piece, who stands aside, when it is given up: told from values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.errors import Fault
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.load_balancer import DEFAULT_LIMITS, ChunkAttempts, ServerLoad


@pytest.fixture(autouse=True)
def impatient() -> None:
    """The figures as they are."""


def busy(rest_s: float) -> UpstreamBusy:
    error = UpstreamBusy()
    error.rest_s = rest_s
    return error


def fail(server: ServerLoad, now: float, error: Exception | None = None, dice: float = 1.0) -> None:
    server.failed(error or UpstreamFailed(), now, lambda: dice)  # type: ignore[arg-type]


def chosen(servers: list[ServerLoad], now: float = 0.0) -> int | None:
    """The server of another chunk that may wait for long."""
    return ChunkAttempts(now, now + 1e6, reached=True).choose(servers, now)[0]


def test_least_loaded_upstream_is_taken_and_equal_ones_in_turn() -> None:
    servers = [ServerLoad() for _ in range(3)]
    assert [chosen(servers) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    servers[1].running -= 1
    assert chosen(servers) == 1


def test_load_counts_jobs_of_others_too() -> None:
    servers = [ServerLoad(), ServerLoad(waiting=2)]
    assert [chosen(servers) for _ in range(3)] == [0, 0, 1]


def test_backoff_of_a_failing_upstream_doubles_up_to_a_minute() -> None:
    server, now, times = ServerLoad(), 0.0, []
    for _ in range(12):
        fail(server, now)
        times.append(server.wait_s(now))
        assert chosen([server], now) is None
        now += times[-1]
        assert chosen([server], now) == 0
        server.running -= 1
    assert times[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert times[-1] == 60.0


def test_only_one_chunk_tries_an_upstream_after_its_backoff_until_it_succeeded() -> None:
    server = ServerLoad()
    fail(server, 0.0)
    assert [chosen([server], 1.0), chosen([server], 1.0)] == [0, None]
    server.running -= 1
    server.succeeded()
    assert [chosen([server], 1.0), chosen([server], 1.0)] == [0, 0]


def test_simultaneous_failures_of_an_upstream_count_once() -> None:
    server = ServerLoad()
    for _ in range(8):
        fail(server, 5.0)
    assert server.failures == 1


@given(dice=st.floats(0, 1))
def test_jitter_shortens_a_backoff_by_up_to_half_and_lengthens_retry_after_by_up_to_a_tenth(
    dice: float,
) -> None:
    broken, resting = ServerLoad(), ServerLoad()
    fail(broken, 0.0, dice=dice)
    assert 0.25 <= broken.backoff_until <= 0.5
    fail(resting, 0.0, busy(7.0), dice=dice)
    assert 7.0 <= resting.rest_until <= 7.701
    assert resting.failures == 0


def test_rest_that_an_upstream_asked_for_lasts_when_another_chunk_succeeds_there() -> None:
    server = ServerLoad()
    fail(server, 0.0, busy(7.0), dice=0.0)
    fail(server, 0.0)
    server.succeeded()
    assert server.wait_s(3.0) == 4.0
    assert server.failures == 0


def test_upstream_that_refuses_a_chunk_gets_others_at_once() -> None:
    server = ServerLoad()
    fail(server, 0.0, UpstreamRefused())
    assert chosen([server]) == 0


def test_chunk_is_given_up_after_it_failed_on_three_upstreams() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    for index in range(DEFAULT_LIMITS.broken_servers - 1):
        attempts.failed(index, UpstreamFailed())
    with pytest.raises(UpstreamFailed, match="third"):
        attempts.failed(DEFAULT_LIMITS.broken_servers, UpstreamFailed("the third"))


def test_unread_request_and_busy_upstream_cost_no_attempt() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    for _ in range(50):
        attempts.failed(0, UpstreamUnreachable())
        attempts.failed(0, UpstreamBusy())
    assert attempts.broken == 0


def test_failure_on_a_chunk_between_two_unreachable_tries_counts_as_a_death_and_names_both() -> (
    None
):
    attempts, away = ChunkAttempts(0.0, 100.0), UpstreamUnreachable("good:2 does not answer.")
    attempts.failed(1, away)
    assert not attempts.error.counts_as_death
    attempts.failed(0, UpstreamFailed("bad:1 failed."))
    attempts.failed(1, away)
    as_a_job_has_it = errors.from_wire(attempts.error.to_wire())
    assert as_a_job_has_it.fault is Fault.UPSTREAM
    assert as_a_job_has_it.counts_as_death
    assert as_a_job_has_it.retry_after == away.retry_after
    assert as_a_job_has_it.detail == "bad:1 failed. Then: good:2 does not answer."


def test_failure_on_a_chunk_followed_by_a_busy_answer_counts_as_no_death() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    attempts.failed(0, UpstreamFailed())
    attempts.failed(0, UpstreamBusy())
    assert not attempts.error.counts_as_death


@pytest.mark.parametrize("first", [0, 1])
def test_chunk_waits_for_the_upstream_that_may_take_it_first_whichever_is_asked_last(
    first: int,
) -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    attempts.failed(first, UpstreamBusy(retry_after=300))
    attempts.failed(1 - first, UpstreamBusy(retry_after=7))
    assert attempts.error.retry_after == 7
    attempts.failed(first, UpstreamBusy(retry_after=300))
    assert attempts.error.retry_after == 7
    attempts.failed(1 - first, UpstreamUnreachable())
    attempts.failed(first, UpstreamBusy(retry_after=300))
    assert attempts.error.retry_after == UpstreamUnreachable.default_retry_after


def test_upstream_that_refused_a_chunk_is_not_asked_for_it_again() -> None:
    servers = [ServerLoad(), ServerLoad()]
    attempts = ChunkAttempts(0.0, 100.0)
    for index in (0, 1):
        assert attempts.choose(servers, 0.0) == (index, 0.0)
        attempts.failed(index, UpstreamRefused())
        servers[index].running -= 1
    with pytest.raises(UpstreamRefused):
        attempts.choose(servers, 0.0)


@pytest.mark.parametrize("away_first", [True, False])
@pytest.mark.parametrize("error", [UpstreamUnreachable(), errors.WontFit()])
def test_recording_is_not_to_blame_while_one_upstream_is_away_or_full_whichever_is_asked_first(
    error: errors.SidecarError, away_first: bool
) -> None:
    attempts, servers = ChunkAttempts(0.0, 100.0), [ServerLoad(), ServerLoad(backoff_until=60.0)]

    def meets() -> None:
        if isinstance(error, UpstreamUnreachable):
            attempts.failed(1, error)
        else:
            attempts.refuse(1, error)

    attempts.tried = {0, 1}
    if away_first:
        meets()
    attempts.refuse(0, errors.LanguageUnsupported())
    if not away_first:
        meets()
    with pytest.raises(type(error)):
        attempts.choose(servers, 9.0)


def test_upstream_that_is_back_and_refuses_the_recording_decides() -> None:
    attempts = ChunkAttempts(0.0, 100.0)
    attempts.failed(0, UpstreamUnreachable())
    attempts.refuse(0, errors.LanguageUnsupported())
    with pytest.raises(errors.LanguageUnsupported):
        attempts.choose([ServerLoad()], 1.0)


@pytest.mark.parametrize(
    ("error", "waits_s"), [(UpstreamUnreachable(), 8.0), (busy(0.1), 100.0)], ids=["gone", "busy"]
)
def test_unreachable_upstreams_are_waited_for_shortly_and_busy_ones_fully(
    error: UpstreamUnreachable | UpstreamBusy, waits_s: float
) -> None:
    server, attempts = ServerLoad(), ChunkAttempts(0.0, 100.0)
    assert attempts.choose([server], 0.0) == (0, 0.0)
    attempts.failed(0, error)
    server.running -= 1
    now = waits_s - 1
    server.backoff_until = now + 0.5
    assert attempts.choose([server], now) == (None, 0.5)
    server.backoff_until = now + 1.5
    with pytest.raises(type(error)):
        attempts.choose([server], now)


def test_upstream_whose_backoff_is_longer_than_the_chunk_may_wait_is_tried_once() -> None:
    server, attempts = ServerLoad(), ChunkAttempts(0.0, 30.0)
    fail(server, 0.0, busy(60.0))
    assert attempts.choose([server], 0.0) == (0, 0.0)
    attempts.failed(0, busy(60.0))
    with pytest.raises(UpstreamBusy):
        attempts.choose([server], 0.0)


def test_untried_upstreams_are_tried_in_order_of_their_backoff_once_the_time_is_up() -> None:
    servers, attempts = [ServerLoad(), ServerLoad(), ServerLoad()], ChunkAttempts(0.0, 30.0)
    for server, rest_s in zip(servers, (90.0, 60.0, 40.0), strict=True):
        fail(server, 0.0, busy(rest_s))
    attempts.tried.add(2)
    assert [attempts.choose(servers, 31.0)[0] for _ in range(2)] == [1, 0]
