"""A client that goes away before its answer is there, or is sent away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import Request

from sidecar import errors
from sidecar.api.http.caller import lasting


@asynccontextmanager
async def noticed(
    request: Request, gone: Callable[[], None], cancel: Callable[[], None]
) -> AsyncGenerator[None, None]:
    """While this lasts, ``gone`` is called once the client of a request, whose body has been read,
    goes away, or nobody is answered any more; and ``cancel``, which ends the job that is waited
    for, once its token counts no more.

    Raises:
        errors.TokenInvalid: it does not, and there is no transcript.
    """
    sent_away = False

    def end() -> None:
        nonlocal sent_away
        sent_away = True
        cancel()

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone()

    listening = asyncio.get_running_loop().create_task(listen())
    try:
        with lasting(request.scope, end):
            yield
    except asyncio.CancelledError:
        gone()
        raise
    except errors.JobCancelled:
        if sent_away:
            raise errors.TokenInvalid() from None
        raise
    finally:
        listening.cancel()
