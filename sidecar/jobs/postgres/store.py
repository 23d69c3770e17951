"""Jobs that several services share, in PostgreSQL: what is in memory is what the database has.

What happens to a job here is told here at once and written down behind it; the database decides
whether it counts. Where it does not, because another service has the job or ended it, what is in
memory is taken back for what the database has. Numbers of events leave room between two services'
so that nobody takes the new for the old.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sidecar import clock, errors
from sidecar.database.address import check_address
from sidecar.database.asking import Asking
from sidecar.database.link import Link
from sidecar.database.schema import migrate
from sidecar.jobs.claims import LEASE_S
from sidecar.jobs.events import (
    Begun,
    Cancelled,
    Change,
    Edited,
    Failure,
    JobEvent,
    PutBack,
    Reported,
)
from sidecar.jobs.feed import BUFFER
from sidecar.jobs.postgres import claiming, refusing
from sidecar.jobs.postgres.batch import Add, Forget, Outcome, Part, Release, Tell
from sidecar.jobs.postgres.claiming import TOLD, Grasp
from sidecar.jobs.postgres.deciding import Said
from sidecar.jobs.postgres.hearing import Hearing
from sidecar.jobs.postgres.mirror import Crossing, Mirror
from sidecar.jobs.postgres.rows import Found, Rows
from sidecar.jobs.postgres.writing import Writer
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.shelf import Shelf
from sidecar.jobs.storage.folder import Folder
from sidecar.jobs.store import Entry
from sidecar.speech.transcript import Checkpoint

T = TypeVar("T")

CATCH_UP_S = LEASE_S
"""So long a listing waits for what is on its way; a line that is dead says nothing for longer."""
ROUNDS = 4
"""So often the next of those that wait are looked at, where none of them will do."""


class PostgresStore(Mirror):
    """A `JobStore`, and its `Claims`. Who opens it calls `open` when there is an event loop; until
    then it hears nothing of others."""

    def __init__(
        self,
        address: str,
        secret: str,
        uploads: Path,
        now: clock.Clock = clock.wall,
        buffer: int = BUFFER,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        """Open it, with all jobs that there are; this waits for the database. ``shelf``: who
        has the recordings of jobs that have ended; without one they are in the folder ``uploads``.

        Raises:
            errors.SettingsInvalid: the address, the database or the key cannot be used.
        """
        super().__init__(now, buffer)
        check_address(address)
        self._asks = Asking(address, "journal-asks")
        self.seal = migrate(address, secret)
        self._rows = Rows(self.seal)
        self._shelf = shelf or Shelf(Folder(uploads))
        self._address = address
        self._here: set[str] = set()
        """Jobs that were added by this service."""
        self._had: dict[str, str] = {}
        """Of the jobs that this service has, by which claim."""
        self._fenced: set[str] = set()
        """Jobs that it had, and has no more without knowing from a beat."""
        self._news = asyncio.Event()
        self._saying = ""
        """The job that is changed right now, and nothing was said of that yet."""
        self._said: list[Part] = []
        """What was said since the loop had its last turn: written in one piece."""
        self._crossing = Crossing()
        self._reached: dict[str, asyncio.Future[None]] = {}
        """Who waits until all is heard that was there, by what comes behind it."""
        self._hearing: Hearing | None = None
        self._others: dict[str, Callable[[], None]] = {}
        """Who hears of what else than jobs, by channel."""
        self._closed = False
        with self._asks.link.transaction() as cursor:
            for found in self._rows.all(cursor):
                self._take(found, tell=False)
        self._writer = Writer(Link(address), self._rows, self._refused)

    async def open(self) -> None:
        """Hear of what other services do from here on."""
        if not self._crossing.runs:
            self._crossing.open()
            self._hearing = Hearing(
                Link(self._address),
                self._rows,
                self._known,
                self._at,
                self._heard_others,
                self._heard_own,
                self._others,
            )

    def hear(self, channel: str, tell: Callable[[], None]) -> None:
        """Have somebody told, on the loop, of each word on a channel, and after a connection that
        was lost. Before `open`."""
        self._others[channel] = partial(self._crossing.do, tell)

    def mine(self, job_id: str) -> bool:
        """Whether a job was added by this service."""
        return job_id in self._here

    async def seek(self, job_id: str) -> None:
        """Know of a job what the database has: another service may have taken it in, or told a
        client of its end, a moment ago. While the database is away what is known is known."""
        await self.open()
        entry = self._entries.get(job_id)
        if entry is not None and not (self._hears and self._written(job_id, entry)):
            return
        wanted = {job_id: entry.record.seq if entry is not None else None}
        with suppress(errors.JournalUnreachable):
            for found in await self.ask(lambda cursor: self._rows.find(cursor, wanted)):
                self._take(found)

    async def catch_up(self) -> None:
        """Know of all that services had in the database when this was asked. While it is away, or
        does not tell, what is known is known."""
        await self.open()
        if self._hearing is None or not self._hears:
            return
        own, word = self._hearing.own, secrets.token_hex(8)
        reached = self._reached[word] = asyncio.get_running_loop().create_future()
        try:
            with suppress(errors.JournalUnreachable, TimeoutError):
                async with asyncio.timeout(CATCH_UP_S):
                    await self.ask(
                        lambda cursor: cursor.execute("SELECT pg_notify(%s, %s)", (own, word))
                    )
                    await reached
        finally:
            del self._reached[word]

    def add(self, record: JobRecord) -> None:
        """Keep a job that was submitted."""
        self._saying = record.id
        super().add(record)
        if record.durable:
            self._here.add(record.id)
            self._put(Add(record.id, record))
        self._saying = ""

    def append(self, job_id: str, change: Change) -> JobRecord:
        """Something happened to a job: keep it, then tell of it. What a service says of a job that
        another has by now changes nothing, unless it ends or edits it."""
        entry = self._entry(job_id)
        if not isinstance(change, Cancelled | Edited):
            if job_id in self._fenced:
                return entry.record
        elif entry.record.state is JobState.RUNNING and job_id not in self._had:
            entry.from_seq = entry.record.seq + TOLD  # whoever has it may have said more by now
        return super().append(job_id, change)

    def forget(self, job_id: str) -> None:
        """Keep a job no longer: nothing of it is left, in the database neither."""
        entry = self._entries.get(job_id)
        self._drop(job_id)
        if entry is not None and entry.record.durable:
            self._put(Forget(job_id, done=partial(self._shelf.drop, entry.record)))

    async def written(self, job_id: str | None = None) -> None:
        """Wait until it is in the database, or was refused there. Of a job that this service works
        on that is waited for however long the database is away.

        Raises:
            errors.JournalUnreachable: the database does not answer.
            errors.TranscriptChanged: another service edited the transcript first.
            KeyTaken: another service was first to add a job with that key.
        """
        await self.open()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def told(error: Exception | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, error)

        patient = job_id in self._had
        self._writer.when_written(job_id, told, patient=patient, parts=self._said)
        self._said = []
        await done

    def close(self) -> None:
        """Write what is left, and let go of the database."""
        if not self._closed:
            self._closed = True
            self._flush()
            self._writer.close()
            if self._hearing is not None:
                self._hearing.close()
            self._asks.close()
        super().close()

    async def ask(self, work: Callable[[Any], T]) -> T:
        """What the database says in one transaction; once more where it was only the connection, so
        nothing may change by being done twice.

        Raises:
            errors.JournalUnreachable: it does not answer.
        """
        return await self._asks.ask(work)

    async def claim(self, takes: Callable[[JobRecord], bool]) -> JobRecord | None:
        """Have the job that is next of those that ``takes`` says yes to."""
        await self.open()
        self._news.clear()
        seen = set(self._had)
        for _ in range(ROUNDS):
            waiting = await self.ask(partial(claiming.candidates, seen=seen))
            await self._learn(waiting)
            for job_id in waiting:
                entry = self._entries.get(job_id)
                if entry is None or entry.record.over or not takes(entry.record):
                    continue
                if (record := await self._claimed(job_id)) is not None:
                    return record
            seen |= set(waiting)
            if len(waiting) < claiming.FIRST:
                break
        return None

    async def beat(self) -> Collection[str]:
        """Say that this service is there; the ids of the jobs that it has no more."""
        had = dict(self._had)
        if not had:
            return []
        begin = {job_id for job_id in had if self._unwritten(job_id)}  # their claims may be, too
        kept = await self.ask(partial(claiming.beat, claims=[*had.values()]))
        lost = [
            job_id
            for job_id, claim in had.items()
            if claim not in kept and self._had.get(job_id) == claim and job_id not in begin
        ]
        for job_id in lost:
            del self._had[job_id]
            self._fenced.add(job_id)
        with suppress(errors.JournalUnreachable):
            await self._reload(lost)
        return lost

    async def give_back(self, job_id: str) -> None:
        """Let another have a job, from what is settled, and at once."""
        claim = self._had.get(job_id)
        if claim is None:
            return
        if self._entry(job_id).record.state is JobState.RUNNING:
            self.append(job_id, PutBack())
        self._had.pop(job_id, None)
        self._put(Release(job_id, claim))
        with suppress(errors.SidecarError):  # the lease ends by itself
            await self.written(job_id)

    async def look(
        self,
        node_id: str,
        refused: Mapping[str, Failure],
        able: Collection[str],
        patience_s: float,
    ) -> None:
        """Say what a node cannot do of the jobs that wait, and what it can."""
        await self.open()

        def looked(cursor: Any) -> list[Found]:
            return refusing.look(
                cursor, self._rows, node_id, refused, able, self._heard_of, patience_s
            )

        for found in await self.ask(looked):
            self._take(found, here=True)

    async def leave(self, node_id: str) -> None:
        """Say that a node is there no more."""
        delete = "DELETE FROM vibevoice.nodes WHERE id = %s"
        await self.ask(lambda cursor: cursor.execute(delete, (node_id,)))

    def _heard_of(self, job_id: str) -> JobRecord | None:
        """From any thread."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.record

    async def news(self) -> None:
        """Wait until there may be something to claim; a lease that is over is nobody's news, so
        that is so every few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEASE_S):
                await self._news.wait()

    async def _claimed(self, job_id: str) -> JobRecord | None:
        claim = secrets.token_hex(8)
        over = [one for one, entry in self._entries.items() if entry.record.over]

        def reach(cursor: Any) -> Grasp | None:
            return claiming.grasp(cursor, self._rows, job_id, claim, over)

        grasped = await self.ask(reach)
        if grasped is None:
            return None
        if grasped.had:
            self._had[job_id] = claim
            self._fenced.discard(job_id)
        self._take(grasped.found, here=not grasped.had)
        if not grasped.had or job_id not in self._entries:
            return None
        return self._entries[job_id].record

    async def _learn(self, waiting: Mapping[str, int]) -> None:
        """Have those in memory that are not, or not as they are."""
        wanted: dict[str, int | None] = {}
        for job_id, seq in waiting.items():
            at = self._at(job_id)
            if at is None or at < seq:
                wanted[job_id] = at
        if wanted:
            for found in await self.ask(lambda cursor: self._rows.find(cursor, wanted)):
                self._take(found)

    async def _reload(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            for found in await self.ask(partial(self._rows.find_instead, job_ids=job_ids)):
                self._take(found)

    def _keep(self, entry: Entry, record: JobRecord, event: JobEvent) -> None:
        base, self._saying = entry.record.seq, record.id
        super()._keep(entry, record, event)
        if record.durable:
            self._say(entry, record, event, base)
        self._saying = ""

    def _say(self, entry: Entry, record: JobRecord, event: JobEvent, base: int) -> None:
        claim, takes = self._had.get(record.id), False
        if claim is None and isinstance(event.change, Begun):  # nobody else had it
            claim, takes = secrets.token_hex(8), True
            self._had[record.id] = claim
        ended = record.over and event.ends
        worn = [one for one in entry.log if _checkpoint(one)] if ended else []
        done = partial(self._shelf.put, record) if ended else None
        if ended:
            self._had.pop(record.id, None)
        said = Said(event.worn if record.over else event, record.state, base, claim, takes)
        self._put(Tell(record.id, said, worn, done=done))

    def _put(self, part: Part) -> None:
        """What is said in one go is written in one piece."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            self._said.append(part)
            self._flush()
            return
        if not self._said:
            running.call_soon(self._flush)
        self._said.append(part)

    def _flush(self) -> None:
        if self._said:
            self._writer.put(self._said)
            self._said = []

    def _known(self) -> Mapping[str, int]:
        """From any thread: the number first, for what comes behind it is seen on its way."""
        numbers = [(one, entry, entry.record.seq) for one, entry in [*self._entries.items()]]
        return {one: seq for one, entry, seq in numbers if self._written(one, entry)}

    def _written(self, job_id: str, entry: Entry) -> bool:
        """Whether nothing of a job is on its way to the database. It is looked for in the order of
        that way, and so is nowhere missed."""
        return entry.record.durable and not (job_id == self._saying or self._unwritten(job_id))

    def _unwritten(self, job_id: str) -> bool:
        said = any(part.job_id == job_id for part in [*self._said])
        return said or self._writer.pending(job_id)

    @property
    def _hears(self) -> bool:
        return self._hearing is not None and self._hearing.hears

    def _heard_others(self, found: Sequence[Found]) -> None:
        def take() -> None:
            for one in found:
                self._take(one)
            self._news.set()

        self._crossing.do(take)

    def _heard_own(self, word: str) -> None:
        def tell() -> None:
            reached = self._reached.get(word)
            if reached is not None and not reached.done():
                reached.set_result(None)

        self._crossing.do(tell)

    def _refused(self, found: Sequence[Found], outcome: Outcome) -> None:
        def take() -> None:
            for job_id, claim in outcome.fenced:
                if self._had.get(job_id, claim) == claim:
                    self._fenced.add(job_id)
            for job_id in outcome.taken:
                self._never_was(job_id)
            for one in found:
                self._take(one)

        self._crossing.do(take)

    def _drop(self, job_id: str) -> None:
        super()._drop(job_id)
        self._here.discard(job_id)
        self._had.pop(job_id, None)
        self._fenced.discard(job_id)

    def _gone(self, record: JobRecord) -> None:
        self._put(Part(record.id, done=partial(self._shelf.drop, record)))

    def _ended(self, record: JobRecord) -> None:
        self._put(Part(record.id, done=partial(self._shelf.put, record)))


def _checkpoint(event: JobEvent) -> bool:
    return isinstance(event.change, Reported) and isinstance(event.change.event, Checkpoint)
