"""Time limits of shared jobs against each other."""

import pytest

from sidecar.plugins.shared_jobs import postgres_settings as limits
from sidecar.plugins.shared_jobs.membership import EXPIRY_HEARTBEATS, HEARTBEAT_INTERVAL_S

HEARD_OF_S = 5.0
"""Within so many seconds a client hears that the database does not answer (docs/journal.md)."""
RETRIED_S = limits.MIN_RETRY_PAUSE_S
ROWS = {
    "a lock is given up before its statement": (limits.LOCK_TIMEOUT_S, limits.STATEMENT_TIMEOUT_S),
    "the server gives up before the caller": (limits.STATEMENT_TIMEOUT_S, limits.CALL_TIMEOUT_S),
    "the caller before the client": (limits.CALL_TIMEOUT_S, HEARD_OF_S),
    "a call may connect twice": (2 * limits.CONNECT_TIMEOUT_S + RETRIED_S, limits.CALL_TIMEOUT_S),
    "a heartbeat that meets a dead connection and is repeated does not expire": (
        HEARTBEAT_INTERVAL_S + limits.TCP_USER_TIMEOUT_S + RETRIED_S,
        HEARTBEAT_INTERVAL_S * EXPIRY_HEARTBEATS,
    ),
    "a dead connection is found out within the call that meets it": (
        limits.TCP_USER_TIMEOUT_S + limits.CONNECT_TIMEOUT_S,
        limits.CALL_TIMEOUT_S,
    ),
}


@pytest.mark.parametrize(("less_s", "more_s"), ROWS.values(), ids=ROWS)
def test_time_limits_are_in_order(less_s: float, more_s: float) -> None:
    assert less_s < more_s


def test_retry_pause_is_at_most_one_heartbeat() -> None:
    assert RETRIED_S < limits.MAX_RETRY_PAUSE_S <= HEARTBEAT_INTERVAL_S
