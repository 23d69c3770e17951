"""Reports of one claimed job."""

import asyncio

import pytest
from fake_claims import ANYTHING, FakeClaims, SharedJobs
from job_event_histories import submitted
from service_process import until
from virtual_time import virtual_time

from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.plugins.shared_jobs.claims import Claim, ClaimPreferences
from sidecar.plugins.shared_jobs.held_claims import HeldClaim
from sidecar.transcripts.transcript import Finished, Progress, ResumePoint, Transcript

pytestmark = virtual_time
DONE = job_record.ReportedChange(Finished(Transcript((), "", 3.0, "scripted", "fp32")))


class Work:
    """A claimed job, its reporter, and the log that it reports from."""

    def __init__(self, *, begins: bool = False) -> None:
        self.shared = SharedJobs()
        self.claims, self.log = FakeClaims(self.shared), JobEventLog()
        self.ends: list[bool] = []
        self._begins = begins

    async def open(self) -> None:
        record = submitted(durable=True)
        self.shared.add(record)
        claim = await self.claims.claim("token", ClaimPreferences(ANYTHING))
        assert claim is not None
        self.id = record.id
        self.log.enter(record)
        claim = Claim("token", record, self._begins)
        self.reporter = HeldClaim(self.claims, self.log, claim)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        self.ends.append(await self.reporter.run())

    def happens(self, *changes: job_record.JobChange) -> None:
        for change in changes:
            self.log.append(self.id, change)

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.shared.events(self.id)]


@pytest.fixture
async def work() -> Work:
    work = Work()
    await work.open()
    return work


async def test_events_of_one_moment_are_one_report_without_superseded_progress(work: Work) -> None:
    work.happens(
        job_record.StartedChange(),
        *(job_record.ReportedChange(Progress(at, 3.0)) for at in (0.5, 1.0, 1.5)),
    )
    work.happens(
        job_record.ReportedChange(ResumePoint(1.5, "scripted", (), {})),
        job_record.ReportedChange(Progress(2.0, 3.0)),
    )
    await work.reporter.flushed()
    assert [len(events) for _, events in work.claims.reports] == [3]
    assert work.numbers == [1, 5, 6]
    assert work.shared.get(work.id) == work.log.get(work.id)
    work.happens(DONE)
    await work.reporter.flushed()
    assert [base for base, _ in work.claims.reports] == [0, 6]


async def test_flush_waits_for_earlier_events_and_not_for_later_ones(work: Work) -> None:
    work.happens(job_record.StartedChange())
    work.claims.down = True
    flushed = asyncio.ensure_future(work.reporter.flushed())
    await asyncio.sleep(60.0)
    assert not flushed.done()
    work.happens(job_record.ReportedChange(Progress(1.0, 3.0)))
    work.claims.down = False
    await flushed
    assert work.numbers[:1] == [1]
    await work.reporter.flushed()
    assert work.numbers == [1, 2]


async def test_flush_does_not_wait_for_start_that_the_claim_implies() -> None:
    work = Work(begins=True)
    await work.open()
    work.claims.down = True
    work.happens(job_record.StartedChange())
    await work.reporter.flushed()
    assert work.numbers == []
    work.happens(job_record.RequeuedChange(job_record.CountsAs.CRASH), job_record.StartedChange())
    flushed = asyncio.ensure_future(work.reporter.flushed())
    await asyncio.sleep(60.0)
    assert not flushed.done()
    work.claims.down = False
    await flushed
    assert work.numbers == [1, 2, 3]


async def test_unanswered_report_is_repeated_unchanged(work: Work) -> None:
    work.claims.unanswered = 2
    work.happens(job_record.StartedChange())
    await until(lambda: work.claims.reports)
    work.happens(job_record.ReportedChange(Progress(1.0, 3.0)), DONE)
    await work.reporter.flushed()
    first, second, third, rest = work.claims.reports
    assert first == second == third
    assert [event.seq for event in rest[1]] == [2, 3]
    assert work.numbers == [1, 2, 3]


async def test_reporter_returns_true_after_the_job_end_is_persisted(work: Work) -> None:
    work.happens(job_record.StartedChange())
    await work.reporter.flushed()
    assert not work.ends
    work.happens(job_record.FailedChange(job_record.JobFailure("internal", "", "")))
    await until(lambda: work.ends)
    assert work.ends == [True]
    assert work.shared.get(work.id).state is job_record.JobState.FAILED


async def test_job_end_while_reports_fail_is_persisted_afterwards(work: Work) -> None:
    work.claims.down = True
    work.happens(job_record.StartedChange())
    await asyncio.sleep(60.0)
    work.happens(DONE)
    work.claims.down = False
    await until(lambda: work.ends)
    assert work.shared.get(work.id).state is job_record.JobState.DONE


async def test_reporter_returns_false_when_the_claim_is_lost(work: Work) -> None:
    work.happens(job_record.StartedChange())
    await work.reporter.flushed()
    work.shared.lose(work.id)
    work.happens(DONE)
    await work.reporter.flushed()
    await until(lambda: work.ends)
    assert work.ends == [False]
    work.happens()
    assert work.shared.get(work.id).state is job_record.JobState.QUEUED


async def test_flush_of_closed_claim_returns(work: Work) -> None:
    work.claims.down = True
    work.happens(job_record.StartedChange())
    flushed = asyncio.ensure_future(work.reporter.flushed())
    await asyncio.sleep(60.0)
    work.task.cancel()
    work.reporter.finish()
    await flushed
    await work.reporter.flushed()
    assert not work.ends


async def test_flush_of_forgotten_job_returns(work: Work) -> None:
    work.happens(job_record.StartedChange())
    work.task.cancel()
    work.reporter.finish()
    work.log.delete(work.id)  # as after its end or deletion by another service
    await work.reporter.flushed()


async def test_fault_of_a_report_is_logged_and_report_is_repeated(
    work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report, faults = work.claims.report, [ZeroDivisionError("a fault")]

    async def faulty(*said: object) -> bool:
        if faults:
            raise faults.pop()
        return await report(*said)  # type: ignore[arg-type]

    monkeypatch.setattr(work.claims, "report", faulty)
    work.happens(job_record.StartedChange())
    await work.reporter.flushed()
    assert work.numbers == [1]
    assert "a fault" in caplog.text
