"""From the settings to the upstreams."""

from __future__ import annotations

from sidecar import private
from sidecar.config import servers
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.interfaces.engine import Upstream


def upstream_of(settings: Settings) -> Upstream:
    """The upstreams that the settings name.

    Raises:
        errors.SettingsInvalid: there are none, or one is no address, or a key is no secret.
    """
    urls = tuple(servers.address(url, "upstream") for url in settings.upstream)
    if not urls:
        raise SettingsInvalid(
            "The engine 'upstream' has no server to send recordings to.",
            hint="Name one: VIBEVOICE_UPSTREAM=http://192.168.1.20:8765 (docs/upstream.md).",
        )
    ca = settings.upstream_ca
    if ca is not None:
        private.check_regular(ca)  # the engine's process has it opened, and would wait for a pipe
        if not ca.is_file():
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


def _keys(settings: Settings, count: int) -> tuple[str, ...]:
    """A key for each of ``count`` upstreams; '' where there is none."""
    keys = servers.keys(settings.upstream_key, settings.upstream_key_file, "upstream")
    if len(keys) not in (1, count):
        raise SettingsInvalid(
            f"The file of keys has {len(keys)} lines, for {count} upstreams.",
            hint="Write one line for all of them, or one for each.",
        )
    return tuple(keys * count if len(keys) == 1 else keys)
