"""A client that goes away before its answer is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import Request


@asynccontextmanager
async def noticed(request: Request, gone: Callable[[], None]) -> AsyncGenerator[None, None]:
    """While this lasts, ``gone`` is called once the client of a request, whose body has been read,
    goes away, or nobody is answered any more."""

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone()

    listening = asyncio.get_running_loop().create_task(listen())
    try:
        yield
    except asyncio.CancelledError:
        gone()
        raise
    finally:
        listening.cancel()
