"""Claims of several nodes over one PostgreSQL: each job once, and owners in turn."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fake_claims import ANYTHING
from postgres import Cluster
from service_process import until
from shared_job_services import SAID, Service, Services, services, submitted, watched

from sidecar import errors
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs import scheduler, sqlite_event_log
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import (
    CountsAs,
    JobRecord,
    JobState,
    Priority,
    ReportedChange,
    RequeuedChange,
    StartedChange,
)
from sidecar.jobs.job_runner import Job
from sidecar.plugins.shared_jobs.claims import PAGE_BYTES, WAITING, Claim, ClaimPreferences
from sidecar.plugins.shared_jobs.held_claims import HeldClaims
from sidecar.transcripts.transcript import Finished, Progress, ResumePoint, Transcript

CLAIM = "SELECT FROM vibevoice.claim_1(%s, 'x', %s, 1e6, '{}', 0, 60)"
RESUME_POINT = ReportedChange(ResumePoint(1.0, "scripted", (SAID,), {"state": 1}))
SENDERS = 4
NO = errors.AudioTooLong()


@pytest.fixture
async def shared(journal: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with services(journal, tmp_path) as shared:
        yield shared


@pytest.fixture
def node(shared: Services) -> Service:
    return shared.one


async def owners_of(node: Service, count: int) -> list[str]:
    """Owners of the next jobs."""
    return [(await node.claimed()).record.owner for _ in range(count)]


async def refused_by_two(shared: Services) -> tuple[Service, Service, JobRecord]:
    """Two nodes, and a job that neither can do."""
    node, other = shared.one, await shared.more()
    (job,) = await node.submit("a")
    for one in (node, other):
        await one.refuse(NO, job)
    return node, other, job


async def wants(node: Service, precision: Precision, owner: str = "owner") -> JobRecord:
    """Submit a job that wants a precision."""
    options = TranscribeOptions(precision=precision)
    record = replace(submitted(owner), options=options)
    await node.jobs.submit(record)
    return record


async def age(node: Service, record: JobRecord, seconds: float) -> None:
    """As if a job had come so much earlier."""
    await node.database.fetch(
        """UPDATE vibevoice.jobs SET came = came - make_interval(secs => %s)
            WHERE id = %s""",
        (seconds, record.id),
    )


async def die(node: Service) -> None:
    """Have a node taken for dead and come back."""
    await node.membership.expire({node.membership.id: None})
    await node.membership.register()


async def test_three_nodes_claim_three_hundred_jobs_once_each_and_fairly(shared: Services) -> None:
    nodes = [shared.one, await shared.more(), await shared.more()]
    for index in range(3):
        for _ in range(100 // SENDERS):
            await asyncio.gather(*(nodes[0].submit(f"owner {index}") for _ in range(SENDERS)))
    got: list[JobRecord] = []

    async def work(node: Service) -> None:
        while (claim := await node.claim()) is not None:
            got.append(claim.record)

    await asyncio.gather(*map(work, nodes))
    assert len(got) == len({job.id for job in got}) == 300
    early = Counter(job.owner for job in got[:60])
    assert {early[f"owner {index}"] for index in range(3)} <= {*range(17, 24)}


async def test_claim_skips_a_job_whose_row_is_locked(node: Service, journal: str) -> None:
    locked, other = await node.submit("a", "b")
    with psycopg.connect(journal) as client:
        client.execute("SELECT FROM vibevoice.jobs WHERE id = %s FOR UPDATE", (locked.id,))
        assert (await node.claimed()).record.id == other.id
        assert await node.claim() is None
    assert (await node.claimed()).record.id == locked.id


async def test_claim_waits_briefly_for_the_only_job_whose_row_is_locked_and_returns_it(
    node: Service, journal: str, postgres_cluster: Cluster
) -> None:
    """Else its node would ask again after `ClaimLoop.idle_poll_s`."""
    (job,) = await node.submit("a")

    async def claimed_while_locked() -> Claim | None:
        with psycopg.connect(journal) as client:
            client.execute("SELECT FROM vibevoice.jobs FOR UPDATE")
            claiming = asyncio.ensure_future(node.claim())
            await until(lambda: claiming.done() or postgres_cluster.waiting_for_locks(journal))
        return await claiming

    tries = 0
    while (claim := await claimed_while_locked()) is None:
        tries += 1
        assert tries < 20, "not even on a busy machine is each of the moments too long"
    assert claim.record.id == job.id


async def test_claims_and_told_positions_follow_the_order_of_the_scheduler(node: Service) -> None:
    chance = random.Random(7)
    waiting: list[scheduler.WaitingJob] = []
    jobs: list[JobRecord] = []
    for number in range(80):
        before = 2.0 if number < 40 else 1.6  # none comes of age while the test runs
        age_s = (before - 0.02 * number) * scheduler.BATCH_AGING_S
        owner, work_s = f"owner {chance.randrange(5)}", chance.uniform(1.0, 900.0)
        priority = chance.choice([*Priority])
        record = submitted(owner, work_s, priority=priority)
        await node.jobs.submit(record)
        await age(node, record, age_s)
        jobs.append(record)
        waiting.append(scheduler.WaitingJob(owner, Precision.AUTO, work_s, -age_s, priority))
    told = await node.jobs.positions(jobs)
    claims = [await node.claimed() for _ in jobs]
    expected = [
        jobs[one.index].id
        for one in scheduler.schedule_jobs(
            waiting, scheduler.OwnerShares(), scheduler.SchedulerMoment()
        )
    ]
    assert [claim.record.id for claim in claims] == expected
    assert sorted(told, key=lambda job_id: told[job_id].position) == expected
    assert sorted(turn.position for turn in told.values()) == [*range(80)]


@pytest.mark.parametrize("runs", [False, True])
async def test_owner_of_a_refused_or_long_running_job_gets_no_more_than_its_share_later(
    node: Service, runs: bool
) -> None:
    (first,) = await node.submit("first")
    if runs:
        await node.claimed()
    else:
        await node.refuse(NO, first)
    for _ in range(20):
        await node.submit("busy", seconds=900)
        await node.run(await node.claimed())
    jobs = await node.submit(*["first"] * 9, *["busy"] * 9, *["new"] * 9, seconds=900)
    told = await node.jobs.positions(jobs)
    order = sorted((one for one in jobs if one.id in told), key=lambda one: told[one.id].position)
    assert Counter(one.owner for one in order[:9]).keys() == {"first", "busy", "new"}
    counted = Counter(await owners_of(node, 9))
    assert sorted(counted.values()) in ([2, 3, 4], [3, 3, 3]), counted


async def test_job_ten_times_as_long_as_those_of_new_owners_gets_an_equal_share_of_work(
    node: Service,
) -> None:
    """One or five of them wait at a time; for each that is claimed, another comes."""
    for together in (1, 5):
        long, claims = f"long {together}", list[str]()
        await node.submit(long, seconds=30.0)
        while long not in claims and len(claims) < 80:
            for number in range(together if not claims else 1):
                await node.submit(f"{together} {len(claims)} {number}")
            claim = await node.claimed()
            claims.append(claim.record.owner)
            await node.run(claim)
        owners = together + 1  # each has an equal share of the work until the long job is done
        assert 8 * owners <= len(claims) <= 12 * owners
        for _ in range(together):
            await node.run(await node.claimed())


async def test_new_owner_gets_its_turn_beside_earlier_owners_while_a_long_job_runs(
    node: Service,
) -> None:
    await node.submit("was there")
    await node.claimed()
    await node.submit("long", seconds=36_000.0)
    await node.claimed()
    await node.submit("new", "new", "was there", "was there", "later", "later")
    assert sorted(await owners_of(node, 2)) == ["new", "was there"]


def done_after(seconds: float) -> ReportedChange:
    return ReportedChange(Finished(Transcript((SAID,), "en", seconds, "scripted", "fp32")))


async def had_s(node: Service, owner: str) -> float:
    """The work that an owner was charged."""
    rows = await node.database.fetch(
        "SELECT had_s FROM vibevoice.owners WHERE owner = %s", (owner,)
    )
    return float(rows[0][0])


async def test_owner_whose_audio_headers_understate_the_duration_is_charged_the_real_one(
    node: Service,
) -> None:
    await node.submit(*["liar"] * 6, seconds=1.0)
    await node.submit("bob", "bob", seconds=5.0)
    order = list[str]()
    while (claim := await node.claim()) is not None:
        order.append(claim.record.owner)
        took_s = 10.0 if claim.record.owner == "liar" else 5.0
        assert await node.report(claim, claim.record, StartedChange(), done_after(took_s))
    assert order == ["liar", "bob", "bob", *["liar"] * 5]


async def test_running_job_longer_than_its_audio_header_says_is_charged_before_its_end(
    node: Service,
) -> None:
    await node.submit("liar", "liar", seconds=1.0)
    await node.submit("bob", seconds=5.0)
    claim = await node.claimed()
    far = ReportedChange(Progress(60.0, 1.0))
    record = await node.report(claim, claim.record, StartedChange(), far)
    assert record is not None
    assert await had_s(node, "liar") >= 60.0
    bobs = await node.claimed()
    assert bobs.record.owner == "bob"
    assert await node.report(claim, record, done_after(61.0))
    assert await had_s(node, "liar") == 61.0


async def test_owner_whose_audio_header_overstates_the_duration_is_refunded_the_rest(
    node: Service,
) -> None:
    await node.submit("me", seconds=1000.0)
    claim = await node.claimed()
    assert await had_s(node, "me") == 1000.0
    assert await node.report(claim, claim.record, StartedChange(), done_after(2.0))
    assert await had_s(node, "me") == 2.0


async def test_released_job_is_not_charged_to_its_owner(node: Service) -> None:
    await node.submit("first", "second")
    claim = await node.claimed()
    assert claim.record.owner == "first"
    await node.claims.release(claim.token)
    assert await had_s(node, "first") == 0.0
    assert (await node.claimed()).record == claim.record


async def test_new_owner_in_an_empty_queue_takes_turns_with_an_earlier_owner(node: Service) -> None:
    await node.submit("busy", "busy", seconds=900)
    for _ in range(2):
        await node.run(await node.claimed())
    await node.submit("new", "new", "busy")
    assert await owners_of(node, 3) == ["new", "busy", "new"]


async def test_jobs_of_the_loaded_precision_go_first_for_a_limited_time(node: Service) -> None:
    due = await wants(node, Precision.FP32)
    loaded = [await wants(node, Precision.FP16) for _ in range(3)]
    short = ClaimPreferences(ANYTHING, frozenset({"fp16", "auto"}), 1.0)
    long = replace(short, loaded_for_s=scheduler.MAX_PASSED_OVER_S + 1.0)
    assert (await node.claimed(short)).record.id == loaded[0].id
    assert (await node.claimed(long)).record.id == loaded[1].id, "the other came a moment ago"
    await age(node, due, scheduler.MAX_PASSED_OVER_S)
    assert (await node.claimed(short)).record.id == loaded[2].id, "loading was a moment ago"
    again = await wants(node, Precision.FP16)
    assert (await node.claimed(long)).record.id == due.id
    fp32 = replace(short, loaded=frozenset({"fp32"}))
    assert (await node.claimed(fp32)).record.id == again.id


async def test_earlier_job_goes_first_when_no_precision_is_loaded(node: Service) -> None:
    due = await wants(node, Precision.FP32)
    await wants(node, Precision.FP16)
    assert (await node.claimed()).record.id == due.id


@pytest.mark.parametrize("begins", [True, False])
async def test_node_death_before_reported_start_counts_as_attempt_if_claim_implies_start(
    node: Service, begins: bool
) -> None:
    (job,) = await node.submit("a")
    offer = ClaimPreferences(ANYTHING, begins=begins)
    given_back = await node.claimed(offer)
    assert given_back.begins is begins
    await node.claims.release(given_back.token)
    assert (await node.jobs.get(job.id)).seq == 0
    claim = await node.claimed(offer)
    await die(node)
    after = await node.jobs.get(job.id)
    assert (after.state, after.attempts) == (JobState.QUEUED, int(begins))
    assert (after.interruptions, after.alone) == (int(begins), begins)
    assert await node.report(claim, claim.record, StartedChange()) is None
    again = await node.claimed(offer)
    started = await node.report(again, again.record, StartedChange())
    assert started is not None
    await die(node)
    after = await node.jobs.get(job.id)
    assert (after.attempts, after.interruptions) == (1 + begins, 1 + begins)


async def test_claim_does_not_wait_for_an_uncommitted_submission_of_the_same_owner(
    node: Service, journal: str
) -> None:
    """As many, one after the other: each is in the middle as the claim comes."""
    (job, _) = await node.submit("a", "a")
    with psycopg.connect(journal) as client:
        client.execute("SELECT vibevoice.join_1('a')")
        assert (await node.claimed()).record.id == job.id


async def test_node_keeps_its_job_over_restart_of_database(
    shared: Services, postgres_cluster: object
) -> None:
    node, other = shared.one, await shared.more()
    await node.submit("a")
    claim = await node.claimed()
    postgres_cluster.stop("immediate")  # type: ignore[attr-defined]
    postgres_cluster.start()  # type: ignore[attr-defined]
    assert await other.claim() is None
    assert await node.claims.mine() == {claim.token}
    await node.run(claim)


async def test_search_for_jobs_that_a_node_can_do_again_does_not_void_the_next_report(
    shared: Services,
) -> None:
    node, other, job = await refused_by_two(shared)
    await node.claims.end_unschedulable(600.0)
    assert (await node.jobs.get(job.id)).refused is not None
    await node.accept(job)
    claim = await node.claimed()
    await other.claims.end_unschedulable(600.0)
    assert await node.report(claim, claim.record, StartedChange()) is not None


async def test_jobs_that_a_node_can_do_now_are_claimed_in_fair_order(node: Service) -> None:
    jobs = await node.submit("a", "a", "b")
    await node.refuse(NO, *jobs)
    assert await node.claim() is None
    await node.accept(*jobs)
    assert await owners_of(node, 3) == ["a", "b", "a"]


async def test_reason_of_a_node_that_is_gone_marks_no_job_refused(shared: Services) -> None:
    node, other, job = await refused_by_two(shared)
    await node.accept(job)
    await other.membership.leave()
    await node.claims.end_unschedulable(0.0)
    assert (await node.jobs.get(job.id)).refused is None


async def test_job_that_was_put_off_at_a_future_time_is_claimed(node: Service) -> None:
    """As after a clock that was wrong."""
    (job,) = await node.submit("a")
    await node.refuse(NO, job)
    await node.database.fetch(
        "UPDATE vibevoice.put_offs SET at = clock_timestamp() + interval '1 hour'"
    )
    assert (await node.claimed()).record.id == job.id


async def test_job_remembers_no_node_that_is_gone(shared: Services) -> None:
    node, other, job = await refused_by_two(shared)
    await other.membership.leave()
    await node.refuse(NO, job)
    rows = await node.database.fetch("SELECT node FROM vibevoice.put_offs")
    assert rows == [(node.membership.id,)]


async def test_nodes_are_notified_when_one_can_do_more_and_not_when_it_can_do_less(
    shared: Services,
) -> None:
    node, other = shared.one, await shared.more()
    heard = list[str]()
    node.database.listen(WAITING, heard.append)
    await until(lambda: heard, "it listens")
    heard.clear()
    for words in ((), ANYTHING.words):
        other.can = replace(ANYTHING, words=words)
        await other.membership.register()
        await node.database.call("notify_1", ["a mark"], "job")
        assert not heard or words, "it was told of what a node can do no more"
    await until(lambda: heard)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("patience_s", [0.0, 600.0])
async def test_job_is_not_marked_refused_if_a_node_becomes_eligible_during_the_search(
    shared: Services, monkeypatch: pytest.MonkeyPatch, patience_s: float, left: bool
) -> None:
    """``left``: and it has gone since."""
    node, other, job = await refused_by_two(shared)

    async def judged(function: str) -> None:
        if function == "tell_refused_1":
            await other.accept(job)
            if left:
                await other.membership.leave()

    watched(node.database, monkeypatch, judged)
    await node.claims.end_unschedulable(patience_s)
    found = await node.jobs.get(job.id)
    assert (found.state, found.refused) == (JobState.QUEUED, None)


async def test_refused_jobs_are_marked_in_batches_of_the_given_size(node: Service) -> None:
    jobs = await node.submit(*["many"] * 5)
    await node.refuse(NO, *jobs)
    for told in (2, 4, 5):
        await node.claims.end_unschedulable(600.0, most=2)
        found = await node.jobs.list("many")
        assert sum(job.refused is not None for job in found) == told


async def interrupted(node: Service, count: int, state_bytes: int) -> JobRecord:
    """A job with so many resume points, whose node died."""
    await node.submit("a")
    claim = await node.claimed()
    states = [{"persons": "A" * state_bytes}] * count
    resume_points = [
        ReportedChange(ResumePoint(float(at), "f", (), one)) for at, one in enumerate(states, 1)
    ]
    assert await node.report(claim, claim.record, StartedChange(), *resume_points) is not None
    await die(node)  # which the database adds as an event that has only a kind
    return await node.jobs.get(claim.record.id)


async def test_claim_of_an_interrupted_job_reads_its_events_in_pages_of_bounded_size(
    node: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await interrupted(node, 30, PAGE_BYTES // 8)
    fetch, pages = node.database.fetch, list[int]()

    async def noted(sql: str, values: Any = (), **how: Any) -> Any:
        rows = await fetch(sql, values, **how)
        events = [row for row in rows if "events" in sql and len(row) > 4]
        pages.append(sum(len(row[4] or b"") for row in events))
        return rows

    monkeypatch.setattr(node.database, "fetch", noted)
    claim = await node.claimed()
    assert (claim.record.seq, claim.record.interruptions) == (record.seq, 1)
    assert [len(one.state["persons"]) for one in claim.record.resume_points] == [
        PAGE_BYTES // 8
    ] * 30
    assert max(pages) < 2 * PAGE_BYTES


async def test_job_whose_events_cannot_be_read_is_refused_with_reason_and_next_is_claimed(
    node: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await interrupted(node, 2, 100)
    (next_job,) = await node.submit("b")

    async def slow(sql: str) -> None:
        if "events" in sql:
            raise errors.JournalUnreachable()

    with monkeypatch.context() as patch:
        watched(node.database, patch, slow, "fetch")
        assert await node.claim() is None
        assert (await node.claimed()).record.id == next_job.id
    assert await node.claim() is None, "it rests for a while"
    await node.claims.end_unschedulable(600.0)
    left = await node.jobs.get(record.id)
    assert left.state is JobState.QUEUED
    assert left.refused is not None
    assert "The events of the job cannot be read" in left.refused.detail
    assert left.attempts == record.attempts


async def test_exception_while_a_claimed_job_is_read_leaves_it_to_others_and_next_is_claimed(
    node: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, next_job = await node.submit("a", "b")
    read = node.rows.record

    def broken(job_id: str, submitted: bytes, recording: bool = True) -> JobRecord:
        if job_id == first.id:
            raise KeyError("a bug")
        return read(job_id, submitted, recording)

    monkeypatch.setattr(node.rows, "record", broken)
    assert await node.claim() is None
    assert not await node.claims.mine()
    assert (await node.claimed()).record.id == next_job.id


async def at_work(node: Service, fraction: float) -> None:
    """Have a node begin the next job and do as much of it."""
    claim = await node.claimed()
    progress = ReportedChange(Progress(3 * fraction, 3.0))
    assert await node.report(claim, claim.record, StartedChange(), progress) is not None


async def crashed(node: Service) -> JobRecord:
    """A job in which an engine crashed, and which is left to all."""
    (job,) = await node.submit("crashed")
    claim = await node.claimed()
    crash = RequeuedChange(CountsAs.CRASH)
    assert await node.report(claim, claim.record, StartedChange(), crash) is not None
    await node.claims.release(claim.token)
    return job


@pytest.mark.parametrize("dies", [False, True], ids=["engine crashed", "node died"])
async def test_job_that_runs_alone_is_left_to_the_node_that_will_be_free_first(
    shared: Services, dies: bool
) -> None:
    busy, other = shared.one, await shared.more()
    if dies:
        (job,) = await busy.submit("crashed")
        begun = await busy.claimed()
        assert await busy.report(begun, begun.record, StartedChange()) is not None
        await die(busy)
    else:
        job = await crashed(busy)
    await busy.refuse(NO, job)
    await other.refuse(NO, job)
    for node, fraction in ((busy, 0.2), (other, 0.8)):
        await busy.submit("a")
        await at_work(node, fraction)
    for node in (busy, other):
        await node.accept(job)
    assert await busy.claim() is None, "the other has less to do"
    (short,) = await busy.submit("b")
    assert (await busy.claimed()).record.id == short.id, "others pass it"
    assert (await other.claimed()).record.id == job.id


async def test_busy_node_claims_a_job_that_runs_alone_if_the_free_one_cannot_do_it_now(
    shared: Services,
) -> None:
    busy, free, lesser = shared.one, await shared.more(), await shared.more()
    lesser.can = replace(ANYTHING, longest_s=1.0)
    await lesser.membership.register()
    await busy.submit("a")
    await at_work(busy, 0.2)
    job = await crashed(free)
    assert await busy.claim() is None
    await free.refuse(errors.EngineStuck(), job)
    assert (await busy.claimed()).record.id == job.id


async def test_one_node_searches_unschedulable_jobs_for_all(
    shared: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [shared.one, await shared.more()]
    (job,) = await shared.one.submit("a")
    for node in nodes:
        await node.refuse(NO, job)
    asked = [watched(node.database, monkeypatch, method="fetch") for node in nodes]
    for node in nodes * 2:
        await node.claims.end_unschedulable(600.0, 600.0)
    searches = [sql for each in asked for sql in each if "refused_1" in sql and "tell" not in sql]
    assert len(searches) == 1
    assert (await shared.one.jobs.get(job.id)).refused is not None


async def refuse_many(node: Service, count: int) -> None:
    """So many jobs of one owner, all put off by the node."""
    await node.database.fetch(
        """WITH many AS (INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s)
            SELECT md5(i::text), 'many', ''::bytea, true, 60 FROM generate_series(1, %s) i
            RETURNING id)
        INSERT INTO vibevoice.put_offs (job, node, for_s, final, failure)
            SELECT id, %s, 1e6, true, '' FROM many""",
        (count, node.membership.id),
    )


@pytest.mark.parametrize("analyzed", [False, True])
async def test_claim_reads_few_rows_of_each_owner_whatever_the_number_of_jobs(
    node: Service, journal: str, analyzed: bool
) -> None:
    """Before and after the server has statistics of the tables."""
    many = """INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s, state, ended)
        SELECT gen_random_uuid(), 'owner ' || i %% 5, '', i %% 2 = 0, 60, %s, %s
        FROM generate_series(1, 3000) i"""
    for state in (("queued", None), ("done", "now")):
        await node.database.fetch(many, state)
    if analyzed:
        await node.database.fetch("ANALYZE vibevoice.jobs")
    for token in range(100):
        await node.database.call("claim_1", node.membership.id, f"{token}", [], 1e6, [], 0.0, 60.0)
    with psycopg.connect(journal) as look:
        assert look.execute(CLAIM, (node.membership.id, [])).rowcount == 1
        read = rows_read(look)
        look.rollback()
    assert read < 100


async def test_claim_reads_no_rows_of_jobs_that_need_what_the_node_lacks(
    node: Service, journal: str
) -> None:
    await node.database.fetch(
        """INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s, needs)
        SELECT md5(i::text), 'many', ''::bytea, true, 60, '{language:el}'
        FROM generate_series(1, 3000) i"""
    )
    english = replace(ANYTHING, words=("language:en",))
    assert await node.claim(ClaimPreferences(english)) is None
    with psycopg.connect(journal) as look:
        found = look.execute(CLAIM, (node.membership.id, [*english.words])).fetchall()
        assert found == []
        assert rows_read(look) < 100


def rows_read(look: psycopg.Connection[Any]) -> int:
    """Rows of jobs that this transaction has read."""
    ((read,),) = look.execute(
        """SELECT (seq_tup_read + idx_tup_fetch)::int FROM pg_stat_xact_user_tables
        WHERE schemaname = 'vibevoice' AND relname = 'jobs'"""
    ).fetchall()
    return int(read)


async def test_job_behind_hundreds_of_refused_ones_is_claimed(node: Service) -> None:
    await refuse_many(node, 300)
    one, other = await node.submit("many", "other")
    assert {(await node.claimed()).record.id for _ in range(2)} == {one.id, other.id}
    assert await node.claim() is None


async def test_claim_unknown_to_its_node_is_released_unless_its_answer_may_be_on_its_way(
    node: Service,
) -> None:
    """As after a failure of the database, or a call that was executed late."""
    await node.submit("a")
    claim = await node.claimed()
    held = HeldClaims(node.claims, JobEventLog(), Nobody())
    held.pending_token = claim.token
    await held.check()
    assert await node.claims.mine() == {claim.token}
    held.pending_token = ""
    await held.check()
    assert not await node.claims.mine()
    assert await node.claim() is not None


async def test_node_whose_job_lost_events_in_the_database_loses_its_claim(shared: Services) -> None:
    node, other = shared.one, await shared.more()
    (job,) = await node.submit("a")
    claim = await node.claimed()
    begun = await node.report(claim, claim.record, StartedChange())
    assert begun is not None
    await node.database.fetch("DELETE FROM vibevoice.events")  # a standby had not heard of it
    await node.database.fetch("UPDATE vibevoice.jobs SET seq = 0, state = 'queued'")
    assert await node.report(claim, begun, RESUME_POINT) is None
    assert (await other.claimed()).record.id == job.id


class Nobody:
    """A queue that runs nothing."""

    def cancel(self, job: Job) -> None:
        """There is none."""


async def test_job_whose_last_seq_has_no_readable_event_is_claimed_and_done(
    shared: Services,
) -> None:
    node, _, job = await refused_by_two(shared)
    await node.claims.end_unschedulable(600.0)
    await node.accept(job)
    await node.database.fetch("UPDATE vibevoice.jobs SET seq = seq + 1")  # one that is read nowhere
    claim = await node.claimed()
    assert claim.record.seq == 2
    assert (await node.run(claim)).state is JobState.DONE


async def test_owner_row_exists_after_a_submission_that_races_with_tidying(node: Service) -> None:
    """As those of clients that wait: an owner has nothing here between two requests."""
    tidying = asyncio.create_task(forever(node))
    for _ in range(60):
        await asyncio.gather(*(come_and_go(node, f"owner {of}") for of in range(SENDERS)))
    tidying.cancel()


async def forever(node: Service) -> None:
    while True:
        await node.database.call("tidy_1")


async def come_and_go(node: Service, owner: str) -> None:
    (job,) = await node.submit(owner)
    rows = await node.database.fetch("SELECT FROM vibevoice.owners WHERE owner = %s", (owner,))
    assert rows, "its next job would not be in turn"
    await node.jobs.delete(job.id)


async def test_claim_of_a_job_cancelled_during_the_claim_call_is_not_valid(
    node: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await node.submit("a")
    claim = await node.claimed()
    assert await node.report(claim, claim.record, StartedChange())
    await node.claims.release(claim.token)

    async def cancelled(sql: str) -> None:
        if "events" in sql:
            await node.database.call("cancel_1", job.id)

    watched(node.database, monkeypatch, cancelled, "fetch")
    claim = await node.claimed()
    assert not claim.record.over
    assert claim.token not in await node.claims.mine()


@pytest.mark.parametrize(("damaged", "state"), [(False, "queued"), (True, "failed")])
async def test_job_written_by_a_later_release_stays_queued_and_a_damaged_one_fails(
    node: Service, monkeypatch: pytest.MonkeyPatch, damaged: bool, state: str
) -> None:
    serialize = sqlite_event_log.serialize_record
    with monkeypatch.context() as later:
        later.setattr(
            sqlite_event_log, "serialize_record", lambda one: serialize(one).replace(b"{", b"[", 1)
        )
        await node.submit("a")
    if damaged:
        await node.database.fetch("UPDATE vibevoice.jobs SET submitted = submitted || '\\x00'")
    assert await node.claim() is None
    for _ in range(2):
        await node.claims.end_unschedulable(0.0)
    assert await node.database.fetch("SELECT state FROM vibevoice.jobs") == [(state,)]
