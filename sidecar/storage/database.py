"""Calls to the PostgreSQL that services share, from the event loop, each within `timing.CALL_S`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar import errors
from sidecar.storage.address import check_address, said
from sidecar.storage.timing import CALL_S, CONNECT_S, LISTEN_CHECK_S

if TYPE_CHECKING:
    from psycopg import AsyncConnection, AsyncCursor

T = TypeVar("T")
Tell = Callable[[str], None]
Row = tuple[Any, ...]
log = logging.getLogger(__name__)


class Database:
    """A pool of connections, and one connection that listens."""

    def __init__(self, address: str, size: int = 4) -> None:
        """``size``: at most so many connections in the pool.

        Raises:
            errors.SettingsInvalid: the address is none, or psycopg is missing.
        """
        check_address(address)
        from sidecar.storage import postgres_connection

        self._driver = postgres_connection
        self._address, self._size = address, size
        self._outlook = postgres_connection.Outlook(log)
        self._pool = postgres_connection.pool(address, size, self._outlook)
        self._calls: set[asyncio.Task[Any]] = set()
        self._used: set[AsyncConnection[Row]] = set()
        """Connections that somebody waits for."""
        self._tells: dict[str, list[Tell]] = {}
        self._heard: set[str] = set()
        """Channels that the listening connection hears."""
        self._listening: asyncio.Task[None] | None = None
        self._hears: AsyncConnection[Row] | None = None

    @property
    def up(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self._outlook.up

    async def open(self) -> None:
        """Begin to connect, once; this does not wait for the database."""
        await self._pool.open()
        self._start_listening()

    async def close(self) -> None:
        """End all calls and connections; at most an attempt to connect is waited for."""
        self._outlook.closing = True
        tasks = [*self._calls, *([self._listening] if self._listening is not None else [])]
        for connection in self._used:
            self._driver.sever(connection)
        if self._hears is not None:
            self._driver.sever(self._hears)
        elif self._listening is not None:  # it connects, or pauses
            self._listening.cancel()
        await self._pool.close(timeout=3 * CONNECT_S)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[Row]:
        """Return the rows of one autocommitted statement, which may be repeated.

        Raises:
            errors.JournalUnreachable: the database does not answer, or refuses.
        """

        async def work(connection: AsyncConnection[Row]) -> list[Row]:
            cursor = await connection.execute(sql, values or None)
            return [] if cursor.description is None else await cursor.fetchall()

        return await self._shielded(self._tried(work))

    async def call(self, function: str, *values: object) -> list[Row]:
        """Return the rows of a function of the schema `vibevoice`, which may be repeated.

        Raises:
            errors.JournalUnreachable: as `fetch`.
        """
        marks = ", ".join(["%s"] * len(values))
        return await self.fetch(f"SELECT * FROM vibevoice.{function}({marks})", values)  # noqa: S608

    async def transaction(self, work: Callable[[AsyncCursor[Row]], Awaitable[T]]) -> T:
        """Return what ``work`` returns, which is done in one transaction and may be repeated.

        Raises:
            errors.JournalUnreachable: the database does not answer, or refuses.
        """

        async def alone(connection: AsyncConnection[Row]) -> T:
            async with connection.transaction(), connection.cursor() as cursor:
                return await work(cursor)

        return await self._shielded(self._tried(alone))

    async def maintain(self, sql: str, within_s: float) -> None:
        """Execute a statement that runs in no transaction, over a connection of its own.

        Raises:
            errors.JournalUnreachable: the database does not answer, or not in time.
        """
        limit = f"{round(within_s * 1000)}"

        async def work(connection: AsyncConnection[Row]) -> None:
            await connection.execute(f"SET statement_timeout = {limit}")
            await connection.execute(f"SET lock_timeout = {limit}")
            await connection.execute(sql)

        async def own() -> None:
            async with await self._driver.connected(self._address) as connection:
                await self._within(connection, within_s, work)

        await self._shielded(own())

    def listen(self, channel: str, tell: Tell) -> None:
        """Have each message on a channel told, and "" after a connection: some may be missed."""
        self._tells.setdefault(channel, []).append(tell)
        self._heard.discard(channel)
        if not self._pool.closed:
            self._start_listening()

    def _start_listening(self) -> None:
        """Connect for messages where any are wanted."""
        if self._tells and self._listening is None:
            listening = self._listen()
            self._listening = asyncio.get_running_loop().create_task(listening)

    async def _shielded(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what ``call`` returns; it goes on if the caller is cancelled, for psycopg would
        have the caller wait until the server acknowledges that."""
        task = asyncio.get_running_loop().create_task(self._meant(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return await asyncio.shield(task)

    async def _tried(self, work: Callable[[AsyncConnection[Row]], Awaitable[T]]) -> T:
        """Do the work; try again at once while a connection was at fault: after a restart of the
        server all those of the pool are dead."""
        clock = asyncio.get_running_loop().time
        until = clock() + CALL_S
        for others in reversed(range(self._size + 1)):
            async with self._pool.connection(timeout=until - clock()) as connection:
                try:
                    return await self._within(connection, until - clock(), work)
                except self._driver.AWAY as error:
                    if clock() >= until or not others or not await _at_fault(connection, error):
                        raise
        raise AssertionError("the last try raises")

    async def _within(
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

    async def _meant(self, call: Awaitable[T]) -> T:
        """Return what ``call`` returns; its errors become those of the catalogue."""
        import psycopg

        try:
            result = await call
        except self._driver.AWAY as error:
            self._outlook.failed(error)
            raise errors.JournalUnreachable() from error
        except psycopg.Error as error:  # another version made the tables new, or a right is gone
            log.error("the database refuses what it is asked: %s", said(error))
            raise errors.JournalUnreachable("The database refuses what it is asked.") from None
        self._outlook.answered()
        return result

    async def _listen(self) -> None:
        """Listen for ever, over one connection after the other."""
        backoff = self._driver.Backoff()
        while not self._outlook.closing:
            try:
                async with await self._driver.connected(self._address) as self._hears:
                    self._heard.clear()
                    await self._hear(self._hears, backoff)
            except self._driver.AWAY as error:
                self._outlook.failed(error)
            except Exception:
                log.exception("a fault while the database was listened to")
            self._hears = None
            if not self._outlook.closing:
                await backoff.pause()

    async def _hear(self, connection: AsyncConnection[Row], backoff: Any) -> None:
        while True:
            await self._within(connection, CALL_S, self._check)
            backoff.reset()
            self._outlook.answered()
            async for message in connection.notifies(timeout=LISTEN_CHECK_S):
                self._tell(message.channel, message.payload)

    async def _check(self, connection: AsyncConnection[Row]) -> None:
        """Listen to channels that are new; the others are all told of, if this connection is."""
        from psycopg import sql

        await connection.execute("SELECT 1")
        for channel in self._tells.keys() - self._heard:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self._heard.add(channel)
            self._tell(channel, "")

    def _tell(self, channel: str, payload: str) -> None:
        for tell in self._tells.get(channel, ()):
            try:
                tell(payload)
            except Exception:
                log.exception("a fault while a message of the database was told")


async def _at_fault(connection: AsyncConnection[Row], error: Exception) -> bool:
    """Return whether another try may do better; a connection to a standby is closed."""
    from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction

    if isinstance(error, ReadOnlySqlTransaction):
        await connection.close()
    return connection.closed or isinstance(error, DeadlockDetected)
