"""Runner of the migrations, and the key that the tables know.

Every statement and migration names the schema `vibevoice`: the database may have others' tables.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sidecar.errors import SettingsInvalid
from sidecar.storage import file
from sidecar.storage.address import check_address, said
from sidecar.storage.sealing import Seal
from sidecar.storage.timing import LONGEST_PAUSE_S

if TYPE_CHECKING:
    import psycopg

START_S = 30.0
"""So long a database may take to come up beside a service."""
STEP_S = 60.0
"""Limit for a statement of a migration: a table may be large, and another service may migrate."""
LOCK = 0x766962656A6F6273
"""Who holds this lock brings the tables up to date."""
SESSIONS_CHANNEL = "vibevoice_sessions"
"""Where it is told that a live session was left by its service, or is to be."""
WORDS = file.Words("kept jobs", "VIBEVOICE_JOURNAL", "database")


def migrations() -> Sequence[str]:
    """Return what makes each version of the tables out of the one before.

    A file once released never changes; the next has the next number.
    """
    folder = files("sidecar.storage") / "migrations"
    steps = {one.name: one for one in folder.iterdir() if one.name.endswith(".sql")}
    return [steps[name].read_text("utf-8") for name in sorted(steps)]


def migrate(address: str, secret: str, what: str = WORDS.what, patience_s: float = START_S) -> Seal:
    """Bring the tables up to date, one service at a time; return the seal of ``what``.

    This waits for the database, at most ``patience_s`` until it answers.

    Raises:
        errors.SettingsInvalid: the address is none, or the database does not answer, is of a later
            version, or has another key.
    """
    check_address(address)
    import psycopg

    try:
        with _connected(address, patience_s) as connection, connection.transaction():
            cursor = connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            _migrate(cursor)
            return _seal(cursor, secret, what)
    except psycopg.OperationalError as error:
        raise _silent(error) from None
    except psycopg.Error as error:
        raise SettingsInvalid(
            f"The database for jobs cannot be used: {said(error)}.",
            hint="The role in VIBEVOICE_JOURNAL has to be allowed to make a schema in it.",
        ) from None


def look(address: str) -> str:
    """Return the version, host and name of the database.

    Raises:
        errors.SettingsInvalid: nothing answers, or the address is none.
    """
    check_address(address)
    with _connected(address) as connection:
        info = connection.info
        version = f"{info.server_version // 10000}.{info.server_version % 10000}"
        return f"PostgreSQL {version} at {info.host}, database {info.dbname}"


@contextmanager
def _connected(address: str, patience_s: float = 0.0) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection, made by as many attempts as fit into ``patience_s``.

    Raises:
        errors.SettingsInvalid: the database does not answer.
    """
    import psycopg

    from sidecar.storage.postgres_connection import OPTIONS

    until = time.monotonic() + patience_s
    while True:
        try:
            connection = psycopg.connect(address, **OPTIONS)
            break
        except psycopg.Error as error:
            if time.monotonic() >= until:
                raise _silent(error) from None
            time.sleep(LONGEST_PAUSE_S)
    with connection:
        limit = f"{round(STEP_S * 1000)}"
        connection.execute(f"SET statement_timeout = {limit}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {limit}")
        yield connection


def _silent(error: Exception) -> SettingsInvalid:
    return SettingsInvalid(
        f"The database for jobs does not answer: {said(error)}.",
        hint="Start it, or set VIBEVOICE_JOURNAL to one that can be reached.",
    )


def _migrate(cursor: Any) -> None:
    cursor.execute("SELECT to_regclass('vibevoice.version') IS NOT NULL")
    (there,) = cursor.fetchone()
    if not there:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS vibevoice")
        cursor.execute("CREATE TABLE vibevoice.version (version integer NOT NULL)")
        cursor.execute("INSERT INTO vibevoice.version VALUES (0)")
    cursor.execute("SELECT version FROM vibevoice.version")
    (version,) = cursor.fetchone()
    steps = migrations()
    file.check_known(version, steps, WORDS)
    for step in steps[version:]:
        cursor.execute(step)
    if version < len(steps):
        cursor.execute("UPDATE vibevoice.version SET version = %s", (len(steps),))


def _seal(cursor: Any, secret: str, what: str) -> Seal:
    cursor.execute("SELECT salt, check_value FROM vibevoice.key")
    row = cursor.fetchone()
    if row is None:
        seal, salt, check_value = file.new_seal(secret, WORDS)
        cursor.execute("INSERT INTO vibevoice.key VALUES (%s, %s)", (salt, check_value))
    else:
        salt = row[0]
        seal = file.known_seal(salt, row[1], secret, WORDS)
    return seal if what == WORDS.what else Seal(secret, salt, what)
