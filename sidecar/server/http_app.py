"""Applications of the HTTP ports: the native API, the page, and the routes of the plugins.

Importing this module imports FastAPI and every protocol: half of a service's start. A service
imports it once it answers `/health` (`server/staged_app.py`).
"""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI

from sidecar import errors
from sidecar.api import (
    enrolled_speaker_routes,
    health_routes,
    job_routes,
    live_routes,
    metrics_routes,
    model_routes,
    transcribe_routes,
)
from sidecar.api import page as api_page
from sidecar.api.http import auth_gate, error_responses, middleware, openapi
from sidecar.auth import authentication
from sidecar.auth.authentication import OneTimeCodes
from sidecar.plugins import enabled
from sidecar.server.staged_app import Lifespan, install_middleware
from sidecar.service.facade import Service
from sidecar.version import __version__

DESCRIPTION = """
Speech to text with speakers, for one machine. Post a recording to `/transcribe`, get back who said
what and when. Every error is `application/problem+json` with a stable `code` and a `hint`; at the
addresses of OpenAI's API, with the same code in its shape.
"""


OPERATIONS = health_routes.build_router, metrics_routes.build_router
"""Routes of every service, also of one that accepts no requests."""
NO_FRAMEWORK_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False)
"""FastAPI's own telemetry would export addresses and exceptions (docs/tracing.md)."""


def create_whole_app(
    service: Service, access: authentication.AccessControl, lifespan: Lifespan | None = None
) -> FastAPI:
    """Create the application of all protocols. Without a ``lifespan`` the caller opens and closes
    the service."""
    settings = service.settings
    tickets = OneTimeCodes[auth_gate.TicketGrant]()
    dialects = dict(model_routes.DIALECTS)
    refusals: dict[str, auth_gate.SendRefusal] = {
        live_routes.PATH: live_routes.DIALECT.send_refusal
    }
    tidy_prefixes: list[str] = []
    layers: list[type[middleware.HttpMiddleware]] = []
    accepts = not settings.is_node
    routers = (
        _native_routers(service, tickets) if accepts else [build(service) for build in OPERATIONS]
    )
    for plugin in enabled(settings):
        if plugin.http is not None:
            routes = plugin.http(service, tickets)
            if accepts:
                routers += routes.routers
            dialects |= routes.dialects
            refusals |= routes.refusals
            tidy_prefixes += routes.tidy_prefixes
            layers += routes.middleware
    listed = {getattr(one, "path", "") for router in routers for one in router.routes}
    if accepts and model_routes.PATH not in listed:
        routers.append(model_routes.build_list_router(service))
    open_metrics = metrics_routes.METRICS if "open" in settings.metrics else ()
    rules = auth_gate.PortRules(
        refusals=refusals,
        dialects=dialects,
        opens=lambda scope: (
            scope["type"] == "http"
            and (scope["path"] in open_metrics or api_page.is_public_page(scope))
        ),
        tickets=tickets,
        tidy_prefixes=tuple(tidy_prefixes),
    )
    about = {"title": "vibevoice-asr", "version": __version__, "description": DESCRIPTION}
    app = create_application(service, access, routers, rules, lifespan=lifespan, **about)
    for layer in layers:
        app.add_middleware(layer)
    if not settings.is_node:
        openapi.install_docs_page(app)
        api_page.install_page(app)
    return app


def create_application(
    service: Service,
    access: authentication.AccessControl,
    routers: Sequence[APIRouter],
    rules: auth_gate.PortRules,
    **described: Any,
) -> FastAPI:
    """Create the application of one port."""
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to any Host that the client sends
        telemetry=NO_FRAMEWORK_TELEMETRY,  # type: ignore[arg-type]  # older versions ignore it
        **described,
    )
    for router in routers:
        app.include_router(router)
    install_middleware(app, service, access, rules)
    nothing = _not_on_a_node if service.settings.is_node else errors.NotFound
    error_responses.install_error_handlers(
        app, *routers, dialects=rules.dialects, not_found_error=nothing
    )
    return app


def _not_on_a_node() -> errors.SidecarError:
    return errors.NotFound(
        hint="This is a node (role 'node'), which accepts no requests: send jobs to a front."
    )


def _native_routers(
    service: Service, tickets: OneTimeCodes[auth_gate.TicketGrant]
) -> list[APIRouter]:
    """Return the routers of the native API."""
    builders = (
        transcribe_routes.build_router,
        model_routes.build_reload_router,
        job_routes.build_router,
        enrolled_speaker_routes.build_router,
        api_page.build_router,
        live_routes.build_router,
        model_routes.build_router,
        *OPERATIONS,
    )
    routers = [build(service) for build in builders]
    return [live_routes.build_ticket_router(tickets), *routers]
