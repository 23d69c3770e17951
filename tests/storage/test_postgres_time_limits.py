"""Time limits of shared jobs against each other."""

from __future__ import annotations

from sidecar.cluster import membership
from sidecar.storage import postgres_settings

HEARD_OF_S = 5.0
"""Within so many seconds a client hears that the database does not answer (docs/contract.md)."""


def test_the_server_gives_up_before_the_caller_and_the_caller_before_the_client() -> None:
    assert (
        postgres_settings.LOCK_TIMEOUT_S
        < postgres_settings.STATEMENT_TIMEOUT_S
        < postgres_settings.CALL_TIMEOUT_S
        < HEARD_OF_S
    )


def test_a_call_has_time_for_a_second_attempt_to_connect() -> None:
    assert (
        2 * postgres_settings.CONNECT_TIMEOUT_S + postgres_settings.MIN_RETRY_PAUSE_S
        < postgres_settings.CALL_TIMEOUT_S
    )


def test_a_heartbeat_that_meets_a_dead_connection_and_is_repeated_does_not_expire() -> None:
    late_s = (
        membership.HEARTBEAT_INTERVAL_S
        + postgres_settings.TCP_USER_TIMEOUT_S
        + postgres_settings.MIN_RETRY_PAUSE_S
    )
    assert late_s < membership.HEARTBEAT_INTERVAL_S * membership.EXPIRY_HEARTBEATS


def test_a_dead_connection_is_found_out_within_the_call_that_meets_it() -> None:
    assert (
        postgres_settings.TCP_USER_TIMEOUT_S + postgres_settings.CONNECT_TIMEOUT_S
        < postgres_settings.CALL_TIMEOUT_S
    )


def test_an_outage_costs_at_most_one_attempt_for_each_heartbeat() -> None:
    assert (
        postgres_settings.MIN_RETRY_PAUSE_S
        < postgres_settings.MAX_RETRY_PAUSE_S
        <= membership.HEARTBEAT_INTERVAL_S
    )
