"""What is kept of each owner, and what goes with it."""

import asyncio
import math
import time
import uuid
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from service_process import until
from shared_job_services import DONE, LIMITS, Service, kept, service, submitted, until_told, watched

from sidecar import errors
from sidecar.audio.audio_source import missing_recording_ref
from sidecar.jobs.job_record import EditedChange, JobRecord, StartedChange
from sidecar.jobs.retention import JOB_BYTES, MAX_ABSENCE_S
from sidecar.storage.recording_storage import new_name
from sidecar.transcripts.transcript_edits import RewriteSegment

TWO_RESULTS = 5 * JOB_BYTES // 2
"""Space for two short results, and not for three."""


async def done(one: Service, owner: str, recording: str = "", size: int = 4) -> JobRecord:
    """A job that is done, perhaps with a recording."""
    record = submitted(owner)
    if recording:
        one.storage.put(recording, [b"x" * size])
        record = replace(record, audio=kept(recording, size))
    await one.jobs.submit(record)
    return await one.run(await one.claimed())


async def expire(one: Service, *records: JobRecord) -> None:
    """As if these had ended, or been read, so long ago that they are too old."""
    older = "UPDATE vibevoice.jobs SET touched = touched - interval '601 s' WHERE id = ANY(%s)"
    await one.database.fetch(older, ([record.id for record in records],))


async def ids(one: Service, owner: str) -> list[str]:
    return [record.id for record in await one.jobs.list(owner)]


async def test_expired_result_is_not_recreated_by_late_submission(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, retention_s=0)) as one:
        job = submitted("me")
        await one.jobs.submit(job)
        await one.jobs.cancel(job.id)
        await one.retention.settled()
        assert await ids(one, "me") == []
        with pytest.raises(errors.JournalUnreachable):
            await one.jobs.submit(job)
        assert await ids(one, "me") == []


async def test_newest_result_larger_than_its_owners_byte_limit_stays_and_older_are_deleted(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, result_bytes=1)) as one:
        mine = [(await done(one, "me")).id for _ in range(3)]
        assert await ids(one, "me") == mine[2:]


async def test_fetch_renews_result_and_limit_of_results_still_applies(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, result_bytes=TWO_RESULTS)) as one:
        read, other = await done(one, "me"), await done(one, "me")
        (waiting,) = await one.submit("me")
        await expire(one, read, other)
        expiries = await one.jobs.expiries([read, other, waiting])
        assert {job: one.in_s for job, one in expiries.items()} == {read.id: 0.0, other.id: 0.0}
        for each in (read, waiting):
            await one.jobs.renew(each)
        expiries = await one.jobs.expiries([read, other])
        left_s = [expiries[job.id].in_s or 0.0 for job in (other, read)]
        assert 0.0 == left_s[0] < left_s[1] <= LIMITS.retention_s
        await one.retention.sweep()
        assert await ids(one, "me") == [read.id, waiting.id]
        await one.jobs.cancel(waiting.id)
        await one.jobs.renew(read)  # so soon it is not written, and is no error
        third = await done(one, "me")
        assert await ids(one, "me") == [waiting.id, third.id], "the caps are what they were"


async def test_clock_that_is_ahead_deletes_no_result_for_its_age(
    journal: str, tmp_path: Path
) -> None:
    """The database's while the service's is right, or both of a machine that has just booted."""
    behind_s = 0.0
    async with service(journal, tmp_path, now=lambda: time.time() - behind_s) as one:
        jobs = [await done(one, "me") for _ in range(2)]
        await expire(one, *jobs)
        behind_s = 3600.0
        await one.retention.sweep()
        assert await ids(one, "me") == [job.id for job in jobs]
        expiries = await one.jobs.expiries(jobs)
        assert min(one.in_s or 0.0 for one in expiries.values()) > 3000.0
        behind_s = 0.0
        one.retention.clock_set_within_s = math.inf
        await one.retention.sweep()
        assert await ids(one, "me") == [job.id for job in jobs]
        one.retention.clock_set_within_s = 0.0
        await one.retention.sweep()
        assert await ids(one, "me") == []


@pytest.mark.parametrize(("age_s", "stays"), [(-60.0, False), (60.0, True)])
async def test_result_older_than_an_absence_was_measured_by_another_clock_and_counts_as_new(
    journal: str, tmp_path: Path, age_s: float, stays: bool
) -> None:
    """A database whose machine has no battery is in 1970 until it has a network."""
    async with service(journal, tmp_path) as one:
        job, old = [await done(one, "me") for _ in range(2)]
        older = "UPDATE vibevoice.jobs SET touched = touched - make_interval(secs => %s)"
        age_s += LIMITS.retention_s + MAX_ABSENCE_S
        await one.database.fetch(f"{older} WHERE id = %s", (age_s, job.id))
        await expire(one, old)
        await one.retention.sweep()
        assert await ids(one, "me") == ([job.id] if stays else [])
        if stays:
            left_s = (await one.jobs.expiries([job]))[job.id].in_s or 0.0
            assert left_s > LIMITS.retention_s / 2


