"""Questions to the database from the event loop, one after the other in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sidecar import errors
from sidecar.database.link import Link, Unreachable, said
from sidecar.threads import Threads

T = TypeVar("T")
log = logging.getLogger(__name__)


class Asking:
    """Owns a connection, which is made when somebody asks."""

    def __init__(self, address: str, name: str) -> None:
        """``name``: of its thread."""
        self.link = Link(address)
        """For who asks before there is an event loop."""
        self._thread = Threads(name, 1)
        self._busy = threading.Lock()
        self._leaving = False

    async def ask(self, work: Callable[[Any], T]) -> T:
        """What the database says in one transaction; once more where it was only the connection, so
        nothing may change by being done twice.

        Raises:
            errors.JournalUnreachable: it does not answer, or refuses.
        """

        def asked() -> T:
            if self.link.open:
                with suppress(Unreachable), self.link.transaction() as cursor:
                    return work(cursor)
            with self.link.transaction() as cursor:
                return work(cursor)

        return await self._run(asked)

    async def order(self, statement: str) -> None:
        """Have the database do what it does in no transaction.

        Raises:
            errors.JournalUnreachable: it does not answer, or not in time; it may be done.
        """

        def ordered() -> None:
            with self.link.meaning():
                self.link.connection().execute(statement)

        await self._run(ordered)

    async def _run(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            try:
                with self._busy:
                    return work()
            finally:
                if self._leaving:
                    self.close()

        import psycopg

        try:
            return await self._thread.run(alone)
        except Unreachable as error:
            raise errors.JournalUnreachable() from error
        except psycopg.Error as error:  # another version made the tables new, or a right is gone
            log.error("the database refuses what it is asked: %s", said(error))
            raise errors.JournalUnreachable("The database refuses what it is asked.") from None

    def close(self) -> None:
        """Let go of the connection; what the database is asked just now has its answer first, in
        its own time: nobody else may touch the connection meanwhile."""
        self._leaving = True
        if self._busy.acquire(blocking=False):
            try:
                self.link.close()
                self._leaving = False
            finally:
                self._busy.release()
