"""Checks of a database before it is used: what only shows under load is said at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.errors import SettingsInvalid
from sidecar.plugins.shared_jobs.postgres_settings import CALL_TIMEOUT_S

if TYPE_CHECKING:
    import psycopg

_CHANNEL = "vibevoice_check"
_NOT_WRITABLE = """
    SELECT tablename FROM pg_tables WHERE schemaname = 'vibevoice' AND tablename <> 'version'
        AND NOT (SELECT bool_and(has_table_privilege(format('vibevoice.%I', tablename), name))
            FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) name) ORDER BY 1"""


def check_server(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
    """Check, over two connections to the address of a database, that it suits shared jobs.

    Raises:
        errors.SettingsInvalid: a pool gives each transaction another connection, or the database
            is read-only or has no notifications.
    """
    pids = [
        one.execute("SELECT pg_backend_pid()").fetchall()
        for one in (connection, other, connection, connection)
    ]
    if pids[0] == pids[1] or not pids[0] == pids[2] == pids[3]:
        raise SettingsInvalid(
            "The database for jobs is behind a pool that changes connections between transactions.",
            hint="Set pool_mode=session in PgBouncer, or set VIBEVOICE_JOURNAL to PostgreSQL "
            "itself.",
        )
    read_only = "SELECT current_setting('transaction_read_only')::boolean"
    if connection.execute(read_only).fetchone() == (True,):
        raise SettingsInvalid(
            "The database for jobs is read-only, like a standby.",
            hint="Set VIBEVOICE_JOURNAL to the primary; with several hosts add "
            "'target_session_attrs=read-write'.",
        )
    if not _notifies(connection, other):
        raise SettingsInvalid(
            "The database for jobs has no notifications (LISTEN and NOTIFY).",
            hint="Set VIBEVOICE_JOURNAL to PostgreSQL itself.",
        )


def check_rights(cursor: psycopg.Cursor[Any]) -> None:
    """Check that the role may change the tables.

    Raises:
        errors.SettingsInvalid: it may not.
    """
    if row := cursor.execute(_NOT_WRITABLE).fetchone():
        raise SettingsInvalid(
            f"The role in VIBEVOICE_JOURNAL may not change the table 'vibevoice.{row[0]}'.",
            hint="GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA vibevoice to it, or "
            "set the role that owns them.",
        )


def _notifies(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    from psycopg import DatabaseError, OperationalError

    try:
        connection.execute(f"LISTEN {_CHANNEL}")
        other.execute("SELECT pg_notify(%s, '')", (_CHANNEL,))
        heard = next(connection.notifies(timeout=CALL_TIMEOUT_S, stop_after=1), None)
        connection.execute(f"UNLISTEN {_CHANNEL}")
    except OperationalError:
        raise
    except DatabaseError:
        return False
    return heard is not None
