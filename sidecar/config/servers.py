"""Other servers that settings name: addresses that are one, and keys that stay secret."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from sidecar import private
from sidecar.errors import SettingsInvalid

LONGEST_FILE = 1 << 16


def address(text: str, setting: str) -> str:
    """A server's address without what is no part of it: a slash at the end, '/v1'.

    Raises:
        errors.SettingsInvalid: it is none, or has a password in it. What it was is not repeated.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
        (parts.hostname or "").encode("idna")  # as whoever connects does
    except ValueError:  # a UnicodeError is one
        parts, port = urlsplit(""), None
    if parts.username is not None or parts.password is not None:
        raise SettingsInvalid(
            f"An address in '{setting}' has a name or password in it.",
            hint=f"Put the key into VIBEVOICE_{setting.upper()}_KEY or a file.",
        )
    whole = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not whole or parts.query or parts.fragment:
        raise SettingsInvalid(
            f"What '{setting}' says is no address.",
            hint="Write it like http://192.168.1.20:8765 or https://asr.example.org.",
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def host_of(url: str) -> str:
    """Who that is, for people: host and port."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or default}"


def keys(secret: SecretStr | None, file: Path | None, setting: str) -> list[str]:
    """The keys that the settings ``setting``_key or ``setting``_key_file give, a line each; one
    that is empty where they give none.

    Raises:
        errors.SettingsInvalid: both give one, or the file is no secret, or a key is none.
    """
    if secret is not None and file is not None:
        raise SettingsInvalid(
            f"The settings {setting}_key and {setting}_key_file each give a key.",
            hint="Keep one of them.",
        )
    found = [""]
    if secret is not None:
        found = [secret.get_secret_value().strip()]
    elif file is not None:
        text = private.read(file, LONGEST_FILE, private=True).decode("utf-8", "replace")
        found = [line for part in text.splitlines() if (line := part.strip())]
        if not found:
            raise SettingsInvalid(f"The file of keys {file} has no key.")
    if not all(key.isascii() and key.isprintable() for key in found):
        raise SettingsInvalid(f"A key of '{setting}' is not printable ASCII.")
    return found


def key(secret: SecretStr | None, file: Path | None, setting: str) -> str:
    """As `keys`, the first of them."""
    return keys(secret, file, setting)[0]
