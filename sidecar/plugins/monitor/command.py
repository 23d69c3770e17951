"""Command `monitor`: a running service, watched."""

import asyncio

from sidecar.cli.backends import ServiceTarget
from sidecar.cli.common_options import option
from sidecar.cli.output import print_error_line, print_text
from sidecar.installation import needed_for
from sidecar.plugins.monitor import sections

NO_ANSWER = 1
"""Exit code if nothing answers."""


async def monitor(
    *,
    target: ServiceTarget,
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
    target = target.with_token().or_ours()
    async with sections.create_monitor_client(target, metrics_url, system_url, timeout_s) as client:
        if not (once or no_clear):
            with needed_for("The monitor's screen (--once does without)", "monitor"):
                from sidecar.plugins.monitor.screen import MonitorApp

            await MonitorApp(client, interval).run_async()
        elif not await print_tables(client, interval, once=once):
            print_error_line("Nothing answers there.")
            return NO_ANSWER
    return 0


async def print_tables(client: sections.MonitorClient, interval_s: float, *, once: bool) -> bool:
    """Print a table every ``interval_s`` seconds; with ``once`` return whether a service
    answered."""
    earlier_snapshot: sections.MonitorSnapshot | None = None
    while True:
        snapshot = await client.fetch_snapshot()
        text = sections.table(sections.sections(snapshot, earlier_snapshot))
        print_text(text if once else f"{text}\n")
        if once:
            return snapshot.answers
        earlier_snapshot = snapshot
        await asyncio.sleep(interval_s)
