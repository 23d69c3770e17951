"""Calls read no more of a database with many jobs than of one with few, whatever PostgreSQL knows
of its tables: tests start it without autovacuum, which would analyze them a minute later."""

from typing import Any

import psycopg
import pytest
from postgres import KEY

from sidecar.plugins.shared_jobs.postgres_database import migrate_postgres

FEW, MANY = 500, 8000
FILL = """
    INSERT INTO vibevoice.owners SELECT 'owner ' || n, 0 FROM generate_series(0, 49) n
        ON CONFLICT DO NOTHING;
    INSERT INTO vibevoice.services (id, works) VALUES ('node', true) ON CONFLICT DO NOTHING;
    INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, work_s, state, ended, touched)
        SELECT state || ' ' || n, 'owner ' || n % 50, '', true, 1, state, ended, ended
        FROM generate_series({first}, {last}) n, (VALUES {states}) states (state, ended)"""
WAITING, ENDED = "('queued', NULL::timestamptz)", "('done', now())"
CALLS = (
    "beat_1('node', true, false)",
    "expire_1('{node}', '{NULL}')",
    """submit_1('new', 'owner 7', NULL, '', true, true, 'auto', '{}', 1, 1, 1, NULL, NULL,
        NULL, NULL, 1000000)""",
    "claim_1('node', 'another token', '{}', 9, '{}', 0, 60)",
    "put_off_1('token', 60, false, '')",
    """report_1('queued 9', 'token', 0, '{1}', '{1}', '{begun}', '{NULL}', '{NULL}',
        'running', 0, 0, false, NULL)""",
    "leave_1('node/queued 7', 'request', 9)",
    "take_1('owner 7', 'request', 'node/token')",
    "delete_overdue_1(20)",
    "cancel_1('queued 7')",
    "delete_1('queued 7')",
    "edit_1('done 7', 0, '', 1, '', 1)",
    "renew_1('done 7', 0)",
)


def read(asks: psycopg.Connection[Any], call: str) -> int:
    """Blocks that a call reads when it is repeated; it changes nothing."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM vibevoice.{call}"
    for _ in range(2):
        with asks.transaction(force_rollback=True):
            plan = asks.execute(explain).fetchone()[0][0]["Plan"]  # type: ignore[index]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("analyzed", ["never", "before they came", "now"])
def test_calls_read_no_more_of_many_jobs_than_of_few(journal: str, analyzed: str) -> None:
    migrate_postgres(journal, KEY)
    with psycopg.connect(journal, autocommit=True) as asks:
        if analyzed == "before they came":
            asks.execute(FILL.format(first=-MANY, last=-1, states=ENDED))
            asks.execute("ANALYZE")
        costs = list[dict[str, int]]()
        for first, last in ((1, FEW), (FEW + 1, MANY)):
            asks.execute(FILL.format(first=first, last=last, states=f"{WAITING}, {ENDED}"))
            asks.execute(
                "UPDATE vibevoice.jobs SET claim = 'token', node = 'node' WHERE id = 'queued 9'"
            )
            if analyzed == "now":
                asks.execute("ANALYZE")
            costs.append({call: read(asks, call) for call in CALLS})
    few, many = costs
    assert {
        call: (few[call], many[call]) for call in CALLS if many[call] > 2 * few[call] + 20
    } == {}


def test_queue_order_reads_each_job_a_few_times_without_statistics(journal: str) -> None:
    migrate_postgres(journal, KEY)
    with psycopg.connect(journal, autocommit=True) as asks:
        asks.execute(FILL.format(first=1, last=2000, states=WAITING))
        assert read(asks, "line_1()") < 5 * 2000, "a block or two of it, and of its owner"
