"""Addresses, keys and certificates of remote servers named by settings."""

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
"""Longest chunk for an upstream, in seconds; with 0 all upstreams get work by the cuts."""


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


def upstream_options(settings: Settings) -> UpstreamOptions:
    """Return the upstreams named by the settings.

    Raises:
        errors.SettingsInvalid: there are none, or an address, a key or the CA file is not valid.
    """
    urls = tuple(parse_server_url(url, "upstream") for url in settings.upstream)
    if not urls:
        raise SettingsInvalid(
            "The engine 'upstream' has no server to send recordings to.",
            hint="Name one: VIBEVOICE_UPSTREAM=http://192.168.1.20:8765 (docs/upstream.md).",
        )
    ca = settings.upstream_ca
    if ca is not None:
        files.check_regular(ca)  # the worker process opens it again, and would block on a pipe
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
    """Return a key for each of ``count`` upstreams; '' if there is none."""
    keys = parse_keys(settings.upstream_key, "upstream")
    if len(keys) not in (1, count):
        raise SettingsInvalid(
            f"The file of keys has {len(keys)} lines, for {count} upstreams.",
            hint="Write one line for all of them, or one for each.",
        )
    return tuple(keys * count if len(keys) == 1 else keys)
