"""Live sessions that nobody has at the moment: a service that ended left them for another.

They lie there sealed, sound that is not settled with them, for as long as a client may stay away.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Any

from sidecar import errors
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.vault.sealing import SealBroken

SWEEP_S = 30.0
"""So often it is looked whose time is over; who takes or leaves one looks as well."""


class LeftSessions:
    """Those in the database of ``store``."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def leave(self, owner: str, number: str, session: bytes, for_s: float) -> None:
        """Leave one there for so many seconds.

        Raises:
            errors.JournalUnreachable: it may be there or not.
        """
        sealed = self._store.seal.seal(session, _about(owner, number))

        def put(cursor: Any) -> None:
            _sweep(cursor)
            cursor.execute(
                """INSERT INTO vibevoice.sessions (owner, id, until, session)
                    VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s), %s)
                    ON CONFLICT (owner, id) DO UPDATE
                    SET until = excluded.until, session = excluded.session, taker = NULL""",
                (owner, number, for_s, sealed),
            )

        await self._store.ask(put)

    async def take(self, owner: str, number: str) -> bytes | None:
        """The one that was left, which is there for nobody else then; None where there is none.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        taker = secrets.token_hex(8)

        def reach(cursor: Any) -> bytes | None:
            _sweep(cursor)
            cursor.execute(
                """UPDATE vibevoice.sessions SET taker = %(taker)s
                    WHERE owner = %(owner)s AND id = %(id)s AND coalesce(taker, %(taker)s)
                    = %(taker)s RETURNING session""",
                {"owner": owner, "id": number, "taker": taker},
            )
            row = cursor.fetchone()
            return None if row is None else bytes(row[0])

        sealed = await self._store.ask(reach)
        if sealed is None:
            return None
        with suppress(errors.JournalUnreachable):  # it goes by itself when its time is over
            await self._store.ask(lambda cursor: _drop(cursor, taker))
        try:
            return self._store.seal.opened(sealed, _about(owner, number))
        except SealBroken:
            return None

    async def forget_in_time(self) -> None:
        """Have nothing stay there whose time is over, now and from then on."""
        while True:
            with suppress(errors.JournalUnreachable):
                await self._store.ask(_sweep)
            await asyncio.sleep(SWEEP_S)


def _sweep(cursor: Any) -> None:
    cursor.execute("DELETE FROM vibevoice.sessions WHERE until < clock_timestamp()")


def _drop(cursor: Any, taker: str) -> None:
    cursor.execute("DELETE FROM vibevoice.sessions WHERE taker = %s", (taker,))


def _about(owner: str, number: str) -> str:
    return f"session {number} {owner}"
