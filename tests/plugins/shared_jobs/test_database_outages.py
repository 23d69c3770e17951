"""Outages of the database and of nodes: services that share their jobs wait, and lose nothing.

PostgreSQL and all services are real processes; the only means are signals, `pg_terminate_backend`,
row locks and a small disk.
"""

import asyncio
import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import fill_disk, small_disk
from outage_clients import (
    NUMBERS,
    SETTLES,
    Answer,
    Clients,
    Heard,
    Outage,
    cleared,
    follow,
    observe_outage,
)
from postgres import Cluster, suspended
from service_process import REFUSED_S, new_file
from shared_job_services import until_told

from bench.deployment import Deployment, deployment
from bench.queue_clients import Recording

pytestmark = pytest.mark.slow_except("5 s")  # longer outages: tests of a node alone, too

FRONTS, NODES = 2, 3  # with two nodes what is reported at once is less, and finds fewer faults
JOBS = 12
SPEED = 20
BUSY_S = 3.0  # on top of what is promised: for other processes on the same cores
READY_S = 15.0  # five heartbeats and a call that runs into its limit, twice
REFUSALS = 20
HELD_AT = 10  # seconds of a recording, at which an engine is held
DISK_MB = 48  # an empty database takes 8 MB
SETTINGS = {"scripted_speed": SPEED, "scripted_settles": SETTLES, "log_level": "warning"}


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; while it is there, engines go no further than as many seconds as it says."""
    return tmp_path_factory.mktemp("engines") / "hold"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, hold: Path) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("shared")
    with deployment(home, FRONTS, NODES, **SETTINGS, scripted_hold=hold) as running:
        yield running


@pytest.fixture(scope="module", params=[5, 40], ids=lambda seconds: f"{seconds} s")
def outage(deployed: Deployment, hold: Path, request: pytest.FixtureRequest) -> Outage:
    try:
        return asyncio.run(observe_outage(deployed, request.param, JOBS, hold))
    finally:
        hold.unlink(missing_ok=True)


@pytest.mark.slow
def test_every_job_is_done_with_its_own_text_after_the_database_is_back(outage: Outage) -> None:
    states = Counter(job.get("state") for job in outage.after.values())
    assert dict(states) == {"done": len(outage.after)}
    assert len(outage.after) >= JOBS
    own = {job_id: recording.said() for job_id, recording in outage.recordings.items()}
    assert outage.said == own


def test_outage_costs_no_job_an_attempt(outage: Outage) -> None:
    attempts = Counter(job.get("attempts") for job in outage.after.values())
    assert dict(attempts) == {1: len(outage.after)}
    assert {job["attempts"] for job in outage.before.values()} <= {0, 1}


def test_requests_during_outage_are_answered_before_its_end(outage: Outage) -> None:
    assert not [one for one in outage.answers if not one.status]
    assert outage.all_answered or outage.seconds < 2 * REFUSED_S, outage.answers


def test_requests_during_outage_get_journal_unreachable(outage: Outage) -> None:
    accepted = [one for one in outage.answers if not one.refused]
    if outage.seconds < REFUSED_S + BUSY_S:  # one that waits may meet a database that is back
        accepted = [one for one in accepted if one.status not in (200, 202, 409)]
    assert not accepted


def test_refused_request_is_accepted_under_its_key_after_outage(outage: Outage) -> None:
    sent = {one.body["id"] for one in outage.again if one.status == 202}
    if outage.seconds > REFUSED_S + BUSY_S:
        assert len(sent) == 4
    assert {outage.after[job_id].get("state") for job_id in sent} <= {"done"}


def test_refused_request_leaves_no_job(outage: Outage) -> None:
    assert outage.listed == {*outage.after}


def test_event_streams_open_during_the_outage_have_no_gap_and_no_repetition(outage: Outage) -> None:
    assert len(outage.streams) == JOBS
    for job_id, heard in outage.streams.items():
        heard.check(outage.recordings[job_id])


def test_services_are_not_ready_while_the_database_is_away_and_ready_afterwards(
    outage: Outage,
) -> None:
    if outage.seconds < 2 * READY_S:
        pytest.skip("an outage this short may end before it is noticed")
    services = range(FRONTS + NODES)
    away = {number: list[int]() for number in services}
    for number, back, status in outage.probes:
        if not back:
            away[number].append(status)
    for statuses in away.values():
        assert statuses == sorted(statuses), "ready again while the database was away"
        assert statuses[-1] == 503
    last = {number: status for number, _, status in outage.probes}
    assert last == dict.fromkeys(services, 200)


@pytest.mark.slow
async def test_job_of_a_suspended_node_is_done_by_another_and_the_resumed_node_does_the_next(
    deployed: Deployment, hold: Path
) -> None:
    async with cleared(deployed) as clients:
        new_file(hold, str(HELD_AT))
        (job_id,) = await clients.submit_many(1, 2 * HELD_AT)
        busy = await clients.node_at_work()
        heard = Heard()
        following = asyncio.create_task(follow(deployed.ports[1], job_id, heard))

        async def is_heard() -> bool:
            job = await clients.job(job_id)
            return bool(job) and job["progress"]["audio_seconds_done"] > HELD_AT / 2

        async def is_begun_again() -> bool:
            return bool((await clients.job(job_id)).get("attempts", 0) > 1)

        try:
            await until_told(is_heard)
            with suspended(busy.tree()):
                await until_told(is_begun_again)
        finally:
            os.unlink(hold)
        await clients.wait_for_ends()
        await following
        assert await clients.check_ended() == {2: 1}
        heard.check(clients.jobs[job_id])
        with contextlib.ExitStack() as others:  # so that none but this one can do it
            for number in deployed.nodes:
                if (node := deployed.servers[number]) is not busy and node is not None:
                    others.enter_context(suspended(node.tree()))
            await clients.submit_many(1, 1)
            await clients.wait_for_ends()
        await clients.check_ended()


@contextlib.contextmanager
def tables_on(folder: Path, database: Cluster) -> Iterator[str]:
    """The address of a database whose tables are in this folder."""
    space, owner = folder / "space", database.files.stat()
    space.mkdir(mode=0o700)
    os.chown(space, owner.st_uid, owner.st_gid)
    with database.connected() as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        connection.execute("CREATE DATABASE small TABLESPACE small STRATEGY file_copy")
        try:
            yield database.address("small")
        finally:
            database.drop(database.address("small"))
            connection.execute("DROP TABLESPACE small")


@pytest.mark.slow
def test_full_disk_of_database_refuses_jobs_and_loses_none(
    deployed: Deployment, hold: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "scripted_hold": hold}
    with (
        tempfile.TemporaryDirectory(prefix="disk") as name,  # no folder of pytest's: it is closed
        small_disk(Path(name), DISK_MB) as disk,
        tables_on(disk, deployed.cluster) as journal,
    ):
        served = Deployment(tmp_path, deployed.cluster, 1, 1, journal=journal, **settings)
        try:
            served.start()
            asyncio.run(_fill(served, disk, hold))
        finally:
            hold.unlink(missing_ok=True)
            served.stop()


async def _fill(served: Deployment, disk: Path, hold: Path) -> None:
    async with Clients(served) as clients:
        new_file(hold, "1")
        await clients.submit_many(2, 4 * SPEED)
        await clients.node_at_work()
        answers = list[Answer]()
        fill_disk(disk)
        os.unlink(hold)
        while sum(one.status != 202 for one in answers) < REFUSALS and len(answers) < 300:
            answers.append(await clients.submit(0, Recording(next(NUMBERS), 1)))
        kinds = Counter((one.status, one.code) for one in answers)
        states = Counter(job.get("state", "?") for job in (await clients.shown()).values())
        (disk / "ballast").unlink()
        assert {*kinds} - {(202, "")} <= {(503, "journal_unreachable"), (507, "disk_full")}, kinds
        assert any(one.status != 202 for one in answers), "the disk was not full"
        assert not states["failed"]
        (after,) = await clients.submit_many(1, 1)
        await clients.wait_for_ends()
        await clients.check_ended()
        assert after in await clients.listed()
