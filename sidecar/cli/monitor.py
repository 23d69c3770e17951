"""Commands `monitor` and `status`: state of a running service."""

import asyncio

from sidecar.cli import monitor_sections
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.common_options import option
from sidecar.cli.output import PROGRAM, print_error_line, print_text
from sidecar.installation import needed_for

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
NOBODY = 1
"""Exit code if nothing answers."""


async def monitor(
    *,
    where: ServiceTarget,
    metrics_url: str | None = option(
        None, "Read the metrics (JSON) from here instead of its /metrics.json.", metavar="URL"
    ),
    system_url: str | None = option(
        None, "Read the machine's state from here instead of its /system.", metavar="URL"
    ),
    interval: float = option(1.0, "Query every S seconds.", metavar="S", min=0.1),
    timeout_s: float = option(
        5.0, "Wait at most S seconds for a response.", "--timeout", metavar="S", min=0.1
    ),
    once: bool = option(False, "Print once and exit."),
    no_clear: bool = option(False, "Print repeatedly instead of drawing a screen."),
) -> int:
    """Watch a running service: sessions, queue, engines, memory, errors.

    Needs the extra `monitor`; if it is missing, the command prints how to install it. --once and
    --no-clear do without it: they print plain columns (section, name, value). A signed token needs
    the scope `metrics`.

    Keys: q quits, p pauses, r refreshes.

    Examples:

    * `vibevoice-asr monitor`
    * `vibevoice-asr monitor --server http://10.0.0.5:8765 --interval 5`
    * `vibevoice-asr monitor --once | grep '^queue *waiting'`
    * `vibevoice-asr monitor --no-clear --interval 60 >> service.log`
    """
    where = where.with_token().or_ours()
    async with monitor_sections.create_monitor_client(
        where, metrics_url, system_url, timeout_s
    ) as looking:
        if not (once or no_clear):
            with needed_for("The monitor's screen (--once does without)", "monitor"):
                from sidecar.cli.monitor_screen import MonitorApp

            await MonitorApp(looking, interval).run_async()
        elif not await print_tables(looking, interval, once=once):
            print_error_line("Nothing answers there.")
            return NOBODY
    return 0


async def print_tables(
    camera: monitor_sections.MonitorClient, interval_s: float, *, once: bool
) -> bool:
    """Print a table every ``interval_s`` seconds; with ``once`` return whether a service
    answered."""
    before: monitor_sections.MonitorSnapshot | None = None
    while True:
        picture = await camera.fetch_snapshot()
        text = monitor_sections.table(monitor_sections.sections(picture, before))
        print_text(text if once else f"{text}\n")
        if once:
            return picture.answers
        before = picture
        await asyncio.sleep(interval_s)


async def status(*, where: ServiceTarget) -> None:
    """Show the state of a running service.

    Example: `vibevoice-asr status --server http://127.0.0.1:9000`
    """
    from sidecar.cli.remote_service import service_at

    where = where.or_ours()  # health needs no token
    async with service_at(where.server or "", where.token, where.trust) as client:
        health = {"address": client.url, **await client.health()}
    shown = {name: health[name] for name in STATUS_FIELDS if name in health}
    for name, value in {**shown, "more": f"{PROGRAM} monitor --once"}.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        print_text(f"{name.replace('_', ' '):<15} {'-' if value is None else value}\n")
