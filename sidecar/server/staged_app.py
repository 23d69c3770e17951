"""Application that answers `/health` before the whole application is imported.

FastAPI and the protocols are half of what a service imports, and `/health` needs none of them. So a
small application with the same middleware answers `/health`, while a thread imports the rest. Other
requests wait for the whole application, which then answers everything. Imports no FastAPI.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.api.health_routes import PATH, health_response
from sidecar.api.http import auth_gate, error_responses, middleware
from sidecar.auth import authentication
from sidecar.auth.rate_limits import RevocableStreams
from sidecar.concurrency import ThreadLimiter, running
from sidecar.file_watcher import FileWatcher
from sidecar.service.facade import Service

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]
_READS = ("GET", "HEAD")
MAX_WAITING_SOCKETS = 100
TRY_AGAIN_LATER = 1013
"""Close code of a WebSocket that cannot wait; its handshake is refused with 403."""


class StagedApp:
    """ASGI application: ``first`` has the lifespan and answers `/health` until `complete` is done.

    ``build`` imports and builds the whole application. ``max_waiting_sockets``: WebSockets that may
    wait for that.
    """

    def __init__(
        self,
        first: ASGIApp,
        build: Callable[[], ASGIApp],
        max_waiting_sockets: int = MAX_WAITING_SOCKETS,
    ) -> None:
        self._first, self._build = first, build
        self._max_waiting_sockets = max_waiting_sockets
        self._whole: ASGIApp | None = None
        self._built = asyncio.Event()
        self._sockets = 0
        """WebSockets that wait."""
        # A request that still waits when the service stops gets the answer of all unfinished ones.
        self._waiting = middleware.ShutdownAnswers(self._when_built)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._first(scope, receive, send)
        elif self._whole is not None:
            await self._whole(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == PATH and scope["method"] in _READS:
            await self._first(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._wait_socket(scope, receive, send)
        else:
            await self._waiting(scope, receive, send)

    async def complete(self) -> None:
        """Build the whole application in a thread, and serve it from then on. An exception of
        ``build`` is raised."""
        try:
            self._whole = await ThreadLimiter("import", 1).run(self._build)
        finally:
            gc.freeze()  # garbage is collected, but not what is imported: `sidecar/cli/__init__.py`
            gc.enable()
        self._built.set()

    async def _wait_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait with a handshake, which uvicorn no longer counts for its address."""
        refused = self._sockets >= self._max_waiting_sockets
        self._sockets += 1
        try:
            if not refused:
                await self._built.wait()
        except asyncio.CancelledError:  # the service stops
            refused = True
        finally:
            self._sockets -= 1
        if refused:
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        else:
            await self._when_built(scope, receive, send)

    async def _when_built(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._built.wait()
        assert self._whole is not None
        await self._whole(scope, receive, send)


class _HealthRoute(Route):
    """Route that metrics and log lines can name, as FastAPI's: Starlette 1.0 names none itself."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}


def create_health_app(
    service: Service, access: authentication.AccessControl, lifespan: Lifespan
) -> Starlette:
    """Create the application that answers `/health` as the whole application does."""

    async def health(request: Request) -> Response:
        return await health_response(service)

    app = Starlette(routes=[_HealthRoute(PATH, health, methods=["GET"])], lifespan=lifespan)
    install_middleware(app, service, access, auth_gate.PortRules())
    error_responses.install_error_handlers(app, app.router)
    return app


def install_middleware(
    app: Starlette,
    service: Service,
    access: authentication.AccessControl,
    rules: auth_gate.PortRules,
) -> None:
    """Add the middleware of every application; the outermost is added last."""
    app.add_middleware(middleware.RouteEntry)
    app.add_middleware(auth_gate.AuthGate, access=access, rules=rules)
    app.add_middleware(middleware.BodyDrain)
    app.add_middleware(middleware.ShutdownAnswers, dialects=rules.dialects)
    app.add_middleware(middleware.TidyPaths, prefixes=rules.tidy_prefixes)
    app.add_middleware(middleware.RequestMetrics, metrics=service.metrics.wires)


def service_lifespan(
    service: Service,
    watcher: FileWatcher,
    streams: RevocableStreams,
    opened: Callable[[], None] = lambda: None,
) -> Lifespan:
    """Return the lifespan: the service is open, files and credentials are checked repeatedly.
    ``opened`` is called once the service is open."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        await service.open()
        opened()
        try:
            async with running(watcher.run(), streams.run()):
                yield
        finally:
            await service.close()

    return lifespan
