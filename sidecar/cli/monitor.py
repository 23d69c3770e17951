"""Command `monitor`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from sidecar.cli import monitor_view
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.output import PROGRAM, print_error_line
from sidecar.errors.access_errors import needed_for

HELP = f"""
Show how a running service is: sessions, queue, engines, memory planned and used, errors.

Needs the extra `monitor`; where it is missing, the command says how to install it. --once and
--no-clear do without: they print plain columns (section, name, value). A signed token has to allow
the scope `metrics`.

Keys: q ends it, p pauses, r looks now.

Examples:

* `{PROGRAM} monitor`
* `{PROGRAM} monitor --server http://10.0.0.5:8765 --interval 5`
* `{PROGRAM} monitor --once | grep '^queue *waiting'`
* `{PROGRAM} monitor --no-clear --interval 60 >> service.log`
"""
NOBODY = 1
"""Exit code where nothing answers."""


async def monitor(
    *,
    where: ServiceTarget,
    metrics_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of the metrics in JSON, instead of its /metrics.json."),
    ] = None,
    system_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the machine, instead of its /system.")
    ] = None,
    interval: Annotated[float, typer.Option(metavar="S", min=0.1, help="Between two looks.")] = 1.0,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", metavar="S", min=0.1, help="How long an answer may take."),
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    no_clear: Annotated[
        bool, typer.Option("--no-clear", help="Print it again and again instead of drawing it.")
    ] = False,
) -> int:
    """Run the command; return its exit code."""
    where = where.with_token().or_ours()
    async with monitor_view.create_monitor_client(
        where, metrics_url, system_url, timeout_s
    ) as looking:
        if once:
            if not await print_once(looking):
                print_error_line("Nothing answers there.")
                return NOBODY
        elif no_clear:
            await print_repeatedly(looking, interval)
        else:
            with needed_for("The monitor's screen (--once does without)", "monitor"):
                from sidecar.cli.monitor_screen import MonitorApp

            await MonitorApp(looking, interval).run_async()
    return 0


async def print_once(camera: monitor_view.MonitorClient) -> bool:
    """Print one table; whether anybody answered."""
    picture = await camera.fetch_snapshot()
    print(monitor_view.table(monitor_view.sections(picture)), end="", flush=True)
    return picture.answers


async def print_repeatedly(camera: monitor_view.MonitorClient, interval_s: float) -> None:
    """Print a table each ``interval_s``, until it is ended."""
    before: monitor_view.MonitorSnapshot | None = None
    while True:
        picture = await camera.fetch_snapshot()
        print(monitor_view.table(monitor_view.sections(picture, before)), flush=True)
        before = picture
        await asyncio.sleep(interval_s)
