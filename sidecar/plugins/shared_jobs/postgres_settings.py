"""Address of PostgreSQL, and time limits of its calls."""

import sys

from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.installation import install_command
from sidecar.plugins.shared_jobs.settings import SharedJobSettings


def shared_address(settings: Settings) -> str:
    """Return the address of the database in which a service shares its jobs.

    Raises:
        errors.SettingsInvalid: none is set, or the file contains no address, or other users may
            read it.
    """
    group = SharedJobSettings.of(settings)
    if group.journal is None:
        raise SettingsInvalid(
            f"The role '{group.role}' requires a shared job queue.",
            hint="Set VIBEVOICE_JOURNAL (--journal postgresql://…), or omit the role.",
        )
    address = read_secret(group.journal)
    if not address:
        raise SettingsInvalid(f"{secret_origin(group.journal, 'journal')} has no address.")
    return address


def check_address(address: str) -> None:
    """Check an address, without repeating it in the error.

    Raises:
        errors.SettingsInvalid: it is invalid, or its driver is not installed or does not run on
            this system.
    """
    if sys.platform == "win32":  # psycopg cannot wait for sockets on the event loop of Windows
        raise SettingsInvalid(
            "A service on Windows cannot keep its jobs in PostgreSQL.",
            hint="Run the service on Linux or macOS, or start it without --journal.",
        )
    try:
        import psycopg
        import psycopg_pool  # noqa: F401
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise SettingsInvalid(
            f"The setting 'journal' needs the package '{error.name}', which is not installed.",
            hint=f"{install_command('postgres')}, or start without --journal.",
        ) from None
    try:
        if not address.startswith(("postgresql://", "postgres://")):
            raise ValueError
        conninfo_to_dict(address)
    except (ValueError, psycopg.Error):
        raise SettingsInvalid(
            "The setting 'journal' is not the address of a PostgreSQL database.",
            hint="Write it like postgresql://vibevoice@db.example:5432/vibevoice.",
        ) from None


def error_first_line(error: Exception) -> str:
    """Return the first line of a psycopg error, with the next if it ends in a colon; the class of
    an error without a text. An address in it has no password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return f"{text} {lines[1]}" if text.endswith(":") and len(lines) > 1 else text.rstrip(":")


CONNECT_TIMEOUT_S = 2
"""Limit for a server to accept a connection; whole seconds, as libpq requires."""
LOCK_TIMEOUT_S = 2.0
"""Limit for a lock: below `STATEMENT_TIMEOUT_S`, so that the error names the lock."""
STATEMENT_TIMEOUT_S = 3.0
"""Limit for a statement (`statement_timeout`): the server gives up before the caller."""
SHORT_CALL_BYTES = 1 << 18
"""Values or rows of a call whose transfer fits into its limits."""
MIN_LINE_BYTES_PER_S = 125_000
"""Slowest line to the database, 1 Mbit/s: a call with more bytes gets as much more time. It holds
no lock meanwhile: a statement begins with its last value, and a query takes none."""
CALL_TIMEOUT_S = 4.5
"""Limit for a call with waits and retries: a client gets the error within 5 s."""
IDLE_CONNECTION_S = 5.0
"""Time without need for a connection after which the pool closes one. The pool uses
connections in turn. On one that is seldom used the server plans statements anew, which
takes longer than a call."""
LISTEN_CHECK_INTERVAL_S = 2.0
"""Interval of checks of a listening connection: a frozen server sends no error by itself."""
MIN_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S = 0.1, 1.0
"""Back-off between attempts: a restart takes tenths of a second, an outage may be long."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVES = 3, 1, 3
"""TCP keepalive: a dead connection without traffic is detected within 6 s."""
SEND_TIMEOUT_S = 30.0
"""Limit for a server to send to a client that stands still: other notifications wait meanwhile."""
TCP_USER_TIMEOUT_S = 1.5
"""Limit for data that the other end does not acknowledge (`tcp_user_timeout`): three
retransmissions, and short enough to repeat a heartbeat before its service expires."""
