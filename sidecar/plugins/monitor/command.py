"""Command `monitor`: a running service, watched."""

import asyncio

from sidecar.cli.backends import ServiceTarget
from sidecar.cli.common_options import option
from sidecar.cli.output import print_error_line, print_text
from sidecar.installation import needed_for
from sidecar.plugins.monitor import sections

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
    async with sections.create_monitor_client(where, metrics_url, system_url, timeout_s) as looking:
        if not (once or no_clear):
            with needed_for("The monitor's screen (--once does without)", "monitor"):
                from sidecar.plugins.monitor.screen import MonitorApp

            await MonitorApp(looking, interval).run_async()
        elif not await print_tables(looking, interval, once=once):
            print_error_line("Nothing answers there.")
            return NOBODY
    return 0


async def print_tables(camera: sections.MonitorClient, interval_s: float, *, once: bool) -> bool:
    """Print a table every ``interval_s`` seconds; with ``once`` return whether a service
    answered."""
    before: sections.MonitorSnapshot | None = None
    while True:
        picture = await camera.fetch_snapshot()
        text = sections.table(sections.sections(picture, before))
        print_text(text if once else f"{text}\n")
        if once:
            return picture.answers
        before = picture
        await asyncio.sleep(interval_s)
