"""A real PostgreSQL for tests: a cluster in a folder of its own, a database for each test.

To create, migrate and drop one takes a tenth of a second of processor time. So those that tests
leave with their tables as they were, and nobody connected, are emptied and lent again.

Debian's package `postgresql` has it. It refuses to be root's, and then is `postgres`'s or nobody's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from not_tested import missing, missing_extra
from service_process import PATIENCE_S, free_port, wait_until
from systems import IN_WINDOWS

if TYPE_CHECKING:
    import pwd

KEY = "a-key-of-a-test-and-of-nobody-else"
"""What the services of a test seal with."""
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_QUICK = ("fsync=off", "full_page_writes=off", "autovacuum=off")
_MIGRATED = "migrated"
"""The database of which those that are lent are copies."""
_SCHEMA = """SELECT (SELECT count(*) FROM pg_db_role_setting), array[
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_class),
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_attribute),
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_proc),
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_trigger),
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_namespace)]"""
"""What changes with tables, functions and settings."""
_SIZE = "SELECT pg_database_size(current_database())"
_GROWTH = 2 << 20
"""Bytes; who leaves more dead rows than that behind makes others slow."""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'vibevoice' ORDER BY 1"
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
_LEAVING_S = 0.2
"""How long who has disconnected may still be seen."""


@contextmanager
def suspended(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Processes do nothing meanwhile."""
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Cluster:
    """A server that is started, stopped and killed as the test wants."""

    def __init__(
        self,
        binaries: Path,
        folder: Path,
        *,
        quick: bool = True,
        follows: Cluster | None = None,
        at: str = "127.0.0.1",
    ) -> None:
        """``quick``: it need not survive its machine. ``follows``: another, of which it has all
        that is committed, a moment later. ``at``: an address that it has beside the loopback's."""
        self._binaries, self._folder, self._at = binaries, folder, at
        self._more = _QUICK if quick else ()
        self._free: list[str] = []
        self._schema: object = None
        self._size = 0
        self._kept: dict[str, list[str]] = {}
        """The rows that tables have after the migrations."""
        self._as: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder}
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        stops = 'read _; "$0" -D data -m immediate -s stop; cd /; rm -rf "$1"'
        self._guard = subprocess.Popen(
            ["sh", "-c", stops, binaries / "pg_ctl", folder],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._as,
        )
        self.port = free_port()
        if follows is None:
            self._run("initdb", "-D", "data", "-U", "vibevoice", "-A", "trust", "-E", "UTF8", "-N")
        else:
            source = f"host=127.0.0.1 port={follows.port} user=vibevoice"
            self._run("pg_basebackup", "-D", "data", "-R", "-N", "-c", "fast", "-d", source)
        with (folder / "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        self.start()

    def close(self) -> None:
        """Leave nothing; the same happens when the tests are killed."""
        self._guard.communicate()

    @property
    def files(self) -> Path:
        """What it has on the disk."""
        return self._folder / "data"

    def start(self) -> None:
        """Have it answer."""
        settings = [f"-c {one}" for one in (*self._more, f"port={self.port}")]
        listens = f"-c listen_addresses=127.0.0.1,{self._at}"
        options = " ".join([*settings, listens, f"-k {self._folder}"])
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Have it answer nobody; ``immediate``: as if its machine had failed."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    @contextmanager
    def stopped(self, mode: str = "fast") -> Iterator[None]:
        """Have it answer nobody meanwhile."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of its processes meanwhile: connections stay open, and nothing answers."""
        postmaster = psutil.Process(
            int((self.files / "postmaster.pid").read_text("utf-8").split()[0])
        )
        postmaster.suspend()  # first, so that it starts no more of them
        with suspended([postmaster, *postmaster.children(recursive=True)]):
            yield

    @contextmanager
    def standby(self) -> Iterator[Cluster]:
        """Another server that has what this one has."""
        with _folder() as folder, closing(Cluster(self._binaries, folder, follows=self)) as server:
            yield server

    def promote(self) -> None:
        """Have a standby be the one that is written to."""
        self._run("pg_ctl", "-D", "data", "-w", "promote")

    def address(self, database: str, at: str = "127.0.0.1") -> str:
        """Where services find a database; the password is there to be kept to themselves."""
        return f"postgresql://vibevoice:not-for-logs@{at}:{self.port}/{database}"

    @contextmanager
    def connected(self, database: str = "postgres") -> Iterator[Any]:
        """A connection of the test's own."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            yield connection

    def waiting_for_locks(self, address: str) -> int:
        """Return how many sessions of a database wait for what another has locked."""
        with self.connected() as look:
            query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = %s AND wait_event_type = 'Lock'"""
            return int(look.execute(query, (address.rsplit("/", 1)[1],)).fetchone()[0])

    def executing(self, address: str, function: str) -> int:
        """Return how many sessions of a database execute a function."""
        with self.connected() as look:
            query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = %s AND state = 'active' AND query LIKE %s"""
            values = address.rsplit("/", 1)[1], f"%{function}%"
            return int(look.execute(query, values).fetchone()[0])

    def new_database(self) -> str:
        """The address of one that is empty."""
        name = f"t{uuid.uuid4().hex}"
        with self.connected() as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.address(name)

    def lend(self) -> str:
        """Return the address of a database with migrated tables, for one test."""
        if not self._free:
            if self._schema is None:
                self._migrate()
            name = f"t{uuid.uuid4().hex}"
            with self.connected() as connection:
                connection.execute(
                    f"CREATE DATABASE {name} TEMPLATE {_MIGRATED} STRATEGY file_copy"
                )
            return self.address(name)
        return self._free.pop()

    def take_back(self, address: str) -> None:
        """Empty the tables of one that was lent; drop it if anything else of it has changed."""
        (self._free.append if self._emptied(address) else self.drop)(address)

    def _migrate(self) -> None:
        from sidecar.plugins.shared_jobs.postgres_database import migrate_postgres

        with self.connected() as connection:
            connection.execute(f"CREATE DATABASE {_MIGRATED} STRATEGY file_copy")
        migrate_postgres(self.address(_MIGRATED), KEY)
        with self.connected(_MIGRATED) as connection:
            connection.execute("DELETE FROM vibevoice.key")
            self._schema = connection.execute(_SCHEMA).fetchone()
            (self._size,) = connection.execute(_SIZE).fetchone()
            for (table,) in connection.execute(_TABLES).fetchall():
                rows = connection.execute(f"SELECT t::text FROM vibevoice.{table} t").fetchall()
                self._kept[table] = [row for (row,) in rows]

    def _emptied(self, address: str) -> bool:
        import psycopg

        name = address.rsplit("/", 1)[1]
        try:
            with self.connected(name) as connection:
                # real time: as below
                ends = time.monotonic() + _LEAVING_S
                while connection.execute(_OTHERS, (name,)).fetchone() != (0,):
                    if time.monotonic() > ends:  # real time: as below
                        return False
                    # real time: who is still there costs a new database, and no test
                    time.sleep(_LEAVING_S / 20)
                (size,) = connection.execute(_SIZE).fetchone()
                schema = connection.execute(_SCHEMA).fetchone()
                if schema != self._schema or size > self._size + _GROWTH:
                    return False
                with connection.transaction():
                    connection.execute("SET LOCAL session_replication_role = replica")  # no trigger
                    for table, rows in self._kept.items():
                        connection.execute(f"DELETE FROM vibevoice.{table}")
                        for row in rows:
                            connection.execute(
                                f"INSERT INTO vibevoice.{table} SELECT (%s::vibevoice.{table}).*",
                                (row,),
                            )
                    connection.execute("SELECT setval(seqrelid, 1, false) FROM pg_sequence")
        except psycopg.Error:
            return False
        return True

    def drop(self, address: str) -> None:
        """One that is needed no more, whoever is still connected; PostgreSQL itself waits five
        seconds for who is told to go."""
        import psycopg

        with self.connected() as connection:

            def dropped() -> bool:
                with suppress(psycopg.errors.ObjectInUse):
                    connection.execute(f"DROP DATABASE {address.rsplit('/', 1)[1]} WITH (FORCE)")
                    return True
                return False

            wait_until(dropped, "everybody has gone")

    def _run(self, program: str, *words: str) -> None:
        patience = {"PGCTLTIMEOUT": str(round(PATIENCE_S))}
        command, env = [self._binaries / program, *words], {**os.environ, **patience}
        subprocess.run(command, check=True, env=env, **self._as)


@contextmanager
def cluster(*, quick: bool = True, at: str = "127.0.0.1") -> Iterator[Cluster]:
    """A server for as long as this lasts; the test is skipped, loudly, where there is none."""
    if IN_WINDOWS:
        pytest.skip("posix: PostgreSQL's server")
    found = shutil.which("initdb")
    binaries = next(iter(_BINARIES), Path(found).resolve().parent if found else None)
    if binaries is None:
        pytest.skip(missing("PostgreSQL", "postgresql"))
    pytest.importorskip("psycopg", reason=missing_extra("psycopg"))
    with _folder() as folder, closing(Cluster(binaries, folder, quick=quick, at=at)) as server:
        yield server


@contextmanager
def _folder() -> Iterator[Path]:
    """With a short name, for sockets have no long ones."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _unprivileged() -> pwd.struct_passwd:
    import pwd  # here, because Windows, where nobody is root, has none

    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
