"""Heartbeats: who is dead is decided by the observer's own clock."""

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from postgres import Cluster
from service_process import until
from shared_job_services import SEGMENT, Service, submitted

from sidecar import errors
from sidecar.jobs.job_record import JobState, StartedChange
from sidecar.plugins.shared_jobs.claims import WAITING
from sidecar.plugins.shared_jobs.membership import (
    EXPIRY_HEARTBEATS,
    HEARTBEAT_INTERVAL_S,
    HeartbeatObserver,
)

NO = errors.AudioTooLong()


def looked(*looks: tuple[float, float, dict[str, int]]) -> list[str]:
    """Who is dead after the last of these looks: from when to when, and the beats."""
    observer, dead = HeartbeatObserver(), list[str]()
    for begun, ended, beats in looks:
        dead = observer.seen(beats, begun, ended)
    return dead


def every_second(count: int, *, beats: bool = False) -> list[tuple[float, float, dict[str, int]]]:
    return [(10.0 + at, 10.01 + at, {"a": at, "b": at * beats}) for at in range(count)]


def test_service_without_new_heartbeat_is_dead_after_some_observations() -> None:
    assert looked(*every_second(EXPIRY_HEARTBEATS)) == []
    assert looked(*every_second(1 + EXPIRY_HEARTBEATS)) == ["b"]
    assert looked(*every_second(20, beats=True)) == []


def test_observation_delayed_by_the_database_does_not_count() -> None:
    looks = every_second(1 + EXPIRY_HEARTBEATS)
    begun, _, beats = looks[-2]
    looks[-2] = begun, begun + HEARTBEAT_INTERVAL_S + 0.1, beats
    assert looked(*looks) == []


def test_observer_that_was_suspended_declares_no_service_dead() -> None:
    *looks, (begun, ended, beats) = every_second(1 + EXPIRY_HEARTBEATS)
    late = 10 * HEARTBEAT_INTERVAL_S
    assert looked(*looks, (begun + late, ended + late, beats)) == []


async def test_jobs_of_dead_service_are_claimable_again_and_the_started_one_is_interrupted(
    one: Service, other: Service
) -> None:
    begun, waiting = await one.submit("a", "b")
    first, second = await one.claimed(), await one.claimed()
    running = await one.report(first, first.record, StartedChange())
    assert running is not None
    observer = HeartbeatObserver()
    for at in range(EXPIRY_HEARTBEATS + 3):
        await other.membership.register()
        rows = await other.database.fetch("SELECT id, beat FROM vibevoice.services")
        dead = observer.seen(dict(rows), float(at), float(at))
    assert dead == ["one"]
    await other.membership.expire({"one": dict(rows)["one"]})
    after = await other.jobs.get(first.record.id)
    assert (after.state, after.interruptions, after.attempts) == (JobState.QUEUED, 1, 1)
    assert (await other.jobs.get(second.record.id)).interruptions == 0
    assert await one.claims.mine() == frozenset()
    assert await one.report(first, running, SEGMENT) is None
    again = {(await other.claim() or first).record.id for _ in range(2)}
    assert again == {begun.id, waiting.id}


async def test_expiry_of_a_node_writes_rows_of_its_claimed_jobs_and_not_of_those_it_put_off(
    one: Service, journal: str
) -> None:
    jobs = await one.submit(*["a"] * 60)
    await one.refuse(NO, *jobs[1:])
    assert await one.claim() is not None
    with psycopg.connect(journal) as look:
        look.execute("SELECT vibevoice.expire_1('{one}', '{NULL}')")
        ((written,),) = look.execute(
            """SELECT sum(n_tup_upd + n_tup_del)::int FROM pg_stat_xact_user_tables
                WHERE schemaname = 'vibevoice' AND relname = 'jobs'"""
        ).fetchall()
        look.rollback()
    assert written < 5


