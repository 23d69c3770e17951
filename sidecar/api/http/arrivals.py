"""When a request came, and as part of what: for traces. Only there where somebody traces."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar import clock
from sidecar.observability.tracing import ARRIVED, Arrival


class Arrivals:
    """Notes it of every request and connection, and when they are over."""

    def __init__(self, app: ASGIApp, now: clock.Clock = clock.wall) -> None:
        self._app, self._now = app, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope)
        arrival = Arrival(self._now(), said.get("traceparent", ""), said.get("tracestate", ""))
        ARRIVED.set(arrival)
        try:
            await self._app(scope, receive, send)
        finally:
            arrival.answer(self._now())
