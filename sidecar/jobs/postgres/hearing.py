"""What other services do to the jobs, heard in a thread of its own.

A notification says which job and which event; what it was is read from the tables. What was missed
while there was no connection is found by comparing: of each job, the last event. Notifications come
in the order of what was written: who sends one to itself has heard all before it when that comes.
"""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.database.link import Link, Pauses, Unreachable
from sidecar.database.schema import CHANNEL, GONE, WAITS
from sidecar.jobs.postgres.rows import Found, Rows

log = logging.getLogger(__name__)

Known = Callable[[], Mapping[str, int]]
"""Of each job that is known here and of which nothing is on its way to the database, the last
event."""
Heard = Callable[[Sequence[Found]], None]


class Hearing:
    """Listens, and comes back when the connection is lost."""

    def __init__(
        self,
        link: Link,
        rows: Rows,
        known: Known,
        at: Callable[[str], int | None],
        heard: Heard,
        reached: Callable[[str], None],
        others: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        """``at``: the last event that is known of a job, None of one that is not known. ``reached``
        is told what was said on `own`, behind all that was written before; ``others``: who is told
        of what else than jobs, by channel, or may have missed it. All are called from the thread
        that listens."""
        self._others = others or {}
        self._link, self._rows = link, rows
        self._known, self._at, self._heard, self._reached = known, at, heard, reached
        self.own = f"{CHANNEL}_{secrets.token_hex(8)}"
        """A channel on which nobody else listens."""
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self.hears = False
        """Whether the database tells what others do."""
        self._thread = threading.Thread(target=self._run, name="journal-news", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        self._closing = True
        self._wake.send(b"x")
        self._thread.join()
        self._link.close()
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        pauses = Pauses()
        while not self._closing:
            self.hears = False
            try:
                with self._link.meaning():
                    connection = self._link.connection()
                    for channel in (CHANNEL, self.own, *self._others):
                        connection.execute(f"LISTEN {channel}")
                    self._catch_up(connection)
                    for tell in self._others.values():
                        tell()
                    self.hears = True
                    pauses.over()
                    while not self._closing:
                        self._take(connection)
            except Unreachable:
                _wait([self._woken], pauses.next())
            except Exception:
                log.exception("what others do to jobs could not be taken in; once more")
                self._link.close()
                _wait([self._woken], pauses.next())

    def _catch_up(self, connection: Any) -> None:
        """What happened while nobody listened."""
        known = dict(self._known())
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("SELECT id, seq FROM vibevoice.jobs ORDER BY place")
            there = dict(cursor.fetchall())
            wanted: dict[str, int | None] = {}
            never: list[str] = []  # of these there is more here than was ever written
            for job_id, seq in there.items():
                at = self._at(job_id)
                if at is not None and at > seq and known.get(job_id) == at:
                    never.append(job_id)
                elif at is None or at < seq:
                    wanted[job_id] = at
            found = [*self._rows.find(cursor, wanted), *self._rows.find_instead(cursor, never)]
        gone = [Found(one, gone=True) for one in known if one not in there]
        self._heard([*gone, *found])

    def _take(self, connection: Any) -> None:
        all_ = list(connection.notifies(timeout=0))
        if not all_:
            _wait([connection, self._woken])
            return
        for channel in {one.channel for one in all_} & self._others.keys():
            self._others[channel]()
        told = [one for one in all_ if one.channel == CHANNEL]
        wanted: dict[str, int | None] = {}
        for one in told:
            job_id, what = one.payload.split(" ")[:2]
            at = self._at(job_id)
            if what == GONE:
                wanted[job_id] = None
            elif at is None or at < int(what):
                wanted[job_id] = at
        found: Sequence[Found] = ()
        if wanted:
            with connection.transaction(), connection.cursor() as cursor:
                found = self._rows.find(cursor, wanted)
        if found or any(one.payload.endswith(WAITS) for one in told):
            self._heard(found)
        for one in all_:
            if one.channel == self.own:
                self._reached(one.payload)


def _wait(sources: Sequence[Any], most_s: float | None = None) -> None:
    """Until there is something to be read; not by `select.select`, which knows no descriptor above
    a thousand, and so many has a service that as many clients are at."""
    with selectors.DefaultSelector() as selector:
        for one in sources:
            selector.register(one, selectors.EVENT_READ)
        selector.select(most_s)
