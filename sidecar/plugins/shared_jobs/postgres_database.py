"""PostgreSQL calls with time limits and retries, and migrations.

Every statement and migration names the schema `vibevoice`: the database may contain other tables.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.errors import SettingsInvalid
from sidecar.plugins.shared_jobs.postgres_checks import check_rights, check_server
from sidecar.plugins.shared_jobs.postgres_settings import (
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    LISTEN_CHECK_INTERVAL_S,
    MAX_RETRY_PAUSE_S,
    MIN_LINE_BYTES_PER_S,
    MIN_RETRY_PAUSE_S,
    SHORT_CALL_BYTES,
    STATEMENT_TIMEOUT_S,
    check_address,
    error_first_line,
)
from sidecar.storage import encrypted_sqlite
from sidecar.storage.encryption import Cipher

if TYPE_CHECKING:
    import psycopg
    from psycopg import AsyncConnection, AsyncCursor


T = TypeVar("T")
NotificationCallback = Callable[[str], None]
Row = tuple[Any, ...]
START_TIMEOUT_S = 30.0
"""Time that a database may take to start beside a service."""
MIGRATION_STEP_TIMEOUT_S = 60.0
"""Limit for a statement of a migration: a table may be large, and another service may migrate."""
MIGRATION_LOCK_ID = 0x766962656A6F6273
JOURNAL_LABELS = encrypted_sqlite.DatabaseLabels("kept jobs", "VIBEVOICE_JOURNAL", "database")
# An error in the code will not be gone soon, and each attempt logs a traceback.
FAULT_RETRY_PAUSE_S = 8.0
"""Pause after an error that is not an outage."""
log = logging.getLogger(__name__)


class PostgresDatabase:
    """Pool of connections, and one connection that listens for notifications."""

    def __init__(self, address: str, size: int = 4) -> None:
        """``size``: maximum of connections in the pool.

        Raises:
            errors.SettingsInvalid: the address is invalid, or psycopg is missing.
        """
        check_address(address)
        from sidecar.plugins.shared_jobs import postgres_connection

        self._driver = postgres_connection
        self._address, self._size = address, size
        self._outlook = postgres_connection.Outlook(log)
        self._pool = postgres_connection.pool(address, size, self._outlook)
        self._calls: set[asyncio.Task[Any]] = set()
        self._used: set[AsyncConnection[Row]] = set()
        self._callbacks: dict[str, NotificationCallback] = {}
        self._listened: set[str] = set()
        self._listening: asyncio.Task[None] | None = None
        self._listening_connection: AsyncConnection[Row] | None = None
        self.call_timeout_s, self.listen_check_s = CALL_TIMEOUT_S, LISTEN_CHECK_INTERVAL_S
        """Time limit of a call, and the interval in which the listening connection is checked."""
        self.retried = 0
        """Calls that were repeated over another connection, since the first one broke."""
        self._misses = 0
        """Consecutive failed attempts to listen."""

    @property
    def up(self) -> bool:
        """Return whether the database answers, as far as the last call showed it."""
        return self._outlook.up

    async def open(self) -> None:
        """Start to connect, once; this does not wait for the database."""
        await self._pool.open()
        self._start_listening()

    async def close(self) -> None:
        """End all calls and connections; at most an attempt to connect is waited for."""
        self._outlook.closing = True
        tasks = [*self._calls, *([self._listening] if self._listening is not None else [])]
        for connection in self._used:
            self._driver.sever(connection)
        if self._listening_connection is not None:
            self._driver.sever(self._listening_connection)
        elif self._listening is not None:  # it is connecting or pausing
            self._listening.cancel()
        await self._pool.close(timeout=3 * CONNECT_TIMEOUT_S)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(
        self,
        sql: str,
        values: Sequence[object] | Mapping[str, object] = (),
        *,
        binary: bool = False,
        row_bytes: int = 0,
    ) -> list[Row]:
        """Return the rows of one autocommitted statement, which may be repeated. ``binary``: the
        server sends bytes as such, and not as twice as many hexadecimal digits. ``row_bytes``: of
        the rows, if they may be many.

        Raises:
            errors.JournalUnreachable: the database does not answer, or rejects the statement.
        """
        moved_bytes = row_bytes + _bytes_in(values)
        transfer_s = moved_bytes / MIN_LINE_BYTES_PER_S if moved_bytes > SHORT_CALL_BYTES else 0.0

        async def work(connection: AsyncConnection[Row]) -> list[Row]:
            cursor = await connection.execute(sql, values or None, binary=binary)
            return [] if cursor.description is None else await cursor.fetchall()

        async def long_work(connection: AsyncConnection[Row]) -> list[Row]:
            limit_ms = round((STATEMENT_TIMEOUT_S + transfer_s) * 1000)
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = {limit_ms}")
                # which begins once the server has sent the rows, not once they have arrived
                idle = f"SET LOCAL idle_in_transaction_session_timeout = {limit_ms}"
                await connection.execute(idle)
                return await work(connection)

        return await self._shielded(
            self._with_retries(long_work if transfer_s else work, transfer_s)
        )

    async def fetch_events(self, sql: str, values: Sequence[object]) -> list[Row]:
        """Return the rows of a query with a column ``change``, however many bytes these are.

        Raises:
            errors.JournalUnreachable: as `fetch`.
        """
        size = f"SELECT coalesce(sum(octet_length(change)), 0)::bigint FROM ({sql}) sized"  # noqa: S608
        ((row_bytes,),) = await self.fetch(size, values)
        return await self.fetch(sql, values, binary=True, row_bytes=row_bytes)

    async def call(self, function: str, *values: object) -> list[Row]:
        """Return the rows of a function of the schema `vibevoice`, which may be repeated.

        Raises:
            errors.JournalUnreachable: as `fetch`.
        """
        marks = ", ".join("%b" if _has_bytes(one) else "%s" for one in values)
        return await self.fetch(f"SELECT * FROM vibevoice.{function}({marks})", values)  # noqa: S608

    async def transaction(self, work: Callable[[AsyncCursor[Row]], Awaitable[T]]) -> T:
        """Return the result of ``work``, which runs in one transaction and may be repeated.

        Raises:
            errors.JournalUnreachable: the database does not answer, or rejects a statement.
        """

        async def alone(connection: AsyncConnection[Row]) -> T:
            async with connection.transaction(), connection.cursor() as cursor:
                return await work(cursor)

        return await self._shielded(self._with_retries(alone))

    def listen(self, channel: str, tell: NotificationCallback) -> None:
        """Call ``tell``, and no other, with each notification of a channel, and with "" after a
        connection, as some may have been missed."""
        self._callbacks[channel] = tell
        self._listened.discard(channel)
        if not self._pool.closed:
            self._start_listening()

    def _start_listening(self) -> None:
        """Start to listen, if there is any callback."""
        if self._callbacks and self._listening is None:
            listening = self._listen()
            self._listening = asyncio.get_running_loop().create_task(listening)

    async def _shielded(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``call``, which goes on if the caller is cancelled: psycopg would
        make the caller wait until the server acknowledges the cancel."""
        task = asyncio.get_running_loop().create_task(self._translating_errors(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return await asyncio.shield(task)

    async def _with_retries(
        self, work: Callable[[AsyncConnection[Row]], Awaitable[T]], transfer_s: float = 0.0
    ) -> T:
        """Run the work, and retry it at once while a connection was at fault: after a restart of
        the server all connections of the pool are dead. ``transfer_s``: on the slowest line."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.call_timeout_s + transfer_s
        for others in reversed(range(self._size + 1)):
            async with self._pool.connection(timeout=until - clock()) as connection:
                try:
                    return await self._with_timeout(connection, until - clock(), work)
                except self._driver.AWAY as error:
                    if clock() >= until or not others or not await _is_retryable(connection, error):
                        raise
                    self.retried += 1
        raise AssertionError("the last try raises")

    async def _with_timeout(
        self,
        connection: AsyncConnection[Row],
        seconds: float,
        work: Callable[[AsyncConnection[Row]], Awaitable[T]],
    ) -> T:
        self._used.add(connection)
        try:
            with self._driver.severed_after(connection, seconds):
                return await work(connection)
        finally:
            self._used.discard(connection)

    async def _translating_errors(self, call: Awaitable[T]) -> T:
        """Return the result of ``call``; its errors become those of the catalogue."""
        import psycopg

        try:
            result = await call
        except self._driver.AWAY as error:
            self._outlook.failed(error)
            raise errors.JournalUnreachable() from error
        # a later version migrated the tables, or a right was revoked
        except psycopg.Error as error:
            log.error(
                "the database rejects a call: %s; check its migrations and the user's rights "
                "(docs/journal.md)",
                error_first_line(error),
            )
            raise errors.JournalUnreachable("The database rejects the call.") from None
        self._outlook.answered()
        return result

    async def _listen(self) -> None:
        """Listen for ever, over one connection after another."""
        while not self._outlook.closing:
            try:
                async with await self._driver.connected(
                    self._address
                ) as self._listening_connection:
                    self._listened.clear()
                    await self._receive(self._listening_connection)
            except self._driver.AWAY as error:
                self._outlook.failed(error)
            except Exception:
                log.exception("internal error while database notifications were received")
            self._listening_connection = None
            if not self._outlook.closing:
                await asyncio.sleep(backoff_s(self._misses, MIN_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S))
                self._misses += 1

    async def _receive(self, connection: AsyncConnection[Row]) -> None:
        while True:
            await self._with_timeout(connection, self.call_timeout_s, self._check)
            self._misses = 0
            self._outlook.answered()
            async for message in connection.notifies(timeout=self.listen_check_s):
                self._notify(message.channel, message.payload)

    async def _check(self, connection: AsyncConnection[Row]) -> None:
        """Check the connection, and listen to new channels."""
        from psycopg import sql

        await connection.execute("SELECT 1")
        for channel in self._callbacks.keys() - self._listened:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self._listened.add(channel)
            self._notify(channel, "")

    def _notify(self, channel: str, payload: str) -> None:
        try:
            self._callbacks[channel](payload)
        except Exception:
            log.exception("internal error while a database notification was handled")


def _has_bytes(value: object) -> bool:
    """Return whether it is a list with bytes: as text, an array has two digits for each."""
    return isinstance(value, list) and any(isinstance(one, bytes) for one in value)


def _bytes_in(values: Sequence[object] | Mapping[str, object]) -> int:
    given = values.values() if isinstance(values, Mapping) else values
    lists = (one if isinstance(one, list) else [one] for one in given)
    return sum(len(one) for each in lists for one in each if isinstance(one, bytes))


async def _is_retryable(connection: AsyncConnection[Row], error: Exception) -> bool:
    """Return whether a retry may succeed; a connection to a standby is closed."""
    from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction

    if isinstance(error, ReadOnlySqlTransaction):
        await connection.close()
    return connection.closed or isinstance(error, DeadlockDetected)


def migrations() -> Sequence[str]:
    """Return the migrations from each version of the tables to the next.

    A released file never changes; the next has the next number.
    """
    folder = files("sidecar.plugins.shared_jobs") / "migrations"
    steps = {one.name: one for one in folder.iterdir() if one.name.endswith(".sql")}
    return [steps[name].read_text("utf-8") for name in sorted(steps)]


def migrate_postgres(
    address: str, secret: str, what: str = JOURNAL_LABELS.what, patience_s: float = START_TIMEOUT_S
) -> Cipher:
    """Migrate the tables, one service at a time; return the cipher of ``what``.

    This blocks on the database, at most ``patience_s`` until it answers.

    Raises:
        errors.SettingsInvalid: the address is invalid, or the database does not answer, does not
            suit, is of release 0.2.0 or a later version, or has another key.
    """
    check_address(address)
    import psycopg

    try:
        with _connected(address, patience_s) as connection, _connected(address) as other:
            check_server(connection, other)
            with connection.transaction():
                cursor = connection.cursor()
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK_ID,))
                _run_migrations(cursor)
                check_rights(cursor)
                return _cipher_of(cursor, secret, what)
    except psycopg.OperationalError as error:
        raise _is_silent_error(error) from None
    except psycopg.Error as error:
        raise _unusable_error(error) from None


def known_cipher(address: str, secret: str) -> Cipher | None:
    """Return the cipher of a database that services have used; None if none has.

    Raises:
        errors.SettingsInvalid: the database cannot be used, or has another key.
    """
    import psycopg

    try:
        with _connected(address) as connection:
            cursor = connection.execute("SELECT to_regclass('vibevoice.key') IS NOT NULL")
            if cursor.fetchone() == (False,):
                return None
            known = cursor.execute("SELECT FROM vibevoice.key").rowcount
            return _cipher_of(cursor, secret, JOURNAL_LABELS.what) if known else None
    except psycopg.Error as error:
        raise _unusable_error(error) from None


def call_once(address: str, task: str, call: Callable[[], None]) -> None:
    """Make a call, unless a service that shares the database has made that of this ``task``
    before. Other services wait meanwhile; an error leaves the call to the next.

    Raises:
        errors.SettingsInvalid: the database does not answer.
    """
    with _connected(address, START_TIMEOUT_S) as connection, connection.transaction():
        new = connection.execute(
            "INSERT INTO vibevoice.sweeps (task) VALUES (%s) ON CONFLICT DO NOTHING", (task,)
        )
        if new.rowcount:
            call()


def describe_database(address: str) -> str:
    """Return the version, host and name of the database.

    Raises:
        errors.SettingsInvalid: no server answers, or it does not suit, or the address is invalid.
    """
    check_address(address)
    with _connected(address) as connection, _connected(address) as other:
        check_server(connection, other)
        info = connection.info
        version = f"{info.server_version // 10000}.{info.server_version % 10000}"
        return f"PostgreSQL {version} at {info.host}, database {info.dbname}"


@contextmanager
def _connected(address: str, patience_s: float = 0.0) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection, made by as many attempts as fit into ``patience_s``.

    Raises:
        errors.SettingsInvalid: the database does not answer.
    """
    import psycopg

    from sidecar.plugins.shared_jobs.postgres_connection import OPTIONS

    until = time.monotonic() + patience_s
    while True:
        try:
            connection = psycopg.connect(address, **OPTIONS)
            break
        except psycopg.Error as error:
            if time.monotonic() >= until:
                raise _is_silent_error(error) from None
            time.sleep(MAX_RETRY_PAUSE_S)
    with connection:
        limit = f"{round(MIGRATION_STEP_TIMEOUT_S * 1000)}"
        connection.execute("SET default_transaction_isolation = 'read committed'")
        connection.execute(f"SET statement_timeout = {limit}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {limit}")
        yield connection


def _is_silent_error(error: Exception) -> SettingsInvalid:
    return SettingsInvalid(
        f"The database for jobs does not answer: {error_first_line(error)}.",
        hint="Start it, or set VIBEVOICE_JOURNAL to one that can be reached.",
    )


def _unusable_error(error: Exception) -> SettingsInvalid:
    return SettingsInvalid(
        f"The database for jobs cannot be used: {error_first_line(error)}.",
        hint="Let the role in VIBEVOICE_JOURNAL create the schema 'vibevoice', or own it.",
    )


def _run_migrations(cursor: Any) -> None:
    cursor.execute("SELECT to_regclass('vibevoice.version') IS NOT NULL")
    (there,) = cursor.fetchone()
    if not there:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS vibevoice")
        cursor.execute("CREATE TABLE vibevoice.version (version integer NOT NULL)")
        cursor.execute("INSERT INTO vibevoice.version VALUES (0)")
    cursor.execute("SELECT version FROM vibevoice.version")
    (version,) = cursor.fetchone()
    cursor.execute("SELECT to_regclass('vibevoice.passed') IS NULL")
    (earlier,) = cursor.fetchone()
    if version and earlier:  # release 0.2.0 had other tables, and more migrations
        raise SettingsInvalid(
            "The shared jobs were written by release 0.2.0, which this one does not read.",
            hint="Save the transcripts with that release. Then drop the schema 'vibevoice', or set "
            "VIBEVOICE_JOURNAL to another database (docs/upgrading.md).",
        )
    steps = migrations()
    encrypted_sqlite.check_schema_version(version, steps, JOURNAL_LABELS)
    for step in steps[version:]:
        cursor.execute(step)
    if version < len(steps):
        cursor.execute("UPDATE vibevoice.version SET version = %s", (len(steps),))


def _cipher_of(cursor: Any, secret: str, what: str) -> Cipher:
    cursor.execute("SELECT salt, check_value FROM vibevoice.key")
    row = cursor.fetchone()
    if row is None:
        cipher, salt, check_value = encrypted_sqlite.create_cipher(secret, JOURNAL_LABELS)
        cursor.execute("INSERT INTO vibevoice.key VALUES (%s, %s)", (salt, check_value))
    else:
        salt = row[0]
        cipher = encrypted_sqlite.verify_cipher(salt, row[1], secret, JOURNAL_LABELS)
    return cipher if what == JOURNAL_LABELS.what else Cipher(secret, salt, what)


async def retry_while_unavailable(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of ``call``, which is retried while the database does not answer."""
    attempt = 0
    while True:
        try:
            return await call()
        except errors.JournalUnreachable:
            await asyncio.sleep(backoff_s(attempt, MIN_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S))
            attempt += 1
        except Exception:
            log.exception("internal error in a database call, which is retried")
            await asyncio.sleep(FAULT_RETRY_PAUSE_S)


async def run_periodically(call: Callable[[], Awaitable[object]], pause_s: float) -> None:
    """Call for ever, with pauses of ``pause_s``; an error does not end the loop."""
    while True:
        try:
            await call()
        except errors.JournalUnreachable:
            log.debug("the database does not answer")
        except Exception:
            log.exception("internal error in a periodic database call; it goes on")
        await asyncio.sleep(pause_s)
