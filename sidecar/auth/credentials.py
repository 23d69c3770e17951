"""The token of this start: from the environment, a private file, standard input, or made here."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from sidecar import private
from sidecar.config.settings import SHORTEST_TOKEN, Settings
from sidecar.errors import SettingsInvalid

MADE_BYTES = 32
_LONGEST_LINE = 4096


def with_token(settings: Settings) -> Settings:
    """The settings with the token that they lead to; never from the command line.

    Raises:
        errors.SettingsInvalid: there are two, or none where one was promised, or it is no secret.
    """
    ways = {
        "token": settings.token is not None,
        "token_file": settings.token_file is not None,
        "token_stdin": settings.token_stdin,
        "generate_token": settings.generate_token,
    }
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise SettingsInvalid(
            f"The settings {' and '.join(named)} each give a token.", hint="Keep one of them."
        )
    token = None
    if settings.token_file is not None:
        token = read_file(settings.token_file)
    elif settings.token_stdin:
        token = _checked(_first_line(0), "The first line of standard input")
    elif settings.generate_token:
        token = secrets.token_urlsafe(MADE_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def for_clients(settings: Settings) -> str | None:
    """The token that our own command line sends to a service, if it knows one.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used.
    """
    if settings.token_file is not None:
        return read_file(settings.token_file)
    return settings.token.get_secret_value() if settings.token else None


def read_file(path: Path) -> str:
    """The token in a file that nobody else may read.

    Raises:
        errors.SettingsInvalid: others may read it, it is not there, or holds no token.
    """
    text = private.read(path, _LONGEST_LINE, private=True).decode("utf-8", "replace")
    return _checked(text.strip(), f"The file {path}")


def _checked(token: str, where: str) -> str:
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise SettingsInvalid(
            f"{where} holds no token of at least {SHORTEST_TOKEN} printable ASCII characters."
        )
    return token


def _first_line(fd: int) -> str:
    """Not a byte more: the rest is not ours."""
    line = b""
    while len(line) < _LONGEST_LINE and (byte := os.read(fd, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace").strip()
