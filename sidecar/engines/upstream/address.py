"""From the settings to the upstreams: addresses that are one, and keys that stay secret."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from sidecar import private
from sidecar.errors import SettingsInvalid
from sidecar.settings import Settings
from sidecar.speech.engine import Upstream

_LONGEST_FILE = 1 << 16


def upstream_of(settings: Settings) -> Upstream:
    """The upstreams that the settings name.

    Raises:
        errors.SettingsInvalid: there are none, or one is no address, or a key is no secret.
    """
    urls = tuple(map(address, settings.upstream))
    if not urls:
        raise SettingsInvalid(
            "The engine 'upstream' has no server to send recordings to.",
            hint="Name one: VIBEVOICE_UPSTREAM=http://192.168.1.20:8765 (docs/upstream.md).",
        )
    ca = settings.upstream_ca
    if ca is not None and not ca.is_file():
        raise SettingsInvalid(f"The file of certificates {ca} is not there.")
    return Upstream(
        urls,
        _keys(settings, len(urls)),
        settings.upstream_dialect,
        settings.upstream_model,
        None if ca is None else str(ca.resolve()),
        settings.upstream_timeout,
        settings.upstream_piece,
    )


def address(text: str) -> str:
    """An upstream's address without what is no part of it: a slash at the end, '/v1'.

    Raises:
        errors.SettingsInvalid: it is none, or has a password in it. What it was is not repeated.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.username is not None or parts.password is not None:
        raise SettingsInvalid(
            "An address in 'upstream' has a name or password in it.",
            hint="Put the key into VIBEVOICE_UPSTREAM_KEY or a file (--upstream-key-file).",
        )
    whole = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not whole or parts.query or parts.fragment:
        raise SettingsInvalid(
            "An entry of 'upstream' is no address.",
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


def _keys(settings: Settings, count: int) -> tuple[str, ...]:
    """A key for each of ``count`` upstreams; '' where there is none."""
    if settings.upstream_key is not None and settings.upstream_key_file is not None:
        raise SettingsInvalid(
            "The settings upstream_key and upstream_key_file each give a key.",
            hint="Keep one of them.",
        )
    keys = [""]
    if settings.upstream_key is not None:
        keys = [settings.upstream_key.get_secret_value().strip()]
    elif settings.upstream_key_file is not None:
        keys = _lines_of(settings.upstream_key_file)
    if len(keys) not in (1, count):
        raise SettingsInvalid(
            f"The file of keys has {len(keys)} lines, for {count} upstreams.",
            hint="Write one line for all of them, or one for each.",
        )
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise SettingsInvalid("A key for the upstreams is not printable ASCII.")
    return tuple(keys * count if len(keys) == 1 else keys)


def _lines_of(path: Path) -> list[str]:
    text = private.read(path, _LONGEST_FILE, private=True).decode("utf-8", "replace")
    lines = [line for part in text.splitlines() if (line := part.strip())]
    if not lines:
        raise SettingsInvalid(f"The file of keys {path} has no key.")
    return lines
