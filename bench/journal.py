"""What jobs cost in a database that several services share, beside a file of one's own.

    .venv/bin/python -m bench.journal [--waiting 3000] [--events 300]

The same jobs and events through both stores: until what was appended is on the disk, and, of the
shared one, until another service tells of it, how long a claim takes with so many that wait, and
what 3 services claim a second; then what it takes to know an owner's people when a job begins, few
and as many as there may be, and to have one deleted from the database's files. PostgreSQL is
started for this, with its disk in earnest.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "jobs"))

from histories import submitted
from sidecar.jobs.postgres.store import PostgresStore

from sidecar.jobs.events import Begun, Reported
from sidecar.jobs.sqlite_log import SqliteLog
from sidecar.people.person import MOST_PEOPLE, MOST_SAMPLES, Person, Sample
from sidecar.people.shared import SharedPeople
from sidecar.speech.people import VoicePrint
from sidecar.speech.transcript import Segment, SegmentReady
from tests.postgres import KEY, cluster


def line(what: str, took: Sequence[float]) -> None:
    """Milliseconds: the half and nineteen of twenty."""
    ordered = sorted(took)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{what:52} {statistics.median(took) * 1e3:7.1f} {p95 * 1e3:7.1f} ms")


def said(index: int) -> Reported:
    """One segment of a long recording."""
    return Reported(SegmentReady(index, Segment(float(index), index + 1.0, "said " * 12)))


async def written(store: SqliteLog | PostgresStore, events: int) -> list[float]:
    """How long each of so many segments takes to be on the disk."""
    job = submitted(durable=True)
    store.add(job)
    store.append(job.id, Begun())
    took = []
    for index in range(events):
        begun = time.perf_counter()
        store.append(job.id, said(index))
        await store.written(job.id)
        took.append(time.perf_counter() - begun)
    return took


async def crossing(one: PostgresStore, other: PostgresStore, events: int) -> list[float]:
    """From an append at one service until another tells of it."""
    job = submitted(durable=True)
    one.add(job)
    one.append(job.id, Begun())
    await one.written(job.id)
    await other.seek(job.id)
    took = []
    with other.subscribe(job.id, 1) as heard:
        for index in range(events):
            begun = time.perf_counter()
            one.append(job.id, said(index))
            while (await anext(heard)).seq < index + 2:
                pass
            took.append(time.perf_counter() - begun)
    return took


async def claims(stores: Sequence[PostgresStore], waiting: int) -> tuple[list[float], float]:
    """What each of 100 claims takes while many wait, and how many 3 services have in a second."""
    for index in range(waiting):
        stores[0].add(submitted(durable=True, owner=f"owner {index % 50}"))
    await stores[0].written()
    alone = []
    for _ in range(100):
        begun = time.perf_counter()
        await stores[0].claim(lambda job: True)
        alone.append(time.perf_counter() - begun)

    async def some(store: PostgresStore) -> None:
        for _ in range(100):
            await store.claim(lambda job: True)

    begun = time.perf_counter()
    await asyncio.gather(*map(some, stores))
    return alone, 100 * len(stores) / (time.perf_counter() - begun)


async def people(store: SharedPeople, count: int, samples: int) -> tuple[list[float], list[float]]:
    """How long it takes to know so many people of an owner, and to delete one."""
    owner = f"owner of {count}"
    for number in range(count):
        prints = (
            VoicePrint(base64.b64encode(os.urandom(512)).decode(), 9.0) for _ in range(samples)
        )
        heard = tuple(Sample(float(number), one) for one in prints)
        person = Person(f"{count}-{number}", owner, f"Name {number}", float(number), heard)
        await store.keep(owner, lambda _, person=person: person)  # type: ignore[misc]
    known, deleted = [], []
    for _ in range(50):
        begun = time.perf_counter()
        assert len(await store.of(owner)) == count
        known.append(time.perf_counter() - begun)
    for number in range(5):
        begun = time.perf_counter()
        await store.delete(owner, f"{count}-{number}")
        deleted.append(time.perf_counter() - begun)
    return known, deleted


async def measure(waiting: int, events: int) -> None:
    """All of it, once."""
    with cluster(quick=False) as server, tempfile.TemporaryDirectory() as folder:
        address, home = server.new_database(), Path(folder)
        stores = [PostgresStore(address, KEY, home) for _ in range(3)]
        own = SqliteLog(home / "own", KEY)
        for store in stores:
            await store.open()
        print(f"{'':52} {'p50':>7} {'p95':>7}")
        line("a segment on the disk: a file of one's own", await written(own, events))
        line("a segment on the disk: PostgreSQL", await written(stores[0], events))
        line("a segment told by another service", await crossing(*stores[:2], events))
        alone, together = await claims(stores, waiting)
        line(f"a claim, {waiting:,} of 50 owners wait", alone)
        print(f"{'claims a second by 3 services':52} {together:7.0f}")
        for store in [*stores, own]:
            store.close()
        voices = SharedPeople(address, KEY)
        for count, samples in ((10, 3), (MOST_PEOPLE, MOST_SAMPLES)):
            known, deleted = await people(voices, count, samples)
            line(f"{count} people by {samples} recordings are known", known)
            line("one of them is deleted", deleted)
        voices.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=3000)
    parser.add_argument("--events", type=int, default=300)
    given = parser.parse_args()
    asyncio.run(measure(given.waiting, given.events))
