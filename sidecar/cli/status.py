"""Command `status`."""

from __future__ import annotations

from sidecar.cli.backends import ServiceTarget
from sidecar.cli.output import PROGRAM

HELP = f"""
Show how a running service is.

Example: `{PROGRAM} status --server http://127.0.0.1:9000`
"""


async def status(*, where: ServiceTarget) -> None:
    """Print the service's health; the exit code is 0 when it answers."""
    from sidecar.cli.remote_service import service_at

    where = where.or_ours()  # health asks for no token
    async with service_at(where.server or "", where.token, where.trust) as client:
        health = {"address": client.url, **await client.health()}
    for name, value in health.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print(f"{name.replace('_', ' '):<15} {'-' if value is None else value}")
