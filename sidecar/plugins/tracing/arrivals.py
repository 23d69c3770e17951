"""Arrivals of requests, with their clients' trace contexts."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from sidecar import clock
from sidecar.api.http.middleware import HttpMiddleware


@dataclass(eq=False, slots=True)
class RequestArrival:
    """Arrival of a request, with its client's trace context; ``at`` is in seconds since 1970."""

    at: float
    traceparent: str = ""
    tracestate: str = ""
    answered: float | None = None
    """Time of the response in seconds since 1970, `None` before it."""
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def answer(self, at: float) -> None:
        """Record the time of the response and call the waiting functions."""
        self.answered = at
        while self._callbacks:
            self._callbacks.pop()()

    def after(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after the response, or now if it was sent."""
        if self.answered is None:
            self._callbacks.append(callback)
        else:
            callback()


CURRENT_ARRIVAL: ContextVar[RequestArrival | None] = ContextVar("ARRIVED", default=None)
"""Request being answered."""


class ArrivalRecorder(HttpMiddleware):
    """Record of arrival, trace context and end of every request."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        arrival = RequestArrival(
            clock.wall_time(), headers.get("traceparent", ""), headers.get("tracestate", "")
        )
        CURRENT_ARRIVAL.set(arrival)
        try:
            await self._app(scope, receive, send)
        finally:
            arrival.answer(clock.wall_time())
