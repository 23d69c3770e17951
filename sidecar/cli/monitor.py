"""Command `monitor`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar import errors
from sidecar.cli.monitor_view import Camera, Picture, sections, table
from sidecar.cli.output import INTERRUPTED, PROGRAM, complain, say

if TYPE_CHECKING:
    from sidecar.cli.backends import Where


HELP = f"""
Show how a running service is: sessions, queue, engines, memory planned and used, errors.

Needs the extra `monitor`: pip install 'vibevoice-asr[monitor]'. --once and --no-clear do without:
they print plain columns (section, name, value). A signed token has to allow the scope `metrics`.

Keys: q ends it, p pauses, r looks now.

Examples:

* `{PROGRAM} monitor`
* `{PROGRAM} monitor --server http://10.0.0.5:8765 --interval 5`
* `{PROGRAM} monitor --once | grep '^queue *waiting'`
* `{PROGRAM} monitor --no-clear --interval 60 >> service.log`
"""
NOBODY = 1
"""Exit code where nothing answers."""


def monitor(
    *,
    where: Where,
    metrics_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of the metrics in JSON, instead of its /metrics.json."),
    ] = None,
    system_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the machine, instead of its /system.")
    ] = None,
    interval: Annotated[float, typer.Option(metavar="S", min=0.1, help="Between two looks.")] = 1.0,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long an answer may take.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    no_clear: Annotated[
        bool, typer.Option("--no-clear", help="Print it again and again instead of drawing it.")
    ] = False,
) -> None:
    """What was asked for, done."""
    try:
        code = asyncio.run(
            _run(where, metrics_url, system_url, timeout, interval, once=once, plain=no_clear)
        )
    except errors.SidecarError as error:
        code = complain(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = INTERRUPTED
    raise typer.Exit(code)


async def _run(
    where: Where,
    metrics_url: str | None,
    system_url: str | None,
    timeout_s: float,
    interval_s: float,
    *,
    once: bool,
    plain: bool,
) -> int:
    from sidecar.cli.monitor_view import camera

    async with camera(meant(where), metrics_url, system_url, timeout_s) as looking:
        if once:
            if not await print_once(looking):
                say("Nothing answers there.")
                return NOBODY
        elif plain:
            await print_again(looking, interval_s)
        else:
            await _draw(looking, interval_s)
    return 0


async def _draw(looking: Camera, interval_s: float) -> None:
    from sidecar.errors.access_errors import needed_for

    with needed_for("The monitor's screen (--once does without)", "monitor"):
        from sidecar.cli.monitor_screen import Monitor

    await Monitor(looking, interval_s).run_async()


def meant(where: Where) -> Where:
    """The service, with the token that is known here."""
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.status import configured_service
    from sidecar.config.settings import load_settings

    token = where.token or for_clients(load_settings())
    if where.server is not None:
        return replace(where, token=token)
    server, own = configured_service()
    trust = where.trust if where.trust is not None and where.trust.given else own
    return replace(where, server=server, token=token, trust=trust)


async def print_once(camera: Camera) -> bool:
    """Print one table; whether anybody answered."""
    picture = await camera.picture()
    print(table(sections(picture)), end="", flush=True)
    return picture.answers


async def print_again(camera: Camera, interval_s: float) -> None:
    """Print a table each ``interval_s``, until it is ended."""
    before: Picture | None = None
    while True:
        picture = await camera.picture()
        print(table(sections(picture, before)), flush=True)
        before = picture
        await asyncio.sleep(interval_s)
