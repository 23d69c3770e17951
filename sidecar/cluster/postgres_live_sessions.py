"""Live session store in PostgreSQL.

If a service's heartbeat stands still, the service has expired (`cluster.membership`). Its sessions
are then taken over by the services to which their clients reconnect. All data is encrypted. A
session without a service is deleted when its grace time is over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sidecar import errors
from sidecar.cluster.membership import HEARTBEAT_INTERVAL_S, Membership
from sidecar.concurrency import cancel_after
from sidecar.live.sessions.session_checkpoint import (
    ResumedSession,
    SaveOutcome,
    SessionName,
    SessionSave,
)
from sidecar.live.sessions.session_handover import TAKEOVER_TIMEOUT_S
from sidecar.storage.encryption import Cipher, DecryptionFailed
from sidecar.storage.postgres_database import SESSIONS_CHANNEL, PostgresDatabase

SWEEP_INTERVAL_S = 30.0
"""Interval of the search for expired sessions; a take or a new save searches too."""
_NOTIFY = f"NOTIFY {SESSIONS_CHANNEL}"
_INSERT = """INSERT INTO vibevoice.sessions AS there (owner, id, front, grace_s, pieces, session)
    VALUES (%(owner)s, %(id)s, %(front)s, %(grace_s)s, %(pieces)s, %(session)s)
    ON CONFLICT (owner, id) DO UPDATE
    SET session = excluded.session, pieces = excluded.pieces, until = NULL
    WHERE there.front = excluded.front"""
# If the database has lost a piece (a standby took over), the next one is of no use.
_UPDATE = """UPDATE vibevoice.sessions
    SET session = %(session)s, pieces = %(pieces)s, until = NULL
    WHERE owner = %(owner)s AND id = %(id)s AND front = %(front)s
    AND pieces BETWEEN %(place)s AND %(pieces)s"""
_TELL = """INSERT INTO vibevoice.stories VALUES (%(owner)s, %(id)s, %(place)s, %(story)s)
    ON CONFLICT (owner, id, place) DO UPDATE SET said = excluded.said"""


class PostgresSessionStore:
    """`live.sessions.session_checkpoint.SessionStore` in the database of all services."""

    def __init__(self, database: PostgresDatabase, seal: Cipher, member: Membership) -> None:
        """``member``: this service among the others."""
        self._database, self._seal, self._front = database, seal, member.id
        self._here: set[SessionName] = set()
        """Sessions that the database may have as this service's."""
        self._changed = asyncio.Event()
        self._tell: Callable[[SessionName, float], None] = lambda name, since_s: None
        self._wake = asyncio.Event()
        database.listen(SESSIONS_CHANNEL, lambda payload: self._on_notification())

    async def save(
        self, sessions: Sequence[SessionSave], over: Sequence[SessionName], grace_s: float
    ) -> Mapping[SessionName, SaveOutcome]:
        """As `SessionStore.save`."""
        sealed = {one: self._sealed(one) for one in sessions}

        async def put(cursor: Any) -> Mapping[SessionName, SaveOutcome]:
            for owner, number in over:
                await cursor.execute(
                    "DELETE FROM vibevoice.sessions WHERE owner = %s AND id = %s AND front = %s",
                    (owner, number, self._front),
                )
            return {
                one.name: await self._put(cursor, one, sealed[one], grace_s) for one in sessions
            }

        self._here.update(one.name for one in sessions)
        fates = await self._database.transaction(put)
        taken = {name for name, fate in fates.items() if fate is SaveOutcome.TAKEN}
        self._here -= taken | (set(over) - fates.keys())
        return fates

    async def leave(self, name: SessionName, for_s: float) -> bool:
        """As `SessionStore.leave`."""

        async def put(cursor: Any) -> bool:
            await cursor.execute(
                """UPDATE vibevoice.sessions SET front = NULL, asked = NULL, taker = %s,
                    until = clock_timestamp() + make_interval(secs => %s)
                    WHERE owner = %s AND id = %s AND (front = %s OR taker = %s)""",
                (left, for_s, *name, self._front, left),
            )
            was_ours = bool(cursor.rowcount)
            await cursor.execute(_NOTIFY)
            return was_ours

        left = f"left {secrets.token_hex(8)}"
        was_ours = await self._database.transaction(put)
        self._here.discard(name)
        return was_ours

    async def take(self, name: SessionName) -> ResumedSession | bool:
        """As `SessionStore.take`. The session becomes this service's for good with its
        first save. Until then it can be taken like one that was left: a client may
        disconnect, or an answer be lost."""

        async def reach(cursor: Any) -> tuple[bytes, list[bytes], bool] | bool:
            await _delete_expired(cursor)
            await cursor.execute(
                """SELECT session, front IS NOT NULL, front = %s,
                        until IS NULL AND EXISTS (
                            SELECT FROM vibevoice.services WHERE services.id = front)
                    FROM vibevoice.sessions WHERE owner = %s AND id = %s FOR UPDATE""",
                (self._front, *name),
            )
            row = await cursor.fetchone()
            if row is None:
                return False
            session, had, ours, lives = row
            if lives:
                if not ours:
                    await _request_session(cursor, name)
                return not ours
            await cursor.execute(
                """UPDATE vibevoice.sessions
                    SET front = %s, taker = NULL, asked = NULL,
                        until = clock_timestamp() + make_interval(secs => grace_s)
                    WHERE owner = %s AND id = %s""",
                (self._front, *name),
            )
            await cursor.execute(
                "SELECT said FROM vibevoice.stories WHERE owner = %s AND id = %s ORDER BY place",
                name,
            )
            return bytes(session), [bytes(said) for (said,) in await cursor.fetchall()], had

        self._changed.clear()
        reached = await self._database.transaction(reach)
        if isinstance(reached, bool):
            return reached
        session, story, orphaned = reached
        try:
            about = [_associated_data(name, place) for place in range(len(story))]
            said = [self._seal.opened(one, of) for one, of in zip(story, about, strict=True)]
            return ResumedSession(
                self._seal.opened(session, _associated_data(name)), said, orphaned
            )
        except DecryptionFailed:
            return False

    async def news(self, most_s: float) -> None:
        """As `SessionStore.news`."""
        await cancel_after(most_s, self._changed.wait())

    def on_asked(self, tell: Callable[[SessionName, float], None]) -> None:
        """As `SessionStore.on_asked`."""
        self._tell = tell

    async def run(self) -> None:
        """Watch for requests of other services for sessions of this one, and delete
        expired sessions, for ever."""
        swept, clock = 0.0, asyncio.get_running_loop().time
        while True:
            with suppress(errors.JournalUnreachable):
                if swept <= clock():
                    await self._database.transaction(_delete_expired)
                    swept = clock() + SWEEP_INTERVAL_S
                if self._here:
                    for name, since_s in await self._database.transaction(self._requested):
                        self._tell(name, since_s)
            self._wake.clear()
            await cancel_after(HEARTBEAT_INTERVAL_S, self._wake.wait())

    def _on_notification(self) -> None:
        self._changed.set()
        self._wake.set()

    async def _requested(self, cursor: Any) -> list[tuple[SessionName, float]]:
        """Return the sessions of this service that others request, and the
        seconds since each request."""
        await cursor.execute(
            """SELECT owner, id, extract(epoch FROM clock_timestamp() - asked)::float8
                FROM vibevoice.sessions
                WHERE front = %s AND asked > clock_timestamp() - make_interval(secs => %s)""",
            (self._front, TAKEOVER_TIMEOUT_S),
        )
        return [((owner, number), since_s) for owner, number, since_s in await cursor.fetchall()]

    def _sealed(self, one: SessionSave) -> tuple[bytes, bytes | None]:
        seal = self._seal.seal
        story = (
            None if one.story is None else seal(one.story, _associated_data(one.name, one.place))
        )
        return seal(one.session, _associated_data(one.name)), story

    async def _put(
        self, cursor: Any, one: SessionSave, sealed: tuple[bytes, bytes | None], grace_s: float
    ) -> SaveOutcome:
        session, story = sealed
        values = {
            "owner": one.name[0],
            "id": one.name[1],
            "front": self._front,
            "grace_s": grace_s,
            "session": session,
            "place": one.place,
            "pieces": one.place + (story is not None),
            "story": story,
        }
        if one.fresh:
            await _delete_expired(cursor)
            await cursor.execute(_INSERT, values)
        else:
            await cursor.execute(_UPDATE, values)
        if not cursor.rowcount:
            await cursor.execute(
                """SELECT FROM vibevoice.sessions
                    WHERE owner = %(owner)s AND id = %(id)s AND front IS DISTINCT FROM %(front)s""",
                values,
            )
            return SaveOutcome.TAKEN if cursor.rowcount else SaveOutcome.GONE
        if one.fresh:
            await cursor.execute(
                "DELETE FROM vibevoice.stories WHERE owner = %(owner)s AND id = %(id)s", values
            )
        if story is not None:
            await cursor.execute(_TELL, values)
        return SaveOutcome.SAVED


async def _request_session(cursor: Any, name: SessionName) -> None:
    """Request that the service of a session leaves it, once for all requests meanwhile."""
    await cursor.execute(
        """UPDATE vibevoice.sessions SET asked = clock_timestamp()
            WHERE owner = %s AND id = %s AND coalesce(
                asked < clock_timestamp() - make_interval(secs => %s), true)""",
        (*name, TAKEOVER_TIMEOUT_S),
    )
    if cursor.rowcount:
        await cursor.execute(_NOTIFY)


async def _delete_expired(cursor: Any) -> None:
    """Delete sessions whose clients did not return in time, but not those in use elsewhere."""
    await cursor.execute(
        """DELETE FROM vibevoice.sessions WHERE (owner, id) IN (
            SELECT owner, id FROM vibevoice.sessions WHERE until < clock_timestamp()
            FOR UPDATE SKIP LOCKED)"""
    )


def _associated_data(name: SessionName, place: int | None = None) -> str:
    owner, number = name
    return f"session {number} {owner}" if place is None else f"story {place} {number} {owner}"
