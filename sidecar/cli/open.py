"""Command `open`: page of the service in the browser."""

from __future__ import annotations

import asyncio

from sidecar import errors
from sidecar.cli.backends import ServiceTarget, client_of, start_child_service
from sidecar.cli.common_options import option
from sidecar.cli.output import PROGRAM, print_error_line, print_text

HELP = f"""
Open the page of the service in the browser.

On the page you drop recordings, and read and search transcripts. If no service runs on this
machine, the command starts one, which serves as long as the command runs.

If the service requires a token, the page gets the one of this user, by a link that works once. The
token itself is not in the link.

Examples:

* `{PROGRAM} open`
* `{PROGRAM} open --server http://127.0.0.1:9000`
"""


async def open_page(
    *,
    where: ServiceTarget,
    show: bool = option(
        False, "Print the link of a running service instead of opening the browser.", "--print"
    ),
) -> int:
    """Open the page, or with ``show`` print its link; return the exit code."""
    try:
        link = await _page_link(where.or_ours())
    except errors.ServiceUnreachable:
        if where.server is not None or show:  # a printed link needs a service that stays
            raise
        return await _open_with_own_service(where)
    _show(link, show=show)
    return 0


async def _open_with_own_service(where: ServiceTarget) -> int:
    print_error_line("No service runs here; starting one.")
    with start_child_service({}) as (service, ready):
        if ready is None:  # it has printed the reason
            return service.wait()
        there = where.answering(ready)
        _show(await _page_link(there), show=False)
        print_error_line(f"Serving at {there.server} until Ctrl-C.")
        return await asyncio.to_thread(service.wait)


async def _page_link(where: ServiceTarget) -> str:
    where = where.with_token()
    async with client_of(where) as client:
        return f"{client.url}{await client.page_path() if where.token else '/'}"


def _show(link: str, *, show: bool) -> None:
    import webbrowser

    if show or not webbrowser.open(link):
        if not show:
            once = ", once, within two minutes" if "#" in link else ""  # with a code in it
            print_error_line(f"There is no browser here; this link opens the page{once}:")
        print_text(f"{link}\n")
