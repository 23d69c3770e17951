"""Command `open`."""

from __future__ import annotations

import asyncio
import sys
import webbrowser

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.output import INTERRUPTED, complain, say
from sidecar.cli.status import configured_service


def run(where: Where, *, show: bool = False) -> int:
    """Open it, or with ``show`` print the link instead; the exit code."""
    try:
        link = asyncio.run(_link(where))
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    if show or not webbrowser.open(link):
        if not show:
            say("There is no browser here; this link opens the page, once, within two minutes:")
        print(link)
        sys.stdout.flush()
    return 0


async def _link(where: Where) -> str:
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.remote_service import service_at
    from sidecar.config.settings import load_settings

    server, trust = where.server, where.trust
    if server is None:
        server, own = configured_service()
        trust = trust if trust is not None and trust.given else own
    token = where.token or for_clients(load_settings())
    async with service_at(server, token, trust) as client:
        await client.health()  # said here, not by a browser, if nobody answers
        return f"{client.url}{await client.page_path() if token else '/'}"
