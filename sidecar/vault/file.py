"""What the sealed SQLite files of the service have in common: versions, and the key they know."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import SettingsInvalid
from sidecar.vault.sealing import SALT, Seal, SealBroken

KEY_TABLE = "CREATE TABLE key (salt BLOB NOT NULL, check_value BLOB NOT NULL)"
"""Every file has it; a step of its first version makes it."""
_CHECK = b"vibevoice-asr"


@dataclass(frozen=True, slots=True)
class Words:
    """How a file is spoken of: what is in it (its key is derived for that, too), and the setting
    that says where it lies."""

    what: str
    setting: str


def migrate(
    database: sqlite3.Connection, migrations: Sequence[Sequence[str]], words: Words
) -> None:
    """Bring the file up to date, a version at a time, each whole or not at all.

    Raises:
        errors.SettingsInvalid: it is of a later version.
    """
    version = check_version(database, migrations, words)
    for number, statements in enumerate(migrations[version:], version + 1):
        database.execute("BEGIN IMMEDIATE")
        for statement in statements:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {number}")
        database.execute("COMMIT")


def check_version(
    database: sqlite3.Connection, migrations: Sequence[Sequence[str]], words: Words
) -> int:
    """The version of the file.

    Raises:
        errors.SettingsInvalid: it is later than this program.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SettingsInvalid(
            f"The {words.what} were written by a later version of vibevoice-asr.",
            hint=f"Use that version, or set {words.setting} to another folder.",
        )
    return int(version)


def seal_of(database: sqlite3.Connection, secret: str, words: Words) -> Seal:
    """What the file is sealed with; a new file learns what it is to be.

    Raises:
        errors.SettingsInvalid: it was sealed with another key.
    """
    rows = database.execute("SELECT salt, check_value FROM key").fetchall()
    if not rows:
        salt = os.urandom(SALT)
        seal = Seal(secret, salt, words.what)
        database.execute("INSERT INTO key VALUES (?, ?)", (salt, seal.seal(_CHECK, "key")))
        return seal
    ((salt, check_value),) = rows
    seal = Seal(secret, salt, words.what)
    try:
        seal.opened(check_value, "key")
    except SealBroken:
        raise SettingsInvalid(
            f"The {words.what} were encrypted with another key.",
            hint=f"Give the key that they were kept with, or set {words.setting} to an empty "
            "folder.",
        ) from None
    return seal
