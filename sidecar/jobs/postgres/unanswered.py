"""Jobs whose clients timed out, in the database, where the same request finds its own again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sidecar import errors
from sidecar.database.database import Database
from sidecar.vault.sealing import Seal, SealBroken


class UnansweredRows:
    """`jobs.unanswered.Requests` in a database. What was sent is told by a digest, which is
    sealed."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database, self._seal = database, seal

    async def leave(self, owner: str, job_id: str, digest: str, for_s: float) -> None:
        """Leave a job there for so many seconds.

        Raises:
            errors.JournalUnreachable: it may be there or not.
        """
        sealed = self._seal.seal(digest.encode(), _about(owner, job_id))
        await self._database.fetch(
            """INSERT INTO vibevoice.unanswered (job, owner, until, digest)
                VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s), %s)
                ON CONFLICT (job) DO NOTHING""",
            (job_id, owner, for_s, sealed),
        )

    async def take(self, owner: str, digest: str) -> str | None:
        """The job of the same request, which nobody else has then; None where there is none.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        taker, seal = secrets.token_hex(8), self._seal
        job_id = await self._database.transaction(
            lambda cursor: _taken(cursor, seal, owner, digest, taker)
        )
        if job_id is not None:
            with suppress(errors.JournalUnreachable):  # it goes by itself when its time is over
                drop = "DELETE FROM vibevoice.unanswered WHERE taker = %s"
                await self._database.fetch(drop, (taker,))
        return job_id

    async def overdue(self) -> Sequence[str]:
        """The jobs for which nobody came in time; told once.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        rows = await self._database.fetch(
            """DELETE FROM vibevoice.unanswered WHERE until < clock_timestamp()
                RETURNING job, taker"""
        )
        return [job_id for job_id, taker in rows if taker is None]


async def _taken(cursor: Any, seal: Seal, owner: str, digest: str, taker: str) -> str | None:
    await cursor.execute(
        """SELECT job, digest FROM vibevoice.unanswered
            WHERE owner = %(owner)s AND coalesce(taker, %(taker)s) = %(taker)s
            AND until > clock_timestamp() ORDER BY until FOR UPDATE""",
        {"owner": owner, "taker": taker},
    )
    for job_id, sealed in await cursor.fetchall():
        with suppress(SealBroken):
            if seal.opened(sealed, _about(owner, job_id)) == digest.encode():
                await cursor.execute(
                    "UPDATE vibevoice.unanswered SET taker = %s WHERE job = %s", (taker, job_id)
                )
                return str(job_id)
    return None


def _about(owner: str, job_id: str) -> str:
    return f"unanswered {job_id} {owner}"
