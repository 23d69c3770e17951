"""Middleware and lifespan of the HTTP applications; imports no route and no FastAPI."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from sidecar.api.http import auth_gate, error_responses, middleware
from sidecar.auth import authentication
from sidecar.auth.one_time_codes import OneTimeCodes
from sidecar.auth.open_connections import RevocableStreams
from sidecar.concurrency import running
from sidecar.files import FileWatcher
from sidecar.service.facade import Service

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def install_middleware(
    app: Starlette,
    service: Service,
    access: authentication.AccessPolicy,
    entrance: authentication.AccessControl,
    *,
    refusals: auth_gate.WebSocketRefusals = auth_gate.NO_REFUSALS,
    dialects: error_responses.ErrorDialects = error_responses.NO_DIALECTS,
    opens: auth_gate.IsPublic = lambda scope: False,
    tickets: OneTimeCodes[auth_gate.TicketGrant] | None = None,
    tidy_prefixes: tuple[str, ...] = (),
) -> None:
    """Add the middleware of every application; the outermost is added last. ``tidy_prefixes`` as in
    `middleware.TidyPaths`, the others as in `auth_gate.AuthGate`."""
    app.add_middleware(middleware.RouteRecorder)
    app.add_middleware(middleware.HeadRequests)
    app.add_middleware(
        auth_gate.AuthGate,
        access=access,
        rate_limiter=entrance.rate_limiter,
        dialects=dialects,
        visits=entrance.visits,
        opens=opens,
        refusals=refusals,
        tickets=tickets,
    )
    app.add_middleware(middleware.BodyDrain)
    app.add_middleware(middleware.ShutdownAnswers, dialects=dialects)
    app.add_middleware(middleware.TidyPaths, prefixes=tidy_prefixes)
    app.add_middleware(middleware.RequestMetrics, tally=service.tally.wires)


def service_lifespan(
    service: Service,
    watch: FileWatcher,
    visits: RevocableStreams,
    opened: Callable[[], None] = lambda: None,
) -> Lifespan:
    """Return the lifespan: the service is open, files and credentials are checked repeatedly.
    ``opened`` is called once the service is open."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        await service.open()
        opened()
        try:
            async with running(watch.run(), visits.run()):
                yield
        finally:
            await service.close()

    return lifespan


def collect_garbage() -> None:
    """Collect garbage from now on, but not what is imported; see `sidecar/cli/__init__.py`."""
    gc.freeze()
    gc.enable()
