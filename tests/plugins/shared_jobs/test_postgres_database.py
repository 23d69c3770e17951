"""Calls to a real PostgreSQL that is stopped, frozen and started again."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres import Cluster
from service_process import PATIENCE_S, run_command, service_environment, until
from systems import IN_WINDOWS

from sidecar import errors
from sidecar.plugins.shared_jobs import postgres_settings
from sidecar.plugins.shared_jobs.postgres_connection import connected, sever
from sidecar.plugins.shared_jobs.postgres_database import PostgresDatabase, retry_while_unavailable

SIZE = 3
SHORT_S = 1.0
"""Limit of a call, in tests of one that does not come back."""
WAITS_FOR_LOCK = "SELECT pg_advisory_xact_lock(7)"
LATE_S = 8.0
"""Beyond the limit of a call, on a machine that is busy; psycopg by itself takes ten more."""


@pytest.fixture
async def shared(journal: str) -> AsyncIterator[PostgresDatabase]:
    """A database with a table of numbers."""
    opened = PostgresDatabase(journal, SIZE)
    await opened.open()
    await opened.fetch("CREATE TABLE numbers (number integer)")
    yield opened
    await opened.close()


async def numbers(shared: PostgresDatabase) -> list[int]:
    return [number for (number,) in await shared.fetch("SELECT number FROM numbers ORDER BY 1")]


async def fill(shared: PostgresDatabase) -> set[int]:
    """Have the pool make all its connections; the processes of the server behind them."""
    asked, found = "SELECT pg_backend_pid(), pg_sleep(0.1)", set[int]()
    while len(found) < SIZE:  # it makes one after the other, which may take longer than the calls
        rows = await asyncio.gather(*(shared.fetch(asked) for _ in range(3 * SIZE)))
        found = {row[0][0] for row in rows}
    return found


async def all_used(
    shared: PostgresDatabase, work: Callable[[Any], Awaitable[object]]
) -> list[asyncio.Task[object]]:
    """Have transactions that do this work use all connections of the pool."""
    begun = list[None]()

    async def noted(cursor: Any) -> object:
        begun.append(None)
        return await work(cursor)

    using = [asyncio.create_task(shared.transaction(noted)) for _ in range(SIZE)]
    await until(lambda: len(begun) == SIZE)
    return using


def connections(cluster: Cluster, journal: str) -> int:
    """How many the server has to a database."""
    with cluster.connected() as look:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        return int(look.execute(query, (journal.rsplit("/", 1)[1],)).fetchone()[0])


@contextmanager
def locked(cluster: Cluster, journal: str) -> Iterator[None]:
    """Somebody else has the lock of ``WAITS_FOR_LOCK`` meanwhile."""
    with cluster.connected(journal.rsplit("/", 1)[1]) as other, other.transaction():
        other.execute(WAITS_FOR_LOCK)
        yield


async def restarted(cluster: Cluster, mode: str = "fast") -> None:
    await asyncio.to_thread(cluster.stop, mode)
    await asyncio.to_thread(cluster.start)


async def test_statement_returns_rows_and_transaction_is_all_or_nothing(
    shared: PostgresDatabase,
) -> None:
    assert await shared.fetch("INSERT INTO numbers VALUES (%(one)s)", {"one": 1}) == []
    assert await shared.fetch("SELECT number, '100 %' FROM numbers") == [(1, "100 %")]

    async def two(cursor: Any) -> str:
        await cursor.execute("INSERT INTO numbers VALUES (2), (3)")
        return "done"

    async def half(cursor: Any) -> None:
        await cursor.execute("INSERT INTO numbers VALUES (4)")
        raise errors.JobNotFound()

    assert await shared.transaction(two) == "done"
    with pytest.raises(errors.JobNotFound):
        await shared.transaction(half)
    assert await numbers(shared) == [1, 2, 3]


async def test_rejected_statement_raises_is_logged_and_leaves_all_connections_open(
    shared: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    before = await fill(shared)
    for _ in range(2 * SIZE):
        with pytest.raises(errors.JournalUnreachable, match="rejects"):
            await shared.fetch("SELECT nothing FROM numbers")
    assert 'column "nothing" does not exist' in caplog.text
    assert shared.up
    assert await fill(shared) == before


async def test_connection_of_the_pool_has_time_limits_an_application_name_and_no_jit(
    shared: PostgresDatabase, journal: str
) -> None:
    rows = await shared.fetch(
        """SELECT current_setting('statement_timeout')::interval, current_setting('lock_timeout')
            ::interval, current_setting('application_name'), current_setting('jit')"""
    )
    ((statement, lock, name, jit),) = rows
    assert jit == "off"
    assert (statement.total_seconds(), lock.total_seconds()) == (
        postgres_settings.STATEMENT_TIMEOUT_S,
        postgres_settings.LOCK_TIMEOUT_S,
    )
    assert name == "vibevoice-asr"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_server_restart_between_two_calls_causes_no_error(
    shared: PostgresDatabase, postgres_cluster: Cluster, mode: str
) -> None:
    await fill(shared)
    await restarted(postgres_cluster, mode)
    shared.call_timeout_s = PATIENCE_S
    await asyncio.gather(*(shared.fetch("SELECT 1") for _ in range(2 * SIZE)))
    assert shared.up


async def test_call_waits_for_a_server_that_restarts(
    shared: PostgresDatabase, postgres_cluster: Cluster
) -> None:
    shared.call_timeout_s = PATIENCE_S  # a start may take longer than a call
    await asyncio.to_thread(postgres_cluster.stop)
    call = asyncio.create_task(shared.fetch("SELECT 1"))
    await until(lambda: not shared.up)
    await asyncio.to_thread(postgres_cluster.start)
    assert await call == [(1,)]


async def test_calls_over_terminated_connections_are_repeated(
    shared: PostgresDatabase, postgres_cluster: Cluster, journal: str
) -> None:
    before = await fill(shared)
    with postgres_cluster.connected() as other:
        for pid in before:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        assert await shared.fetch("SELECT 1") == [(1,)]
        after = await fill(shared)
        assert not before & after
        with locked(postgres_cluster, journal):
            waiting = asyncio.create_task(
                shared.fetch(f"INSERT INTO numbers SELECT 1 FROM ({WAITS_FOR_LOCK}) AS it")
            )
            query = """SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
                WHERE query LIKE 'INSERT INTO numbers%' AND wait_event_type = 'Lock'"""
            await until(lambda: other.execute(query).fetchone()[0])
        await waiting
    assert await numbers(shared) == [1]


@pytest.mark.slow
async def test_calls_to_frozen_server_fail_in_time_roll_back_and_the_pool_answers_afterwards(
    shared: PostgresDatabase, postgres_cluster: Cluster
) -> None:
    await fill(shared)

    async def in_the_middle(cursor: Any) -> None:
        await cursor.execute("INSERT INTO numbers VALUES (1)")
        with postgres_cluster.frozen():
            await cursor.execute("INSERT INTO numbers VALUES (2)")

    usual_s, shared.call_timeout_s = shared.call_timeout_s, SHORT_S
    with postgres_cluster.frozen():
        calls = [shared.fetch("SELECT 1") for _ in range(3 * SIZE)]  # some wait their turn
        async with asyncio.timeout(SHORT_S + LATE_S):
            results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in results] == [errors.JournalUnreachable] * 3 * SIZE
    assert not shared.up
    async with asyncio.timeout(SHORT_S + LATE_S):
        with pytest.raises(errors.JournalUnreachable):
            await shared.transaction(in_the_middle)
    shared.call_timeout_s = usual_s
    assert await numbers(shared) == []
    assert shared.up


async def test_database_opened_while_server_is_away_answers_once_it_is_back(
    journal: str, postgres_cluster: Cluster
) -> None:
    shared = PostgresDatabase(journal)
    usual_s, shared.call_timeout_s = shared.call_timeout_s, SHORT_S
    with postgres_cluster.frozen():
        await shared.open()
        with pytest.raises(errors.JournalUnreachable):
            await shared.fetch("SELECT 1")
    shared.call_timeout_s = usual_s
    assert await shared.fetch("SELECT 1") == [(1,)]
    await shared.close()


async def test_cancelled_caller_returns_at_once_and_its_connection_stays_usable(
    journal: str, postgres_cluster: Cluster
) -> None:
    shared = PostgresDatabase(journal, 1)
    await shared.open()
    before = await shared.fetch("SELECT pg_backend_pid()")
    with locked(postgres_cluster, journal):
        called = asyncio.create_task(shared.fetch(WAITS_FOR_LOCK))
        await until(lambda: postgres_cluster.waiting_for_locks(journal))
        called.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert called.cancelled()
    assert await shared.fetch("SELECT pg_backend_pid()") == before
    waiting = [asyncio.create_task(shared.fetch("SELECT 1")) for _ in range(3)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    assert await shared.fetch("SELECT pg_backend_pid()") == before
    await shared.close()


async def test_connection_to_read_only_server_is_replaced(
    shared: PostgresDatabase, journal: str, postgres_cluster: Cluster
) -> None:
    name = journal.rsplit("/", 1)[1]
    with postgres_cluster.connected() as other:
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await restarted_connections(shared, postgres_cluster)
        with pytest.raises(errors.JournalUnreachable):
            await shared.fetch("INSERT INTO numbers VALUES (1)")
        await fill(shared)
    with postgres_cluster.connected() as other:
        other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await shared.fetch("INSERT INTO numbers VALUES (1)")
    assert await numbers(shared) == [1]


async def restarted_connections(shared: PostgresDatabase, cluster: Cluster) -> None:
    """Have all connections of the pool made anew."""
    with cluster.connected() as other:
        for pid in await fill(shared):
            other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
    await fill(shared)


async def test_deadlocked_transaction_is_repeated(shared: PostgresDatabase) -> None:
    both = asyncio.Barrier(2)
    met = 0

    async def lock(cursor: Any, first: int, second: int) -> None:
        nonlocal met
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (first,))
        if met < 2:
            met += 1
            await both.wait()
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (second,))
        await cursor.execute("INSERT INTO numbers VALUES (%s)", (first,))

    await asyncio.gather(
        shared.transaction(lambda cursor: lock(cursor, 1, 2)),
        shared.transaction(lambda cursor: lock(cursor, 2, 1)),
    )
    assert await numbers(shared) == [1, 2]


async def test_lock_statement_and_pool_timeouts_are_errors_but_no_database_outage(
    shared: PostgresDatabase,
    postgres_cluster: Cluster,
    journal: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A lock that is held elsewhere, a long statement, and a pool of which all are used."""

    async def impatient(cursor: Any, setting: str, sql: str) -> None:
        await cursor.execute(f"SET LOCAL {setting} = '10ms'")
        await cursor.execute(sql)

    with postgres_cluster.connected(journal.rsplit("/", 1)[1]) as other:
        other.execute("BEGIN; LOCK numbers")
        with pytest.raises(errors.JournalUnreachable):
            await shared.transaction(
                lambda cursor: impatient(cursor, "lock_timeout", "LOCK numbers")
            )
    sleep = "SELECT pg_sleep(60)"
    with pytest.raises(errors.JournalUnreachable):
        await shared.transaction(lambda cursor: impatient(cursor, "statement_timeout", sleep))
    goes_on = asyncio.Event()
    using = await all_used(shared, lambda _: goes_on.wait())
    shared.call_timeout_s = 0.1
    with pytest.raises(errors.JournalUnreachable):
        await shared.fetch("SELECT 1")
    goes_on.set()
    await asyncio.gather(*using)
    for reason in ("lock timeout", "statement timeout", "couldn't get a connection"):
        assert reason in caplog.text
    assert "does not answer" not in caplog.text
    assert shared.up


