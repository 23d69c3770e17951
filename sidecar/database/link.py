"""A connection to the database, made anew where it was lost; and what its errors mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

CONNECT_S = 2
"""So long a server may take to answer at all."""
STATEMENT_MS = 10_000
"""So long a statement may take, and a service that hangs in a transaction may hold up others."""
PATIENCE = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3_000,
}
"""A line that is dead at one end only is found out within seconds."""
FIRST_S, LONGEST_S = 0.1, 2.0
"""Pauses between attempts to connect: the first, and what they grow to."""


class Unreachable(Exception):
    """The database does not answer, or not now; nobody knows whether what was asked was done."""


class Link:
    """One connection, for one thread at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """All that is done meanwhile, or nothing.

        Raises:
            Unreachable: the database does not answer.
        """
        with self._meaning(), self.connection().transaction(), self.connection().cursor() as cursor:
            yield cursor

    def connection(self) -> psycopg.Connection[Any]:
        """The connection, in autocommit mode; made if there is none.

        Raises:
            Unreachable: the database does not answer.
        """
        if self._connection is None:
            import psycopg

            with self._meaning():
                connection = psycopg.connect(
                    self._address,
                    autocommit=True,
                    application_name="vibevoice-asr",
                    **PATIENCE,  # type: ignore[arg-type]
                )
                connection.execute(f"SET statement_timeout = {STATEMENT_MS}")
                connection.execute(f"SET idle_in_transaction_session_timeout = {STATEMENT_MS}")
                self._connection = connection
        return self._connection

    @contextmanager
    def meaning(self) -> Iterator[None]:
        """What the driver raises meanwhile, as `Unreachable` where it is that.

        Raises:
            Unreachable: the database does not answer.
        """
        with self._meaning():
            yield

    def close(self) -> None:
        """Let go of it; the next who asks has another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            psycopg.errors.ReadOnlySqlTransaction,  # it was the first of two, and is the second now
            psycopg.errors.IdleInTransactionSessionTimeout,  # this machine slept in the middle
        ) as error:
            self.close()
            raise Unreachable(said(error)) from None


class Pauses:
    """How long to wait before each next attempt."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def next(self) -> float:
        """Seconds; twice as many each time."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_S)
        return pause_s

    def over(self) -> None:
        """It answered."""
        self._next_s = FIRST_S


def said(error: Exception) -> str:
    """The first line of what an error says; no address in it has a password."""
    return str(error).strip().partition("\n")[0]