@pytest.mark.parametrize("call", ["expire", "follow"])
async def test_expiry_and_follow_calls_lock_jobs_in_the_order_of_their_ids(
    one: Service, journal: str, call: str
) -> None:
    """Two calls that lock several jobs in another order would stop each other."""
    first, second = sorted((submitted("z"), submitted("a")), key=lambda job: job.id)
    for job in (replace(second, owner="a"), replace(first, owner="z")):
        await one.jobs.submit(job)
        assert await one.claim() is not None
    with psycopg.connect(journal) as holder, psycopg.connect(journal) as look:
        holder.execute("SELECT FROM vibevoice.jobs WHERE id = %s FOR UPDATE", (first.id,))
        waits = asyncio.create_task(
            one.membership.leave() if call == "expire" else one.follower.mark([second.id, first.id])
        )
        await until(lambda: _waits(look))
        free = "SELECT id FROM vibevoice.jobs FOR UPDATE SKIP LOCKED"
        assert look.execute(free).fetchall() == [(second.id,)]
        look.rollback()
        holder.rollback()
    await waits


def _waits(look: psycopg.Connection) -> bool:
    blocked = "SELECT FROM pg_locks WHERE NOT granted"
    return bool(look.execute(blocked).fetchall())


async def test_service_with_a_heartbeat_since_it_was_observed_is_not_expired(
    one: Service, other: Service
) -> None:
    await one.submit("a")
    claim = await one.claimed()
    await one.membership.register()
    await other.membership.expire({"one": 0})
    assert await one.claims.mine() == {claim.token}


async def _waiting_beat(
    other: Service, late: psycopg.AsyncConnection[Any], look: psycopg.Connection[Any]
) -> tuple[dict[str, int], asyncio.Future[Any]]:
    """What was seen before a heartbeat that waits for the standby. The server takes its new
    settings a moment after it is told to: heartbeats until then are committed."""
    waits = """SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND query LIKE '%beat_1(''one''%'"""
    while True:
        seen = dict(await other.database.fetch("SELECT id, beat FROM vibevoice.services"))
        beats = asyncio.ensure_future(late.execute("SELECT vibevoice.beat_1('one', true, false)"))
        await until(lambda: beats.done() or look.execute(waits).fetchone() == (1,))  # noqa: B023
        if not beats.done():
            return seen, beats


async def test_no_service_expires_while_synchronous_standby_is_missing(
    one: Service, other: Service, journal: str, postgres_cluster: Cluster
) -> None:
    """Heartbeats stand still for all, as none is committed; their locks stop expiries."""
    services = "SELECT id, beat FROM vibevoice.services"
    async with await psycopg.AsyncConnection.connect(journal, autocommit=True) as late:
        with postgres_cluster.connected() as look:
            look.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            look.execute("SELECT pg_reload_conf()")
            try:
                seen, beats = await _waiting_beat(other, late, look)
                assert dict(await other.database.fetch(services)) == seen
                other.database.call_timeout_s = 0.2
                with pytest.raises(errors.JournalUnreachable):
                    await other.membership.expire({"one": seen["one"]})
            finally:
                look.execute("ALTER SYSTEM RESET synchronous_standby_names")
                look.execute("SELECT pg_reload_conf()")
        await beats
    await one.membership.expire({"one": seen["one"]})
    assert {*dict(await one.database.fetch(services))} == {"one", "other"}


async def test_expiry_notifies_other_nodes_of_jobs_to_claim(one: Service, other: Service) -> None:
    heard = list[str]()
    one.database.listen(WAITING, heard.append)
    await until(lambda: heard, "it listens")
    heard.clear()
    await one.membership.expire({"other": None})
    await until(lambda: heard)


async def test_draining_node_claims_nothing(one: Service) -> None:
    await one.submit("a")
    await one.membership.drain()
    assert await one.claim() is None


@pytest.mark.parametrize("twice", [False, True])
async def test_leaving_service_refunds_the_owners_of_its_claimed_jobs_once(
    one: Service, twice: bool
) -> None:
    await one.submit("a", "a", "b", seconds=7)
    for _ in range(3):
        assert await one.claim() is not None
    for _ in range(1 + twice):
        await one.membership.leave()
    had = await one.database.fetch("SELECT owner, had_s FROM vibevoice.owners ORDER BY 1")
    assert had == [("a", 0.0), ("b", 0.0)]
