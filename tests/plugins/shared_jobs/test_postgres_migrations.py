"""Migrations of the tables: the first and the next, of every service, and in the wheel."""

import asyncio
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from postgres import KEY, Cluster

from sidecar.errors import SettingsInvalid
from sidecar.plugins.shared_jobs import postgres_database

ROOT = Path(__file__).parents[3]
FOLDER = files("sidecar.plugins.shared_jobs") / "migrations"
NAMES = sorted(one.name for one in FOLDER.iterdir())
TABLES = """SELECT 'column', table_name || '.' || column_name, data_type || ' ' || is_nullable
        || coalesce(' ' || column_default, '')
    FROM information_schema.columns WHERE table_schema = 'vibevoice'
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'vibevoice'
    UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'vibevoice'::regnamespace
    ORDER BY 1, 2"""


@pytest.fixture
def journal(fresh_journal: str) -> str:
    """The address of a database without tables."""
    return fresh_journal


def tables(address: str) -> list[tuple[str, ...]]:
    with psycopg.connect(address) as look:
        return look.execute(TABLES).fetchall()


def version(address: str) -> int:
    with psycopg.connect(address) as look:
        row = look.execute("SELECT version FROM vibevoice.version").fetchone()
        assert row is not None
        return int(row[0])


def test_next_migration_runs_once_on_tables_of_previous_version(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    steps = [*postgres_database.migrations(), "CREATE TABLE vibevoice.further (one int)"]
    monkeypatch.setattr(postgres_database, "migrations", lambda: steps)
    for _ in range(2):
        postgres_database.migrate_postgres(journal, KEY)
        assert version(journal) == len(steps)
    assert ("column", "further.one", "integer YES") in tables(journal)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_services_started_at_once_migrate_one_after_the_other(
    journal: str, isolation: str
) -> None:
    """``isolation``: the default of the database."""
    with psycopg.connect(journal, autocommit=True) as database:
        name = database.info.dbname
        database.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    starts = (asyncio.to_thread(postgres_database.migrate_postgres, journal, KEY) for _ in range(4))
    await asyncio.gather(*starts)
    assert version(journal) == len(NAMES)


def test_call_once_that_failed_is_executed_again_and_after_success_by_no_other_service(
    journal: str,
) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    made = list[str]()

    def broken() -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        postgres_database.call_once(journal, "uploads", broken)
    for service in ("one", "other"):
        postgres_database.call_once(journal, "uploads", lambda: made.append(service))  # noqa: B023
    assert made == ["one"]


def test_jobs_and_events_tables_have_a_low_autovacuum_scale_factor(journal: str) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    with psycopg.connect(journal) as look:
        rows = look.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = 'vibevoice'::regnamespace
                AND reloptions @> '{autovacuum_vacuum_scale_factor=0.02}' ORDER BY 1"""
        ).fetchall()
    assert rows == [("events",), ("jobs",)]


def test_tables_of_later_version_or_other_key_are_refused(journal: str) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    with pytest.raises(SettingsInvalid, match="key"):
        postgres_database.migrate_postgres(journal, KEY[::-1])
    with psycopg.connect(journal) as other:
        other.execute("UPDATE vibevoice.version SET version = version + 1")
    with pytest.raises(SettingsInvalid, match="later version"):
        postgres_database.migrate_postgres(journal, KEY)


def test_tables_of_release_0_2_are_refused_with_the_next_step_and_kept(journal: str) -> None:
    with psycopg.connect(journal) as earlier:
        earlier.execute(
            """CREATE SCHEMA vibevoice
                CREATE TABLE version (version integer NOT NULL)
                CREATE TABLE key (salt bytea NOT NULL, check_value bytea NOT NULL)
                CREATE TABLE owners (owner text PRIMARY KEY)
                CREATE TABLE jobs (id text NOT NULL UNIQUE)"""
        )
        earlier.execute("INSERT INTO vibevoice.version VALUES (10)")
    before = tables(journal)
    with pytest.raises(SettingsInvalid, match=r"release 0\.2\.0") as refused:
        postgres_database.migrate_postgres(journal, KEY)
    assert "later" not in refused.value.detail
    assert "docs/upgrading.md" in refused.value.hint
    assert (version(journal), tables(journal)) == (10, before)


def test_failed_migration_leaves_previous_version(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    steps = postgres_database.migrations()
    broken = [*steps, "CREATE TABLE vibevoice.half (); SELECT nothing"]
    with monkeypatch.context() as later:
        later.setattr(postgres_database, "migrations", lambda: broken)
        with pytest.raises(SettingsInvalid, match="cannot be used"):
            postgres_database.migrate_postgres(journal, KEY)
    assert version(journal) == len(steps)
    assert not [row for row in tables(journal) if "half" in row[1]]


def test_migration_without_patience_is_refused_while_database_is_away(
    postgres_cluster: Cluster, journal: str
) -> None:
    with postgres_cluster.stopped():
        with pytest.raises(SettingsInvalid, match="does not answer"):
            postgres_database.migrate_postgres(journal, KEY, patience_s=0.0)
        with pytest.raises(SettingsInvalid, match="does not answer"):
            postgres_database.describe_database(journal)
    assert "PostgreSQL" in postgres_database.describe_database(journal)


def test_migrations_are_numbered_without_gap_and_matched_by_the_package_data_patterns() -> None:
    assert [int(name[:4]) for name in NAMES] == list(range(1, len(NAMES) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", name) for name in NAMES)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["sidecar"]
    packed = {path.name for pattern in patterns for path in (ROOT / "sidecar").glob(pattern)}
    assert packed >= {*NAMES}


def test_monitoring_queries_of_the_deploy_folder_run_on_the_migrated_tables(journal: str) -> None:
    postgres_database.migrate_postgres(journal, KEY)
    text = (ROOT / "deploy/postgres/monitoring.sql").read_text("utf-8")
    queries = [query for query in text.split(";") if query.strip()]
    assert len(queries) == 5
    with psycopg.connect(journal) as asks:
        for query in queries:
            asks.execute(query)


def test_keda_counts_waiting_and_running_jobs_only(journal: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")
    scaled = ROOT / "deploy/k8s/overlays/cluster/scaledobject.yaml"
    (trigger,) = next(yaml.safe_load_all(scaled.read_text("utf-8")))["spec"]["triggers"]
    submit = """SELECT vibevoice.submit_1(
        %s, 'owner', NULL, '', true, true, 'auto', '{}', 10, 10, 10, NULL, NULL, NULL, NULL, 9)"""
    postgres_database.migrate_postgres(journal, KEY)
    with psycopg.connect(journal, autocommit=True) as asks:
        counts = []
        for change, values in (
            (submit, ("first",)),
            (submit, ("second",)),
            ("SELECT vibevoice.beat_1('node', true, false)", ()),
            ("SELECT vibevoice.claim_1('node', 'token', '{}', 9, '{}', 0, 60)", ()),
            ("SELECT vibevoice.cancel_1(%s)", ("first",)),
        ):
            asks.execute(change, values)
            counts.append(asks.execute(trigger["metadata"]["query"]).fetchone())
    assert counts == [(1,), (2,), (2,), (2,), (1,)]
