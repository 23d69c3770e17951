"""What becomes of a request that the end of the service cuts off.

uvicorn gives answers a moment and then cancels what still runs, which would be a 500 without a
word and a traceback. An upload that was still coming in has its answer instead; one of which a
part is out already ends where it is.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar import errors
from sidecar.api.http.problems import Dialects, say_at


class CutOff:
    """Answers `errors.ShuttingDown`, in the language of the address, where nothing was answered."""

    def __init__(self, app: ASGIApp, dialects: Dialects | None = None) -> None:
        self._app, self._dialects = app, dialects or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # nobody but the server cancels, and only at its end
            if not begun:
                answer = say_at(scope["path"], self._dialects)(errors.ShuttingDown())
                answer.headers["Connection"] = "close"
                await answer(scope, receive, send)