async def test_notifications_arrive_on_channels_added_later_and_despite_a_failing_listener(
    shared: PostgresDatabase,
) -> None:
    shared.listen_check_s = 0.05
    first, second = list[str](), list[str]()
    shared.listen("first", first.append)
    await until(lambda: first == [""])
    await shared.fetch("SELECT pg_notify('first', 'a'), pg_notify('Second', 'b')")
    await until(lambda: first == ["", "a"])
    shared.listen("Broken", _failing)
    shared.listen("Second", second.append)
    await until(lambda: second == [""])
    await shared.fetch(
        "SELECT pg_notify('Broken', ''), pg_notify('first', 'c'), pg_notify('Second', 'd')"
    )
    await until(lambda: first == ["", "a", "c"] and second == ["", "d"])


def _failing(payload: str) -> None:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_listener_is_told_of_restart_and_gets_later_notifications(
    shared: PostgresDatabase, postgres_cluster: Cluster, mode: str
) -> None:
    heard = list[str]()
    shared.listen("news", heard.append)
    await until(lambda: heard == [""])
    await restarted(postgres_cluster, mode)
    await until(lambda: heard == ["", ""])
    await shared.fetch("NOTIFY news, 'again'")
    await until(lambda: heard == ["", "", "again"])


async def test_frozen_server_is_noticed_by_listening_connection(
    shared: PostgresDatabase, postgres_cluster: Cluster
) -> None:
    shared.listen_check_s, shared.call_timeout_s = 0.05, 0.5
    heard = list[str]()
    shared.listen("news", heard.append)
    await until(lambda: heard == [""])
    with postgres_cluster.frozen():
        await until(lambda: not shared.up)
    await until(lambda: heard == ["", ""])
    assert shared.up


