"""Enrolled speakers in PostgreSQL.

So a change in one service is a change for all at once, and no service has a deleted speaker in
memory.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sidecar.plugins.shared_jobs.postgres_database import PostgresDatabase, migrate_postgres
from sidecar.storage import speaker_store
from sidecar.storage.encryption import DecryptionFailed

T = TypeVar("T")
log = logging.getLogger(__name__)

KEY_PURPOSE = "people"
"""Purpose that the key is derived for, so that it differs from that of jobs."""
POOL_CONNECTIONS = 2
"""More than one, so that a call that waits for a lock does not block reads."""
_ADVISORY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class PostgresSpeakerStore:
    """`SpeakerStore` in PostgreSQL. It connects at the first call."""

    def __init__(self, address: str, secret: str) -> None:
        """Create the table if it is missing; this blocks on the database.

        Raises:
            errors.SettingsInvalid: the address, the database or the key cannot be used.
        """
        self._database = PostgresDatabase(address, POOL_CONNECTIONS)
        self._cipher = migrate_postgres(address, secret, KEY_PURPOSE)

    async def of(self, owner: str) -> Sequence[speaker_store.EnrolledSpeaker]:
        """As `SpeakerStore.of`."""
        return await self._ask(lambda cursor: self._read(cursor, owner))

    async def keep(
        self, owner: str, decide: speaker_store.SpeakerUpdate
    ) -> speaker_store.EnrolledSpeaker:
        """As `SpeakerStore.keep`."""

        async def update(cursor: Any) -> speaker_store.EnrolledSpeaker:
            await cursor.execute(_ADVISORY_LOCK, (f"people {owner}",))
            before = await self._read(cursor, owner)
            speaker = decide(before)
            if speaker not in before:
                await self._write(cursor, speaker)
            return speaker

        return await self._ask(update)

    async def delete(self, owner: str, speaker_id: str) -> None:
        """As `SpeakerStore.delete`. The row stays in the database's files, encrypted, until
        PostgreSQL vacuums the table."""
        await self._delete(
            "DELETE FROM vibevoice.people WHERE owner = %s AND id = %s", owner, speaker_id
        )

    async def delete_all(self, owner: str) -> int:
        """As `SpeakerStore.delete_all`, also of those that cannot be read; rows as in `delete`."""
        return await self._delete("DELETE FROM vibevoice.people WHERE owner = %s", owner)

    async def _delete(self, statement: str, owner: str, *more: str) -> int:
        async def drop(cursor: Any) -> int:
            await cursor.execute(_ADVISORY_LOCK, (f"people {owner}",))
            await cursor.execute(statement, (owner, *more))
            return int(cursor.rowcount)

        return await self._ask(drop)

    async def close(self) -> None:
        """Close the connections to the database."""
        await self._database.close()

    async def _ask(self, work: Callable[[Any], Awaitable[T]]) -> T:
        await self._database.open()
        return await self._database.transaction(work)

    async def _read(self, cursor: Any, owner: str) -> list[speaker_store.EnrolledSpeaker]:
        await cursor.execute(
            """SELECT id, created, sealed FROM vibevoice.people
                WHERE owner = %s ORDER BY created, id""",
            (owner,),
            binary=True,
        )
        speakers = []
        for id_, created, sealed in await cursor.fetchall():
            try:
                fields = json.loads(self._cipher.decrypt(sealed, _encryption_context(id_, owner)))
                samples = tuple(map(speaker_store.SpeakerSample.of, fields["samples"]))
                speakers.append(
                    speaker_store.EnrolledSpeaker(id_, owner, fields["name"], created, samples)
                )
            except (DecryptionFailed, ValueError, KeyError, TypeError) as error:
                log.error(
                    "an enrolled speaker in the database cannot be decoded: %s; check that all "
                    "services have the same journal_key and release",
                    type(error).__name__,
                )
        return speakers

    async def _write(self, cursor: Any, speaker: speaker_store.EnrolledSpeaker) -> None:
        fields = {"name": speaker.name, "samples": [asdict(one) for one in speaker.samples]}
        sealed = self._cipher.encrypt(
            json.dumps(fields).encode(), _encryption_context(speaker.id, speaker.owner)
        )
        await cursor.execute(
            """INSERT INTO vibevoice.people VALUES (%s, %s, %s, %s)
                ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed""",
            (speaker.id, speaker.owner, speaker.created, sealed),
        )


def _encryption_context(person: str, owner: str) -> str:
    return f"person {person} {owner}"
