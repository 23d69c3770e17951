"""Services that are killed, again and again; `python -m bench.kills` is the long run of it."""

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from job_event_histories import submitted
from service_process import PATIENCE_S, REPOSITORY

from bench.kills import SECONDS, SETTLES, killed
from bench.serving import KEY
from sidecar.jobs.job_record import IdempotencyKey, StartedChange
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.storage.job_journal import JOURNAL_FILE, MIGRATIONS

MIGRATE = """
import os, signal, sqlite3, sys
from pathlib import Path
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog
from sidecar.storage import job_journal

folder, key = Path(sys.argv[1]), sys.argv[2]
job_journal.MIGRATIONS += ((
    "ALTER TABLE jobs ADD COLUMN further TEXT", "CREATE INDEX jobs_further ON jobs (further)"
),)

class Dying(sqlite3.Connection):
    steps = 0
    def step(self):
        Dying.steps += 1
        if Dying.steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.set_progress_handler(self.step, 1)

connect = sqlite3.connect
sqlite3.connect = lambda *args, **more: connect(*args, **more, factory=Dying)
for at in map(int, sys.stdin):
    if not (child := os.fork()):
        SqliteJobEventLog(folder, key).close()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""For each number on its input a process that brings the file up to date, killed at that step of
SQLite's machine; how each of them ended."""


@pytest.mark.slow
async def test_accepted_jobs_end_once_with_their_own_text_although_services_are_killed_at_random(
    tmp_path: Path,
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    told, ends = await killed(tmp_path, 4, seed)
    assert ends.total() == len(told.jobs) == len(told.keys)
    assert {*ends} <= {"done", "failed"}
    assert max(told.again_s, default=0.0) <= 2 * SETTLES < SECONDS


def before_the_next_step(file: Path) -> None:
    """Make it a file of the version of this program again."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        if database.execute("PRAGMA user_version").fetchone()[0] > len(MIGRATIONS):
            database.execute("DROP INDEX jobs_further")
            database.execute("ALTER TABLE jobs DROP COLUMN further")
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@pytest.mark.posix("forks")
def test_job_journal_killed_at_a_random_step_of_a_migration_is_old_or_new_and_loses_no_job(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "jobs"
    job = submitted(durable=True, key=IdempotencyKey("mine", "digest"))
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        store.add(job)
        store.append(job.id, StartedChange())
    chance, found = random.Random(1), []
    command = [sys.executable, "-c", MIGRATE, str(folder), KEY]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(50):
            before_the_next_step(folder / JOURNAL_FILE)
            print(chance.randrange(1, 900), file=process.stdin, flush=True)
            died = int(process.stdout.readline()) < 0
            with closing(sqlite3.connect(folder / JOURNAL_FILE)) as database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                columns = {row[1] for row in database.execute("PRAGMA table_info(jobs)")}
            found += [version] * died
            assert ("further" in columns) == (version == len(MIGRATIONS) + 1), "half of it"
        process.stdin.close()
        process.wait(PATIENCE_S)
    before = found.count(len(MIGRATIONS))
    behind = len(found) - before
    assert before > 5, "it was hardly ever killed before the file was up to date"
    assert behind > 0, "nor ever between that and the rest of the start"
    before_the_next_step(folder / JOURNAL_FILE)
    with closing(SqliteJobEventLog(folder, KEY)) as store:
        assert store.by_key(job.owner, "mine") == store.get(job.id)
        assert store.get(job.id).attempts == 1
    assert not list(folder.glob("*.broken-*"))
