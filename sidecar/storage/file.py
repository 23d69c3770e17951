"""What the sealed SQLite files of the service have in common: versions, and the key they know."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import SettingsInvalid
from sidecar.storage.sealing import SALT, Seal, SealBroken

KEY_TABLE = "CREATE TABLE key (salt BLOB NOT NULL, check_value BLOB NOT NULL)"
"""Every file has it; a step of its first version makes it."""
_CHECK = b"vibevoice-asr"


@dataclass(frozen=True, slots=True)
class Words:
    """How a file is spoken of: what is in it (its key is derived for that, too), the setting that
    says where it lies, and what that setting names."""

    what: str
    setting: str
    place: str = "folder"


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
    check_known(version, migrations, words)
    return int(version)


def check_known(version: int, migrations: Sequence[Sequence[str]], words: Words) -> None:
    """Look whether this program knows a version.

    Raises:
        errors.SettingsInvalid: it is later than this program.
    """
    if version > len(migrations):
        raise SettingsInvalid(
            f"The {words.what} were written by a later version of vibevoice-asr.",
            hint=f"Use that version, or set {words.setting} to another {words.place}.",
        )


def seal_of(database: sqlite3.Connection, secret: str, words: Words) -> Seal:
    """What the file is sealed with; a new file learns what it is to be.

    Raises:
        errors.SettingsInvalid: it was sealed with another key.
    """
    row = database.execute("SELECT salt, check_value FROM key").fetchone()
    if row is None:
        seal, salt, check_value = new_seal(secret, words)
        database.execute("INSERT INTO key VALUES (?, ?)", (salt, check_value))
        return seal
    return known_seal(row[0], row[1], secret, words)


def new_seal(secret: str, words: Words) -> tuple[Seal, bytes, bytes]:
    """What something new is sealed with; and what is written there to know the key by: the salt,
    and a value to check."""
    salt = os.urandom(SALT)
    seal = Seal(secret, salt, words.what)
    return seal, salt, seal.seal(_CHECK, "key")


def known_seal(salt: bytes, check_value: bytes, secret: str, words: Words) -> Seal:
    """What something is sealed with that `new_seal` was made for.

    Raises:
        errors.SettingsInvalid: it was sealed with another key.
    """
    seal = Seal(secret, salt, words.what)
    try:
        seal.opened(check_value, "key")
    except SealBroken:
        raise SettingsInvalid(
            f"The {words.what} were encrypted with another key.",
            hint=f"Give the key that they were kept with, or set {words.setting} to an empty "
            f"{words.place}.",
        ) from None
    return seal
