"""The monitor as plain text: once, or again and again, one below the other."""

from __future__ import annotations

import asyncio

from sidecar.cli.picture import Camera, Picture
from sidecar.cli.view import sections, table


async def once(camera: Camera) -> bool:
    """Print one table; whether anybody answered."""
    picture = await camera.picture()
    print(table(sections(picture)), end="", flush=True)
    return picture.answers


async def again(camera: Camera, interval_s: float) -> None:
    """Print a table each ``interval_s``, until it is ended."""
    before: Picture | None = None
    while True:
        picture = await camera.picture()
        print(table(sections(picture, before)), flush=True)
        before = picture
        await asyncio.sleep(interval_s)