@pytest.mark.parametrize("frozen", [False, True])
async def test_close_leaves_no_task_and_no_connection(
    journal: str, postgres_cluster: Cluster, frozen: bool
) -> None:
    before = asyncio.all_tasks()
    shared = PostgresDatabase(journal, SIZE)
    heard = list[str]()
    shared.listen("news", heard.append)
    await shared.open()
    await fill(shared)
    await until(lambda: heard == [""])
    if frozen:
        goes_on = asyncio.Event()

        async def asks(cursor: Any) -> None:
            await goes_on.wait()
            await cursor.execute("SELECT 1")

        calls = await all_used(shared, asks)
        with postgres_cluster.frozen():
            goes_on.set()
            calls += [asyncio.create_task(shared.fetch("SELECT 1")) for _ in range(SIZE)]
            await asyncio.sleep(0)
            calls[0].cancel()
            async with asyncio.timeout(LATE_S):
                await shared.close()
            assert asyncio.all_tasks() - {*calls} == before
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, errors.JournalUnreachable | asyncio.CancelledError)
    else:
        await shared.close()
    assert asyncio.all_tasks() == before
    await until(lambda: not connections(postgres_cluster, journal), "they are gone")
    with pytest.raises(errors.JournalUnreachable):
        await shared.fetch("SELECT 1")