async def test_results_without_time_limit_stay_until_deleted(journal: str, tmp_path: Path) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, retention_s=math.inf)) as one:
        job = await done(one, "me")
        await expire(one, job)
        await one.retention.sweep()
        assert await ids(one, "me") == [job.id]
        assert (await one.jobs.expiries([job]))[job.id].in_s is None
        await one.jobs.renew(job)
        await one.jobs.delete(job.id)
        assert await ids(one, "me") == []


async def test_recording_is_deleted_at_the_end_of_its_job_unless_recordings_are_kept(
    one: Service,
) -> None:
    gone = await done(one, "me", "a")
    assert [*one.storage.ages()] == []
    assert (await one.jobs.get(gone.id)).audio == missing_recording_ref()


async def test_oldest_recordings_beyond_an_owners_space_and_all_of_a_deleted_owner_are_deleted(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, recording_bytes=10)) as one:
        await done(one, "me", "b")
        await done(one, "me", "c")
        await done(one, "other", "d")
        assert {*one.storage.ages()} == {"b", "c", "d"}
        await done(one, "me", "e")
        await done(one, "me", "large", 11)
        assert {*one.storage.ages()} == {"c", "d", "e"}
        await one.jobs.delete_owner("other")
        assert {*one.storage.ages()} == {"c", "e"}


async def test_recordings_without_a_job_are_deleted_once_old_enough_and_those_of_waiting_jobs_stay(
    one: Service,
) -> None:
    young, waits = new_name(one.code), new_name(one.code)
    one.storage.put(young, [b"x"])
    await one.retention.sweep_storage()
    assert [*one.storage.ages()] == [young]
    one.retention.orphan_age_s = -1.0
    one.storage.put(waits, [b"x"])
    await done(one, "other")
    await one.jobs.submit(replace(submitted("me"), audio=kept(waits)))
    await one.retention.sweep()
    await one.retention.sweep_storage()
    assert [*one.storage.ages()] == [waits]


async def test_sweep_deletes_no_recording_that_another_store_wrote(one: Service) -> None:
    """In a bucket of two, or a folder that an earlier release shared with kept jobs."""
    one.retention.orphan_age_s = -1.0
    others = {uuid.uuid4().hex, new_name("0123456789ab"), "photo.jpg"}
    for name in others:
        one.storage.put(name, [b"x"])
    await one.retention.sweep_storage()
    assert {*one.storage.ages()} == others


async def test_metric_of_cancelled_jobs_counts_each_cancelled_or_deleted_job_once(
    one: Service, other: Service
) -> None:
    cancelled, deleted, ended = await one.submit("me", "me", "me")
    for _ in range(2):
        await one.jobs.cancel(cancelled.id)
        await one.jobs.delete(deleted.id)
        await other.jobs.cancel(cancelled.id)
    claim = await one.claimed()
    assert claim.record.id == ended.id
    await one.run(claim)
    await one.jobs.delete(ended.id)
    assert one.tally.ended.values[("cancelled",)] == 2
    assert other.tally.ended.values[("cancelled",)] == 0


async def test_sweeps_delete_jobs_and_recordings_beyond_one_batch_and_then_the_owners_row(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, recording_bytes=100)) as one:
        one.retention.max_recordings = one.retention.max_jobs = 2
        jobs = [await done(one, "me", f"recording {number}") for number in range(5)]
        await expire(one, *jobs)
        await one.retention.sweep()
        for _ in range(3):  # each deletes as many recordings as one call may
            await one.retention.delete_recordings()
        assert await ids(one, "me") == []
        assert [*one.storage.ages()] == []
        owners = await one.database.fetch("SELECT owner FROM vibevoice.owners")
        assert owners == [], "nothing is known of an owner who has nothing here"


