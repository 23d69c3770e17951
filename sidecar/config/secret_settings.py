"""Secrets in settings; addresses, keys and certificates of the remote servers that they name.

A secret is given directly, in a file (``@FILE``), or on standard input.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from sidecar import files
from sidecar.config.setting_types import MIN_TOKEN_CHARACTERS
from sidecar.errors import SettingsInvalid

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

STDIN = "@-"
MAX_SECRET_BYTES = 1 << 16
_MAX_LINE = 4096
GENERATED_TOKEN_BYTES = 32
CLIENT_TOKEN_VARIABLE = "VIBEVOICE_CLIENT_TOKEN"  # noqa: S105 - a name
"""Variable of the token that commands send; VIBEVOICE_TOKEN is what a service requires."""
_SIGNED = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*")
"""Signed token (JWT): its header is JSON, whose opening '{\"' is 'eyJ' in base64."""


def read_secret(given: SecretStr) -> str:
    """Return the secret that a setting contains, or the content of the private file that it names.

    Raises:
        errors.SettingsInvalid: the file cannot be read, or others may read it.
    """
    said = given.get_secret_value()
    if said == STDIN:
        return _read_line()
    if not said.startswith("@"):
        return said
    path = files.expand_home(Path(said[1:]))
    return files.read(path, MAX_SECRET_BYTES, private=True).decode("utf-8-sig", "replace").strip()


def secret_origin(given: SecretStr, setting: str) -> str:
    """Return the source of a secret, for messages: its file, or the setting that contains it."""
    said = given.get_secret_value()
    if said == STDIN:
        return "The first line of standard input"
    return f"The file {said[1:]}" if said.startswith("@") else f"The setting '{setting}'"


def take_stdin_secret(settings: Settings) -> Settings:
    """Return the settings with the secret from standard input, which is read once.

    Raises:
        errors.SettingsInvalid: two settings use standard input, or its first line is empty.
    """
    found = {
        name: value
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    }
    named = [name for name, value in found.items() if value.get_secret_value() == STDIN]
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
    return settings.model_copy(update={named[0]: type(found[named[0]])(line)})


def _read_line() -> str:
    """Return the first line of standard input, and read no further: the rest is for other
    readers."""
    line = b""
    while len(line) < _MAX_LINE and (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace").strip()


def resolve_token(settings: Settings) -> Settings:
    """Return the settings with the service's token: read, checked or generated.

    Raises:
        errors.SettingsInvalid: both a token and a generated one are set, or the token is invalid,
            or it is a signed token, which belongs to a client.
    """
    if settings.token is not None and settings.generate_token:
        raise SettingsInvalid(
            "The settings token and generate_token exclude each other.", hint="Remove one of them."
        )
    token = service_token(settings)
    if token is not None and _SIGNED.fullmatch(token):
        raise SettingsInvalid(
            "The setting token (VIBEVOICE_TOKEN) is a signed token (JWT). As such it would "
            "have every scope, and neither its expiry nor a revocation would count.",
            hint=f"A client sends it: move it to {CLIENT_TOKEN_VARIABLE}, and unset "
            "VIBEVOICE_TOKEN. The service checks signed tokens by --token-keys.",
        )
    if settings.generate_token:
        token = secrets.token_urlsafe(GENERATED_TOKEN_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def service_token(settings: Settings) -> str | None:
    """Return the token that a service with these settings requires; None if it requires none.

    Raises:
        errors.SettingsInvalid: the file cannot be used, or does not contain a valid token.
    """
    if settings.token is None:
        return None
    token = read_secret(settings.token)
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        where = secret_origin(settings.token, "token")
        raise SettingsInvalid(
            f"{where} has no token of at least {MIN_TOKEN_CHARACTERS} printable ASCII characters."
        )
    return token


def parse_server_url(text: str, setting: str) -> str:
    """Return a server's address without a trailing slash or '/v1'.

    Raises:
        errors.SettingsInvalid: it is not an address, or contains a password. The error does not
            repeat the value.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
        (parts.hostname or "").encode("idna")  # as HTTP clients encode it
    except ValueError:  # includes UnicodeError
        parts, port = urlsplit(""), None
    if parts.username is not None or parts.password is not None:
        raise SettingsInvalid(
            f"An address in '{setting}' has a name or password in it.",
            hint=f"Put the key into VIBEVOICE_{setting.upper()}_KEY or a file.",
        )
    whole = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not whole or parts.query or parts.fragment:
        raise SettingsInvalid(
            f"The value of '{setting}' is not an address.",
            hint="Write it like http://192.168.1.20:8765 or https://asr.example.org.",
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def host_of(url: str) -> str:
    """Return the host and port of an address, for display."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or default}"


def parse_keys(secret: SecretStr | None, setting: str) -> list[str]:
    """Return the keys of the setting ``setting``_key, one per line; one empty key if it is unset.

    Raises:
        errors.SettingsInvalid: the file has no key or is not private, or a key is not printable
            ASCII.
    """
    if secret is None:
        return [""]
    found = [line for part in read_secret(secret).splitlines() if (line := part.strip())]
    if not found:
        raise SettingsInvalid(f"{secret_origin(secret, f'{setting}_key')} has no key.")
    if not all(key.isascii() and key.isprintable() for key in found):
        raise SettingsInvalid(f"A key of '{setting}' is not printable ASCII.")
    return found


def parse_key(secret: SecretStr | None, setting: str) -> str:
    """Return the first key of `parse_keys`."""
    return parse_keys(secret, setting)[0]
