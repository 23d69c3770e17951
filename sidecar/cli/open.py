"""Command `open`."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli.backends import ServiceTarget, client_of
from sidecar.cli.output import PROGRAM, print_error_line, print_text

HELP = f"""
Open the page of a running service in the browser: drop recordings, read and search what was said.

Where the service wants a token, the page gets the one that is known here, by a link that counts
once. The token itself is in no address.

Example: `{PROGRAM} open --server http://127.0.0.1:9000`
"""


async def open_page(
    *,
    where: ServiceTarget,
    show: Annotated[bool, typer.Option("--print", help="Print the link instead.")] = False,
) -> None:
    """Open it, or with ``show`` print the link instead."""
    import webbrowser

    where = where.or_ours().with_token()
    async with client_of(where) as client:
        await client.health()  # said here, not by a browser, if nobody answers
        link = f"{client.url}{await client.page_path() if where.token else '/'}"
    if show or not webbrowser.open(link):
        if not show:
            print_error_line(
                "There is no browser here; this link opens the page, once, within two minutes:"
            )
        print_text(f"{link}\n")
