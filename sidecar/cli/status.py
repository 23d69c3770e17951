"""Command `status`: state of a running service."""

import base64
import datetime
import json
from collections.abc import Mapping

from sidecar import errors
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
    """Show the state of a running service, and to whom the token belongs that you send.

    The service has to accept the token: else the command fails and says why.

    Example: `vibevoice-asr status --server http://127.0.0.1:9000`
    """
    from sidecar.cli.remote_service import service_at

    target = target.or_ours().with_token()
    async with service_at(target.server or "", target.token, target.trust) as client:
        health = {"address": client.url, **await client.health()}
        _show({name: health[name] for name in STATUS_FIELDS if name in health})
        if target.token:
            await client.jobs(limit=1)  # health needs no token: this proves it
            _show({"signed_in": await _signed_in(target)})
    _show({"more": f"{PROGRAM} monitor --once"})


async def _signed_in(target: ServiceTarget) -> str:
    """Return whom the token of ``target``, which the service accepts, identifies, and until
    when."""
    from sidecar.cli.remote_service import service_at

    try:
        async with service_at(target.server or "", None, target.trust) as anybody:
            await anybody.jobs(limit=1)
    except errors.TokenMissing:
        return owner_of(target.token or "")
    return "not required: this service asks for no token"


def owner_of(token: str) -> str:
    """Return the subject and the end that a signed token names; of another, that it is the
    service's."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        subject, until = claims["sub"], claims.get("exp")
        end = "without end" if until is None else f"until {utc_date(until):%Y-%m-%d %H:%M} UTC"
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return "with the token of the service"
    return f"as {subject}, {end}"


def utc_date(seconds: float) -> datetime.datetime:
    """Return the date of ``seconds`` since 1970."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _show(fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print_text(f"{name.replace('_', ' '):<15} {'-' if value is None else value}\n")
