"""Command `status`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.output import INTERRUPTED, complain
from sidecar.server.port_owner import address

if TYPE_CHECKING:
    from vibevoice_asr_client import Trust


def run(where: Where) -> int:
    """Print the service's health; the exit code is 0 when it answers."""
    try:
        server, trust = where.server, where.trust
        if server is None:
            server, own = configured_service()
            trust = trust if trust is not None and trust.given else own
        health = asyncio.run(_ask(server, where.token, trust))
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    _print(health)
    return 0


def configured_service() -> tuple[str, Trust]:
    """Where the service is, as the settings have it, and which certificate it shows.

    Raises:
        errors.SettingsInvalid: they are not possible, or leave the port open.
    """
    from sidecar.cli.remote_service import of_settings
    from sidecar.config.settings import load_settings

    settings = load_settings()
    if not settings.port:
        raise errors.SettingsInvalid(
            "The settings take any free port, so it is not known where the service is.",
            hint="Give its address with --server.",
        )
    where = address(settings.host, settings.port, encrypted=settings.encrypted)
    return where, of_settings(settings)


async def _ask(server: str, token: str | None, trust: Trust | None) -> dict[str, Any]:
    from sidecar.cli.remote_service import service_at

    async with service_at(server, token, trust) as client:
        return {"address": client.url, **await client.health()}


def _print(health: dict[str, Any]) -> None:
    for name, value in health.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print(f"{name.replace('_', ' '):<15} {'-' if value is None else value}")