async def test_repeated_call_outlasts_an_outage_that_is_logged_once(
    shared: PostgresDatabase, postgres_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shared.call_timeout_s = 0.05
    tried = 0

    async def insert() -> Any:
        nonlocal tried
        tried += 1
        return await shared.fetch("INSERT INTO numbers VALUES (1) RETURNING number")

    await asyncio.to_thread(postgres_cluster.stop, "immediate")
    inserting = asyncio.create_task(retry_while_unavailable(insert))
    await until(lambda: tried > 3)
    assert not inserting.done()
    shared.call_timeout_s = PATIENCE_S  # a busy server may take longer for a call
    await asyncio.to_thread(postgres_cluster.start)
    assert await inserting == [(1,)]
    said = [one.getMessage() for one in caplog.records if one.levelname != "DEBUG"]
    assert len([one for one in said if "does not answer" in one]) == 1
    assert said[-1] == "the database answers again"
    assert "not-for-logs" not in caplog.text


def test_shared_jobs_on_windows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(errors.SettingsInvalid, match="Windows"):
        PostgresDatabase("postgresql://vibevoice@db.example/vibevoice")


@pytest.mark.skipif(not IN_WINDOWS, reason="a service on Windows")
def test_start_on_windows_with_a_database_ends_with_one_sentence_that_says_so(
    tmp_path: Path,
) -> None:
    given = {"journal": "postgresql://vibevoice:secret@db.example/jobs", "journal_key": "0" * 32}
    env = service_environment(tmp_path, data_dir=tmp_path, port=0, **given)
    ended = run_command([sys.executable, "-m", "sidecar.main"], env=env)
    (line,) = ended.stdout.splitlines()
    said = json.loads(line)
    assert (ended.returncode, said["event"], said["code"]) == (78, "fatal", "settings_invalid")
    assert said["message"] == "A service on Windows cannot keep its jobs in PostgreSQL."
    assert b"secret" not in ended.stdout + ended.stderr


async def test_transaction_whose_idle_connection_was_closed_is_repeated(
    shared: PostgresDatabase, postgres_cluster: Cluster
) -> None:
    pids: list[int] = []

    async def work(cursor: Any) -> list[int]:
        await cursor.execute("SELECT pg_backend_pid()")
        pids.append((await cursor.fetchone())[0])
        await cursor.execute("INSERT INTO numbers VALUES (1)")
        if len(pids) == 1:
            await cursor.execute("SET idle_in_transaction_session_timeout = 50")
            with postgres_cluster.connected() as look:
                there = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
                while look.execute(there, pids).fetchone() != (0,):
                    pass
        await cursor.execute("SELECT 1")
        return pids

    assert len({*await shared.transaction(work)}) == 2
    assert await numbers(shared) == [1]


@pytest.mark.posix("file descriptors by number")
async def test_database_is_opened_and_notifies_in_a_process_with_a_thousand_open_files(
    journal: str,
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 3000 if hard == resource.RLIM_INFINITY else min(3000, hard)
    if most < 1500:
        pytest.skip("THIS PROCESS MAY NOT OPEN A THOUSAND FILES: not tested")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    opened, heard = PostgresDatabase(journal, SIZE), list[str]()
    try:
        opened.listen("here", heard.append)
        await opened.open()
        await until(lambda: heard == [""])
        await opened.fetch("NOTIFY here, 'said'")
        await until(lambda: heard == ["", "said"])
    finally:
        await opened.close()
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.posix("file descriptors by number")
async def test_connection_is_severed_without_a_free_descriptor(journal: str) -> None:
    import resource

    connection = await connected(journal)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        sever(connection)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.fstat(connection.fileno())  # psycopg still has it, and closes it
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    await connection.close()