async def test_recording_that_cannot_be_deleted_is_deleted_by_a_later_sweep(
    one: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise errors.StorageUnreachable()

    with monkeypatch.context() as away:
        away.setattr(one.storage, "delete", refuse)
        job = await done(one, "me", "a")
        assert await ids(one, "me") == [job.id]
        assert [*one.storage.ages()] == ["a"]
    await one.retention.delete_recordings()
    assert [*one.storage.ages()] == []


async def test_recording_discarded_while_deletions_overlap_is_deleted_by_the_next(
    one: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, waiting = one.database.fetch, list[asyncio.Event]()

    async def fetch_once_let(*statement: Any) -> list[Any]:
        if "INTO vibevoice.doomed_recordings" in statement[0]:
            waiting.append(asyncio.Event())
            await waiting[-1].wait()
        return await fetch(*statement)

    for name in ("early", "late"):
        one.storage.put(name, [b"x"])
    with monkeypatch.context() as held:
        held.setattr(one.database, "fetch", fetch_once_let)
        one.retention.discard("early")
        overlapping = [asyncio.create_task(one.retention.delete_recordings()) for _ in range(2)]
        await until(lambda: len(waiting) == 2)
    waiting[0].set()
    await overlapping[0]
    one.retention.discard("late")
    waiting[1].set()
    await overlapping[1]
    await one.retention.delete_recordings()
    assert [*one.storage.ages()] == []


async def test_edit_renews_a_result_that_is_about_to_expire(one: Service) -> None:
    job = await done(one, "me")
    await expire(one, job)
    await one.jobs.edit(job, EditedChange((RewriteSegment(0, "Hello."),)))
    await one.retention.sweep()
    assert await ids(one, "me") == [job.id]


async def test_expired_result_whose_client_waits_is_not_deleted_and_a_kept_one_is(
    journal: str, tmp_path: Path
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, retention_s=0)) as one:
        private = submitted("me", kept=False)
        await one.jobs.submit(private)
        await one.run(await one.claimed())
        assert (await one.jobs.get(private.id)).over
        await done(one, "me")
        assert await ids(one, "me") == []


async def test_service_skips_its_sweep_if_another_swept_shortly_before(
    journal: str, tmp_path: Path
) -> None:
    limits = replace(LIMITS, retention_s=0)
    async with (
        service(journal, tmp_path, limits=limits) as one,
        service(journal, tmp_path, "other", limits=limits) as other,
    ):
        await other.retention.sweep_in_turn()
        (job,) = await one.submit("me")
        await one.jobs.cancel(job.id)
        await one.retention.sweep_in_turn()
        assert await ids(one, "me") == [job.id], "it is not the turn of this one yet"
        await one.database.fetch("UPDATE vibevoice.sweeps SET at = at - interval '11 s'")
        await one.retention.sweep_in_turn()
        assert await ids(one, "me") == []


async def test_other_service_does_not_sweep_during_a_long_sweep(
    one: Service, other: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.retention.turn_renewal_s = 0.0
    joined = list[bool]()

    async def sweeps() -> None:
        joined.append(True)

    async def take_long(statement: str) -> None:
        if "vibevoice.purge_1" in statement:
            await one.database.fetch("UPDATE vibevoice.sweeps SET at = at - interval '11 s'")

    async def beside(function: str) -> None:
        if function == "tidy_1":
            await other.retention.sweep_in_turn()

    await one.submit("me")
    watched(one.database, monkeypatch, take_long, "fetch")
    called = watched(one.database, monkeypatch, beside)
    monkeypatch.setattr(other.retention, "sweep", sweeps)
    await one.retention.sweep_in_turn()
    assert "tidy_1" in called
    assert joined == []


@pytest.mark.parametrize("fails", ["delete_overdue_1", "tidy_1"])
async def test_failed_part_of_a_sweep_does_not_stop_the_others(
    one: Service, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    async def failing(function: str) -> None:
        if function == fails:
            raise errors.JournalUnreachable()

    called = watched(one.database, monkeypatch, failing)
    await one.retention.sweep()
    assert called[-2:] == ["delete_overdue_1", "tidy_1"]


async def test_results_over_the_limit_are_purged_and_recordings_marked_while_storage_is_silent(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(journal, tmp_path, limits=replace(LIMITS, result_bytes=1)) as one:
        asked, answers = list[str](), Event()

        def silent(name: str) -> None:
            asked.append(name)
            answers.wait()
            raise errors.StorageUnreachable()

        monkeypatch.setattr(one.storage, "delete", silent)
        one.retention.settle_delay_s = 0.01
        one.tasks.append(asyncio.create_task(one.retention.run()))
        last = list[str]()

        async def purged() -> bool:
            return await ids(one, "me") == last

        for name in ("a", "b", "c"):
            one.storage.put(name, [b"x"])
            job = replace(submitted("me"), audio=kept(name))
            await one.jobs.submit(job)
            claim = await one.claimed()
            assert await one.report(claim, claim.record, StartedChange(), DONE)
            await until(lambda: asked)
            last[:] = [job.id]
            await until_told(purged)
        assert len(asked) == 1
        answers.set()
        marked = "SELECT count(*) FROM vibevoice.doomed_recordings"
        assert await one.database.fetch(marked) == [(3,)]


async def test_result_that_is_polled_at_two_services_is_written_once(
    one: Service, other: Service
) -> None:
    async def version() -> object:
        return await one.database.fetch("SELECT xmin::text FROM vibevoice.jobs")

    job = await done(one, "me")
    await expire(one, job)
    unread = await version()
    await one.jobs.renew(job)
    read = await version()
    for each in (one, other, one):
        await each.jobs.renew(job)
    assert unread != read == await version()
