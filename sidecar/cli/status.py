"""Command `status`: state of a running service."""

from sidecar.cli.backends import ServiceTarget
from sidecar.cli.output import PROGRAM, print_text

STATUS_FIELDS = (
    "address",
    "status",
    "version",
    "pid",
    "engine",
    "precision",
    "engine_state",
    "model_loaded",
    "jobs_waiting",
    "live_engine",
    "active_sessions",
)
"""Fields of `/health` that `status` shows; the others are for other programs."""


async def status(*, target: ServiceTarget) -> None:
    """Show the state of a running service.

    Example: `vibevoice-asr status --server http://127.0.0.1:9000`
    """
    from sidecar.cli.remote_service import service_at

    target = target.or_ours()  # health needs no token
    async with service_at(target.server or "", target.token, target.trust) as client:
        health = {"address": client.url, **await client.health()}
    shown = {name: health[name] for name in STATUS_FIELDS if name in health}
    for name, value in {**shown, "more": f"{PROGRAM} monitor --once"}.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print_text(f"{name.replace('_', ' '):<15} {'-' if value is None else value}\n")
