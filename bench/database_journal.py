"""What jobs cost in a database that several services share, beside a file of one's own.

    .venv/bin/python -m bench.database_journal [--events 300]

Until a segment is on the disk, in both, and, in the shared one, until a client of another service
is told of it; then what it takes to know an owner's people when a job begins, few and as many as
there may be, and to have one deleted from the database's files. PostgreSQL is started for this,
with its disk in earnest. What claims cost says `bench.cluster_store`.
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

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from job_event_histories import submitted
from postgres import KEY, cluster
from shared_job_services import Service, services

from sidecar.jobs.job_record import ReportedChange, StartedChange
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.storage.postgres_speaker_store import PostgresSpeakerStore
from sidecar.storage.speaker_store import (
    MAX_ENROLLED_SPEAKERS,
    MAX_SAMPLES,
    EnrolledSpeaker,
    SpeakerSample,
)
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Segment, SegmentReady


def line(what: str, took: Sequence[float]) -> None:
    """Milliseconds: the half and nineteen of twenty."""
    ordered = sorted(took)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{what:52} {statistics.median(took) * 1e3:7.1f} {p95 * 1e3:7.1f} ms")


def said(index: int) -> ReportedChange:
    """One segment of a long recording."""
    return ReportedChange(SegmentReady(index, Segment(float(index), index + 1.0, "said " * 12)))


async def in_file(log: SqliteJobEventLog, events: int) -> list[float]:
    """How long each of so many segments takes to be on the disk."""
    job = submitted(durable=True)
    log.add(job)
    log.append(job.id, StartedChange())
    took = []
    for index in range(events):
        begun = time.perf_counter()
        log.append(job.id, said(index))
        await log.written(job.id)
        took.append(time.perf_counter() - begun)
    return took


async def shared(node: Service, front: Service, events: int) -> tuple[list[float], list[float]]:
    """The same in the database; and until a client of another service is told of each."""
    (job,) = await front.submit("owner")
    claim = await node.claim()
    assert claim is not None
    record = await node.report(claim, claim.record, StartedChange())
    on_disk, told = [], []
    with await front.jobs.subscribe(job.id, 1) as heard:
        for index in range(events):
            begun = time.perf_counter()
            assert record is not None
            record = await node.report(claim, record, said(index))
            on_disk.append(time.perf_counter() - begun)
            while (await anext(heard)).seq < index + 2:
                pass
            told.append(time.perf_counter() - begun)
    return on_disk, told


async def people(
    store: PostgresSpeakerStore, count: int, samples: int
) -> tuple[list[float], list[float]]:
    """How long it takes to know so many people of an owner, and to delete one."""
    owner = f"owner of {count}"
    for number in range(count):
        prints = (
            SpeakerEmbedding(base64.b64encode(os.urandom(512)).decode(), 9.0)
            for _ in range(samples)
        )
        heard = tuple(SpeakerSample(float(number), one) for one in prints)
        person = EnrolledSpeaker(f"{count}-{number}", owner, f"Name {number}", float(number), heard)
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


async def measure(events: int) -> None:
    """All of it, once."""
    with cluster(quick=False) as server, tempfile.TemporaryDirectory() as folder:
        address, home = server.new_database(), Path(folder)
        own = SqliteJobEventLog(home / "own", KEY)
        print(f"{'':52} {'p50':>7} {'p95':>7}")
        line("a segment on the disk: a file of one's own", await in_file(own, events))
        own.close()
        async with services(address, home, 2) as both:
            on_disk, told = await shared(*both.all, events)
        line("a segment on the disk: PostgreSQL", on_disk)
        line("a segment told by another service", told)
        voices = PostgresSpeakerStore(address, KEY)
        for count, samples in ((10, 3), (MAX_ENROLLED_SPEAKERS, MAX_SAMPLES)):
            known, deleted = await people(voices, count, samples)
            line(f"{count} people by {samples} recordings are known", known)
            line("one of them is deleted", deleted)
        await voices.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    given = parser.parse_args()
    asyncio.run(measure(given.events))
