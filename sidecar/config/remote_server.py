"""Addresses, keys and certificates of remote servers that settings name."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr

from sidecar import files
from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.interfaces.engine_interface import UpstreamOptions
from sidecar.limit_overrides import limit

PIECE_S = limit("upstream_piece", 0.0)
"""Longest piece of a recording that is sent to an upstream at once; 0 cuts it so that all of them
have work."""


def parse_server_url(text: str, setting: str) -> str:
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
            f"The value of '{setting}' is not an address.",
            hint="Write it like http://192.168.1.20:8765 or https://asr.example.org.",
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def host_of(url: str) -> str:
    """Return the host and port of an address, for people."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or default}"


def parse_keys(secret: SecretStr | None, setting: str) -> list[str]:
    """The keys that the setting ``setting``_key gives, a line each; one that is empty where it
    gives none.

    Raises:
        errors.SettingsInvalid: its file has none or is no secret, or a key is none.
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
    """As `parse_keys`, the first of them."""
    return parse_keys(secret, setting)[0]


def upstream_options(settings: Settings) -> UpstreamOptions:
    """The upstreams that the settings name.

    Raises:
        errors.SettingsInvalid: there are none, or one is no address, or a key is no secret.
    """
    urls = tuple(parse_server_url(url, "upstream") for url in settings.upstream)
    if not urls:
        raise SettingsInvalid(
            "The engine 'upstream' has no server to send recordings to.",
            hint="Name one: VIBEVOICE_UPSTREAM=http://192.168.1.20:8765 (docs/upstream.md).",
        )
    ca = settings.upstream_ca
    if ca is not None:
        files.check_regular(ca)  # the engine's process has it opened, and would wait for a pipe
        if not ca.is_file():
            raise SettingsInvalid(f"The file of certificates {ca} does not exist.")
    return UpstreamOptions(
        urls,
        _upstream_keys(settings, len(urls)),
        settings.upstream_dialect,
        settings.upstream_model,
        None if ca is None else str(ca.resolve()),
        piece_s=PIECE_S,
    )


def _upstream_keys(settings: Settings, count: int) -> tuple[str, ...]:
    """A key for each of ``count`` upstreams; '' where there is none."""
    keys = parse_keys(settings.upstream_key, "upstream")
    if len(keys) not in (1, count):
        raise SettingsInvalid(
            f"The file of keys has {len(keys)} lines, for {count} upstreams.",
            hint="Write one line for all of them, or one for each.",
        )
    return tuple(keys * count if len(keys) == 1 else keys)
