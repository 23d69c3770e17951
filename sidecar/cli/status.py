"""`vibevoice-asr status`: how a running service is."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar import errors
from sidecar.cli.said import INTERRUPTED, complain
from sidecar.host.neighbour import address


def run(server: str | None) -> int:
    """Print the service's health; the exit code is 0 when it answers."""
    try:
        health = asyncio.run(_ask(server or configured_address()))
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    _print(health)
    return 0


def configured_address() -> str:
    """Where the service is, as the settings have it.

    Raises:
        errors.SettingsInvalid: they are not possible, or leave the port open.
    """
    from sidecar.settings import load_settings

    settings = load_settings()
    if not settings.port:
        raise errors.SettingsInvalid(
            "The settings take any free port, so it is not known where the service is.",
            hint="Give its address with --server.",
        )
    return address(settings.host, settings.port)


async def _ask(server: str) -> dict[str, Any]:
    from sidecar.cli.client import ServiceClient

    async with ServiceClient(server) as client:
        return {"address": client.url, **await client.health()}


def _print(health: dict[str, Any]) -> None:
    for name, value in health.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print(f"{name.replace('_', ' '):<15} {'-' if value is None else value}")
