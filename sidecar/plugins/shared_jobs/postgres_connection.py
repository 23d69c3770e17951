"""PostgreSQL connection pool. Imported only with a database."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from sidecar.concurrency import backoff_s
from sidecar.plugins.shared_jobs import postgres_settings

OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "application_name": "vibevoice-asr",
    "connect_timeout": postgres_settings.CONNECT_TIMEOUT_S,
    "keepalives_idle": postgres_settings.KEEPALIVE_IDLE_S,
    "keepalives_interval": postgres_settings.KEEPALIVE_INTERVAL_S,
    "keepalives_count": postgres_settings.KEEPALIVES,
    "tcp_user_timeout": round(postgres_settings.TCP_USER_TIMEOUT_S * 1000),
}
"""Options of every connection."""
# without jit: compiling a plan took longer (1.8 of 3.1 s for 20,000 refused jobs) than its rows
_LIMITS = f"""
    SET jit = off;
    SET default_transaction_isolation = 'read committed';
    SET tcp_user_timeout = {round(postgres_settings.SEND_TIMEOUT_S * 1000)};
    SET statement_timeout = {round(postgres_settings.STATEMENT_TIMEOUT_S * 1000)};
    SET lock_timeout = {round(postgres_settings.LOCK_TIMEOUT_S * 1000)};
    SET idle_in_transaction_session_timeout = {round(postgres_settings.CALL_TIMEOUT_S * 1000)}"""
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # the primary has become a standby
    # this machine was suspended within a transaction
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""Errors of a database that does not answer now."""
BUSY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
    PoolTimeout,
)
"""Those of them that are no outage: a lock, a statement or other calls took too long."""


class Outlook:
    """Last known state of a database; changes are logged."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.up = True
        self.closing = False
        """Whether the pool closes, so that nothing is retried."""

    def answered(self) -> None:
        """Record that the database answers."""
        if not self.up:
            self.up = True
            self._log.info("the database answers again")

    def failed(self, error: Exception) -> None:
        """Record that the database does not answer, or log that only this call had no answer."""
        if not self.up or self.closing:
            return
        self.up = isinstance(error, BUSY)
        self._log.warning(
            "the database had no time for a call: %s"
            if self.up
            else "the database does not answer: %s; calls are retried",
            postgres_settings.error_first_line(error),
        )


class Connection(AsyncConnection[tuple[Any, ...]]):
    """Connection of a pool, made by as many attempts as it takes."""

    @classmethod
    async def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, outlook: Outlook, **options: Any
    ) -> AsyncConnection[tuple[Any, ...]]:
        """Return a connection; retried while the database does not answer.

        Raises:
            psycopg.OperationalError: the pool is closing.
        """
        attempt = 0
        while True:
            try:
                return await connected(conninfo)
            except psycopg.Error as error:
                outlook.failed(error)
                await asyncio.sleep(
                    backoff_s(
                        attempt,
                        postgres_settings.MIN_RETRY_PAUSE_S,
                        postgres_settings.MAX_RETRY_PAUSE_S,
                    )
                )
                attempt += 1
                if outlook.closing:
                    raise


async def connected(address: str) -> AsyncConnection[tuple[Any, ...]]:
    """Return a connection with all time limits set.

    Raises:
        psycopg.Error: the database does not answer.
    """
    connection = await AsyncConnection.connect(address, **OPTIONS)
    try:
        with severed_after(connection, postgres_settings.CONNECT_TIMEOUT_S):
            await connection.execute(_LIMITS)
    except BaseException:
        await connection.close()
        raise
    return connection


def pool(address: str, size: int, outlook: Outlook) -> AsyncConnectionPool[Any]:
    """Return a pool that is not open yet."""
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # `Outlook` logs an outage once
    return AsyncConnectionPool(
        address,
        connection_class=Connection,
        kwargs={"outlook": outlook},
        min_size=1,
        max_size=size,
        max_idle=postgres_settings.IDLE_CONNECTION_S,
        num_workers=size,  # each connection attempt takes one
        name="database",
        open=False,
    )


@contextmanager
def severed_after(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Sever the connection if this context is not left in time.

    psycopg waits for the server to acknowledge a cancelled statement; a severed one ends at once.
    """
    timer = asyncio.get_running_loop().call_later(max(seconds, 0.0), sever, connection)
    try:
        yield
    finally:
        timer.cancel()


def sever(connection: AsyncConnection[Any]) -> None:
    """Shut down the socket, so that all that waits for the server fails. This needs no free
    descriptor."""
    with suppress(OSError, psycopg.Error):
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()  # psycopg closes it
