"""Command `status`: state of a running service."""

import base64
import datetime
import json
from collections.abc import Mapping
from typing import Any

from sidecar import errors
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.output import PROGRAM, counted, print_text
from sidecar.interfaces.language_tags import summarize_languages

NOT_LOADED = "no; it loads with the next recording"


async def status(*, target: ServiceTarget) -> None:
    """Show the state of a running service, and to whom the token belongs that you send.

    The service has to accept the token: else the command fails and says why.

    Example: `vibevoice-asr status --server http://127.0.0.1:9000`
    """
    from sidecar.cli.remote_service import service_at

    target = target.or_ours().with_token()
    async with service_at(target.server or "", target.token, target.trust) as client:
        health = await client.health()
        _show({"address": client.url, **state_of(health)})
        if target.token:
            await client.jobs(limit=1)  # health needs no token: this proves it
        _show(engine_of(health, await _about(target)))
        if target.token:
            _show({"signed in": await _signed_in(target)})
    _show({"more": f"{PROGRAM} monitor --once"})


def standing(health: Mapping[str, Any]) -> str:
    """Return what a service does now, in the words of its page."""
    if health.get("status") == "stopping":
        return "Stopping"
    if health.get("status") == "loading":
        return f"Loading, {health.get('load_percent') or 0} %"
    if health.get("engine_state") == "stuck":
        return "The engine does not respond"
    return "Transcribing" if health.get("engine_state") == "busy" else "Ready"


def state_of(health: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of a service by the names that its page has for it; ``health``: of
    `/health`."""
    loaded = health.get("model_loaded")
    return {
        "now": standing(health),
        "version": str(health.get("version", "-")),
        "process": str(health.get("pid", "-")),
        "loaded": f"yes, in {health.get('precision')}" if loaded else NOT_LOADED,
        "waiting": counted(health.get("jobs_waiting") or 0, "recording"),
    }


def engine_of(health: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """Return what transcribes; ``about``: of `/v1/page/about`, empty if the service does not tell,
    and then the engines have their names alone."""
    name, live = str(health.get("engine", "-")), health.get("live_engine")
    engine = about.get("engine") or {}
    rows = {"engine": f"{engine['title']} ({name})" if engine.get("title") else name}
    if engine.get("languages"):
        rows["languages"] = summarize_languages(engine["languages"])
    sessions = counted(health.get("active_sessions") or 0, "session")
    return {**rows, "live audio": f"{live}, {sessions}" if live else "none"}


async def _about(target: ServiceTarget) -> Mapping[str, Any]:
    """Return what the service says of itself; nothing if it requires a token, stops, or is of an
    older release. It is asked once: a state is of now."""
    from sidecar.cli.remote_service import service_at

    try:
        async with service_at(target.server or "", target.token, target.trust, 1) as client:
            return await client.about()
    except errors.SidecarError:
        return {}


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


def _show(fields: Mapping[str, str]) -> None:
    for name, value in fields.items():
        print_text(f"{name:<15} {value}\n")
