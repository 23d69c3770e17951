"""What a service says at its start about a database that does not suit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from not_tested import missing
from postgres import KEY, Cluster
from service_process import free_port, wait_until

from sidecar.errors import SettingsInvalid
from sidecar.plugins.shared_jobs.postgres_database import describe_database, migrate_postgres

Pool = Callable[[str], str]


@pytest.fixture
def pool(postgres_cluster: Cluster, journal: str, tmp_path: Path) -> Iterator[Pool]:
    """A pool in front of a database; called with its mode, it returns its address."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip(missing("PgBouncer", "pgbouncer"))
    begun: list[subprocess.Popen[bytes]] = []
    name, port = journal.rsplit("/", 1)[1], free_port()

    def begin(mode: str) -> str:
        settings = tmp_path / "pool.ini"
        settings.write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={postgres_cluster.port} user=vibevoice\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
            f"auth_type=any\npool_mode={mode}\n",
            "utf-8",
        )
        command = [program, str(settings)]
        if os.geteuid() == 0:  # it refuses to be root's
            tmp_path.parent.chmod(0o755)
            command += ["-u", "nobody"]
        begun.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        address = f"postgresql://vibevoice@127.0.0.1:{port}/{name}"

        def answers() -> bool:
            try:
                psycopg.connect(address).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, "the pool answers")
        return address

    yield begin
    for one in begun:
        one.kill()
        one.wait()


def migrate(address: str) -> None:
    migrate_postgres(address, KEY, patience_s=0.0)


STARTS = pytest.mark.parametrize("start", [migrate, describe_database])


@STARTS
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_pool_that_changes_connections_between_transactions_is_refused_with_the_mode_that_suits(
    pool: Pool, mode: str, start: Callable[[str], object]
) -> None:
    address = pool(mode)
    with pytest.raises(SettingsInvalid, match="pool that changes connections") as refused:
        start(address)
    assert "pool_mode=session" in refused.value.hint


def test_pool_in_session_mode_suits(pool: Pool) -> None:
    address = pool("session")
    migrate(address)
    assert "PostgreSQL" in describe_database(address)


@STARTS
def test_standby_of_a_migrated_database_is_refused_as_read_only(
    journal: str, postgres_cluster: Cluster, start: Callable[[str], object]
) -> None:
    migrate(journal)
    with (
        postgres_cluster.standby() as standby,
        pytest.raises(SettingsInvalid, match="read-only, like a standby") as refused,
    ):
        start(standby.address(journal.rsplit("/", 1)[1]))
    assert "primary" in refused.value.hint


@STARTS
def test_database_without_notifications_is_refused(
    fresh_journal: str, start: Callable[[str], object]
) -> None:
    with psycopg.connect(fresh_journal, autocommit=True) as database:
        database.execute(
            """CREATE FUNCTION public.pg_notify(text, text) RETURNS void
                LANGUAGE plpgsql AS 'BEGIN RAISE feature_not_supported; END'"""
        )
        name = database.info.dbname
        database.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    with pytest.raises(SettingsInvalid, match=r"no notifications \(LISTEN and NOTIFY\)"):
        start(fresh_journal)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ((), "Let the role in VIBEVOICE_JOURNAL create the schema 'vibevoice', or own it."),
        (("USAGE ON SCHEMA vibevoice",), "Let the role in VIBEVOICE_JOURNAL create"),
        (
            ("USAGE ON SCHEMA vibevoice", "SELECT ON ALL TABLES IN SCHEMA vibevoice"),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA vibevoice",
        ),
    ],
)
def test_role_without_rights_on_the_tables_is_refused_with_those_that_it_needs(
    fresh_journal: str, rights: tuple[str, ...], said: str
) -> None:
    migrate(fresh_journal)
    role = f"other_{fresh_journal.rsplit('/', 1)[1]}"
    with psycopg.connect(fresh_journal, autocommit=True) as database:
        database.execute(f"CREATE ROLE {role} LOGIN")
        for one in rights:
            database.execute(f"GRANT {one} TO {role}")
        with pytest.raises(SettingsInvalid) as refused:
            migrate(fresh_journal.replace("vibevoice:", f"{role}:", 1))
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")
    assert said in refused.value.hint
