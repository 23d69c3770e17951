"""Secrets in settings: as they are, in a file (``@FILE``), or on standard input (``@-``)."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from sidecar import files
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid

STDIN = "@-"
MAX_SECRET_BYTES = 1 << 16
_MAX_LINE = 4096


def read_secret(given: SecretStr) -> str:
    """Return what a setting says, or the file that it names, which nobody else may read.

    Raises:
        errors.SettingsInvalid: the file is not there, or others may read it.
    """
    said = given.get_secret_value()
    if said == STDIN:
        return _read_line()
    if not said.startswith("@"):
        return said
    path = Path(said[1:]).expanduser()
    return files.read(path, MAX_SECRET_BYTES, private=True).decode("utf-8", "replace").strip()


def secret_origin(given: SecretStr, setting: str) -> str:
    """Return where a secret comes from, for people: its file, or the setting that says it."""
    said = given.get_secret_value()
    if said == STDIN:
        return "The first line of standard input"
    return f"The file {said[1:]}" if said.startswith("@") else f"The setting '{setting}'"


def take_stdin_secret(settings: Settings) -> Settings:
    """Return the settings with the secret that comes by standard input, which is read once.

    Raises:
        errors.SettingsInvalid: there are two of them, or it is empty.
    """
    secrets = {
        name: value
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    }
    named = [name for name, value in secrets.items() if value.get_secret_value() == STDIN]
    if len(named) > 1:
        raise SettingsInvalid(
            f"The settings {' and '.join(named)} are both '@-', the first line of standard input.",
            hint="Use a file for all but one: @FILE.",
        )
    if not named:
        return settings
    line = _read_line()
    if not line or line.startswith("@"):
        raise SettingsInvalid(f"Standard input has no secret for '{named[0]}'.")
    return settings.model_copy(update={named[0]: type(secrets[named[0]])(line)})


def _read_line() -> str:
    """Return the first line of standard input, and not a byte more: the rest is not ours."""
    line = b""
    while len(line) < _MAX_LINE and (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace").strip()
