"""The one writer of a service, in a thread of its own: nobody else waits for the database.

What comes while it is at work is written with the next commit. While the database does not answer
it is kept here and written once it does: all of it counts that nobody took over meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sidecar import errors
from sidecar.database.link import Link, Pauses, Unreachable, said
from sidecar.jobs.log import KeyTaken
from sidecar.jobs.postgres.batch import Add, Forget, Outcome, Part, write
from sidecar.jobs.postgres.rows import Found, Rows

log = logging.getLogger(__name__)

Told = Callable[[Exception | None], None]
Heard = Callable[[Sequence[Found], Outcome], None]
"""Told of jobs of which the database has something else than this service said."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Somebody waits until what was said so far of a job is written; ``patient``: however long the
    database is away."""

    job_id: str | None
    told: Told
    patient: bool


class Writer:
    """Takes parts from one thread, writes them in order from its own."""

    def __init__(self, link: Link, rows: Rows, heard: Heard) -> None:
        """``link``: nobody else's. ``heard`` is called from the writer's thread."""
        self._link, self._rows, self._heard = link, rows, heard
        self._news = threading.Condition()
        self._parts: list[Part] = []
        self._waiting: list[_Waiter] = []
        self._pending: Counter[str] = Counter()
        self._closing = False
        self._untold: dict[str, Exception] = {}
        """What went wrong with a job when something of it was written last, until somebody waits
        for that: who puts it may be a moment behind with his wait."""
        self._disowned: dict[str, bool] = {}
        """Jobs of which it was said that they were not added, though nobody knows; whether a
        request's key finds them."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, parts: Sequence[Part]) -> None:
        """Have them written, in one transaction and behind all before them."""
        with self._news:
            self._parts += parts
            self._pending.update(part.job_id for part in parts)
            self._news.notify()

    def pending(self, job_id: str) -> bool:
        """Whether something of a job may not be written yet."""
        return self._pending[job_id] > 0

    def when_written(
        self, job_id: str | None, told: Told, *, patient: bool, parts: Sequence[Part] = ()
    ) -> None:
        """Have ``told`` called (from the writer's thread) once all before, and ``parts``, is
        written, with what went wrong with that job; with `errors.JournalUnreachable` if the
        database does not answer, unless he who waits is ``patient``."""
        with self._news:
            self.put(parts)
            if self._closing:
                told(None)
                return
            self._waiting.append(_Waiter(job_id, told, patient))
            self._news.notify()

    def close(self) -> None:
        """Write all that there is, if the database answers, and stop."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()
        self._link.close()

    def _run(self) -> None:
        parts: list[Part] = []
        waiting: list[_Waiter] = []
        pauses, failures = Pauses(), 0
        while True:
            with self._news:
                if failures > 1 and not self._closing:
                    self._news.wait(pauses.next())
                while not (self._parts or self._waiting or self._closing or parts):
                    self._news.wait()
                closing = self._closing
                parts, self._parts = [*parts, *self._parts], []
                waiting, self._waiting = [*waiting, *self._waiting], []
            try:
                wrong = self._written(parts, again=failures > 0)
            except Unreachable as error:
                failures += 1
                if failures == 2:
                    log.warning("the database for jobs does not answer: %s", error)
                if failures > 1:
                    waiting = self._put_off(waiting, parts)
                if closing and failures > 1:
                    log.error("%d events are lost: the database does not answer", len(parts))
                    return
                continue
            if failures > 1:
                log.warning("the database for jobs answers again")
            pauses.over()
            failures = 0
            self._settle(parts, wrong)
            for one in waiting:
                one.told(self._untold.get(one.job_id) if one.job_id is not None else None)
            for one in waiting:
                self._untold.pop(one.job_id or "", None)
            parts, waiting = [], []
            if closing:
                return

    def _settle(self, parts: Sequence[Part], wrong: Mapping[str, Exception]) -> None:
        with self._news:
            self._pending.subtract(part.job_id for part in parts)
            self._pending += Counter()
        for part in parts:
            if type(part) is not Part:  # a bare one writes nothing, so it corrects nothing
                self._untold.pop(part.job_id, None)
        self._untold |= wrong
        for part in parts:
            if isinstance(part, Forget):
                self._disowned.pop(part.job_id, None)

    def _written(self, parts: list[Part], *, again: bool) -> dict[str, Exception]:
        """What was wrong, by job."""
        parts = self._sure(parts)
        if not parts:
            with self._link.transaction() as cursor:
                cursor.execute("SELECT 1")
            return {}
        try:
            return self._committed(parts, again=again)
        except Unreachable:
            raise
        except Exception as error:
            log.error("something of jobs cannot be written: %s", said(error))
        wrong: dict[str, Exception] = {}
        for job_id in dict.fromkeys(part.job_id for part in parts):
            try:
                own = [part for part in parts if part.job_id == job_id]
                wrong |= self._committed(own, again=again)
            except Unreachable:
                raise
            except Exception as error:
                log.error("job %s cannot be kept: %s", job_id, said(error))
                wrong[job_id] = errors.JournalUnreachable("The database cannot keep the job.")
        return wrong

    def _sure(self, parts: list[Part]) -> list[Part]:
        """Without jobs that were disowned. One with a key is left as the database has it: whoever
        sends the request again, anywhere, finds it if it is there. One without is deleted."""
        return [
            part
            for part in parts
            if part.job_id not in self._disowned
            or (isinstance(part, Forget) and not self._disowned[part.job_id])
        ]

    def _put_off(self, waiting: Sequence[_Waiter], parts: Sequence[Part]) -> list[_Waiter]:
        """Tell those who do not wait for long; those who do."""
        adds = {part.job_id: part.record.key is not None for part in parts if isinstance(part, Add)}
        for one in waiting:
            if not one.patient:
                if one.job_id in adds:
                    self._disowned[one.job_id] = adds[one.job_id]
                one.told(errors.JournalUnreachable())
        return [one for one in waiting if one.patient]

    def _committed(self, parts: Sequence[Part], *, again: bool) -> dict[str, Exception]:
        with self._link.transaction() as cursor:
            outcome = write(cursor, self._rows, parts, again=again)
        found: list[Found] = []
        if outcome.reload:
            with self._link.transaction() as cursor:
                found = self._rows.find_instead(cursor, outcome.reload)
        if found or outcome.fenced or outcome.taken:
            self._heard(found, outcome)
        for done in outcome.done:
            done()
        changed: dict[str, Exception] = {one: errors.TranscriptChanged() for one in outcome.changed}
        return changed | {one: KeyTaken(other) for one, other in outcome.taken.items()}
