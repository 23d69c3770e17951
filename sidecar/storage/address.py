"""Where the database is: the address that the settings give, which nobody else is told."""

from __future__ import annotations

import sys
from pathlib import Path

from sidecar import private
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid

_LONGEST = 4096


def journal_address(settings: Settings) -> str | None:
    """The address of the database that several services share; None where there is none.

    Raises:
        errors.SettingsInvalid: there are two, or none in the file, or others may read that.
    """
    if settings.journal is not None and settings.journal_file is not None:
        raise SettingsInvalid(
            "The settings journal and journal_file each give an address.",
            hint="Keep one of them.",
        )
    if settings.journal is not None:
        return settings.journal.get_secret_value()
    if settings.journal_file is not None:
        return _read(settings.journal_file)
    return None


def _read(path: Path) -> str:
    address = private.read(path, _LONGEST, private=True).decode("utf-8", "replace").strip()
    if not address:
        raise SettingsInvalid(f"The file {path} holds no address.")
    return address


def check_address(address: str) -> None:
    """Say what is wrong with an address, without saying it.

    Raises:
        errors.SettingsInvalid: it is none, or what speaks to it is not installed or does not run
            on this system.
    """
    if sys.platform == "win32":  # psycopg cannot wait for sockets on the event loop of Windows
        raise SettingsInvalid(
            "Jobs cannot be kept in PostgreSQL by a service that runs on Windows.",
            hint="Run the service on Linux or macOS, or start it without --journal.",
        )
    try:
        import psycopg
        import psycopg_pool  # noqa: F401
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise SettingsInvalid(
            f"Jobs are to be kept in PostgreSQL, and the package '{error.name}' is missing.",
            hint="pip install 'vibevoice-asr[postgres]', or start without --journal.",
        ) from None
    try:
        if not address.startswith(("postgresql://", "postgres://")):
            raise ValueError
        conninfo_to_dict(address)
    except (ValueError, psycopg.Error):
        raise SettingsInvalid(
            "The setting 'journal' is no address of a PostgreSQL database.",
            hint="Write it like postgresql://vibevoice@db.example:5432/vibevoice.",
        ) from None


def said(error: Exception) -> str:
    """Return the first line of an error of psycopg; no address in it has a password."""
    return str(error).strip().partition("\n")[0]
