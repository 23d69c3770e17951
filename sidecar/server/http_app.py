"""Application of all HTTP and WebSocket protocols, and that of the secondary port for pages.

Importing this module imports FastAPI and every protocol: half of a service's start. A service
imports it once it answers `/health` (`server/staged_app.py`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, FastAPI

from sidecar import errors
from sidecar.api import (
    admin_routes,
    enrolled_speaker_routes,
    health_routes,
    job_routes,
    live_routes,
    metrics_routes,
    transcribe_routes,
)
from sidecar.api import page as api_page
from sidecar.api.http import auth_gate, error_responses, middleware, openapi
from sidecar.auth import authentication
from sidecar.auth.authentication import OneTimeCodes
from sidecar.config.settings import ROLE_NODE, Settings
from sidecar.errors import SettingsInvalid
from sidecar.protocols import openai_common, s2s, vvv
from sidecar.protocols.openai import routes as openai_routes
from sidecar.protocols.openai_realtime import routes as openai_realtime_routes
from sidecar.protocols.yap import routes as yap_routes
from sidecar.server.staged_app import Lifespan, install_middleware
from sidecar.service.facade import Service
from sidecar.version import __version__

DESCRIPTION = """
Speech to text with speakers, for one machine. Post a recording to `/transcribe`, get back who said
what and when. Every error is `application/problem+json` with a stable `code` and a `hint`; at the
addresses of OpenAI's API, with the same code in its shape.
"""


NO_FRAMEWORK_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False)
"""FastAPI's own telemetry would export addresses and exceptions (docs/tracing.md)."""


def create_whole_app(
    service: Service, entrance: authentication.AccessControl, lifespan: Lifespan | None = None
) -> FastAPI:
    """Create the application of all protocols. Without a ``lifespan`` the caller opens and closes
    the service."""
    settings = service.settings
    tickets = OneTimeCodes[auth_gate.TicketGrant]()
    rules = auth_gate.PortRules(
        refusals={
            live_routes.PATH: live_routes.DIALECT.send_refusal,
            openai_realtime_routes.REALTIME: openai_realtime_routes.DIALECT.send_refusal,
            yap_routes.PATH: yap_routes.dialect().send_refusal,
            s2s.PATH: s2s.DIALECT.send_refusal,
        },
        dialects=_error_dialects(settings),
        opens=lambda asked: (
            api_page.is_public_page(asked) or metrics_routes.is_public_metrics(settings, asked)
        ),
        tickets=tickets,
        tidy_prefixes=openai_routes.PREFIXES,
    )
    about = {"title": "vibevoice-asr", "version": __version__, "description": DESCRIPTION}
    routers = _routers(service, tickets)
    app = _application(service, entrance, routers, rules, lifespan=lifespan, **about)
    if service.traces is not None:
        app.add_middleware(middleware.ArrivalRecorder)
    if settings.role != ROLE_NODE:
        openapi.install_docs_page(app)
        api_page.install_page(app)
    return app


def _application(
    service: Service,
    entrance: authentication.AccessControl,
    routers: Sequence[APIRouter],
    rules: auth_gate.PortRules,
    **described: Any,
) -> FastAPI:
    """Return the application of one port."""
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to any Host that the client sends
        telemetry=NO_FRAMEWORK_TELEMETRY,  # type: ignore[arg-type]  # older versions ignore it
        **described,
    )
    for router in routers:
        app.include_router(router)
    install_middleware(app, service, entrance, rules)
    nothing = _not_on_a_node if service.settings.role == ROLE_NODE else errors.NotFound
    error_responses.install_error_handlers(
        app, *routers, dialects=rules.dialects, nothing_there=nothing
    )
    return app


def _not_on_a_node() -> errors.SidecarError:
    return errors.NotFound(
        hint="This is a node (role 'node'), which accepts no requests: send jobs to a front."
    )


def _routers(service: Service, tickets: OneTimeCodes[auth_gate.TicketGrant]) -> list[APIRouter]:
    """Return the routers of all HTTP protocols of this service."""
    operations = health_routes.build_router, metrics_routes.build_router
    if service.settings.role == ROLE_NODE:  # a node accepts no requests
        return [build(service) for build in operations]
    builders = (
        transcribe_routes.build_router,
        admin_routes.build_reload_router,
        job_routes.build_router,
        enrolled_speaker_routes.build_router,
        vvv.build_router,
        openai_routes.build_router,
        api_page.build_router,
        live_routes.build_router,
        yap_routes.build_router,
        s2s.build_router,
        openai_realtime_routes.build_talk_router,
        *operations,
        admin_routes.build_router,
    )
    return [
        live_routes.build_ticket_router(tickets),
        openai_realtime_routes.build_router(service, tickets),
        *(build(service) for build in builders),
    ]


def _error_dialects(settings: Settings) -> dict[str, error_responses.ErrorRenderer]:
    """Return the error renderers by the beginning of a path; other paths have the native one."""
    openai = *openai_routes.PATHS, *openai_realtime_routes.PATHS
    return {
        **dict.fromkeys(vvv.PATHS, vvv.error_response),
        **dict.fromkeys(openai, openai_common.error_response),
        admin_routes.PATH: admin_routes.install_error_format(on=settings.admin),
    }


def create_talk_app(service: Service, entrance: authentication.AccessControl, page: int) -> FastAPI:
    """Create the application for the page of the speech-to-speech demo at its own port.

    It has only that protocol's routes. Pages served on this machine at the port ``page`` may send
    requests.

    Raises:
        errors.SettingsInvalid: clients need a token, which that page cannot send.
    """
    if not entrance.authenticator.local_only:
        raise SettingsInvalid(
            "The service requires a token, and the pages of --talk-ports cannot send one.",
            hint="Remove one of the two; the routes of --port serve pages with a token, too.",
        )
    return _application(
        service,
        replace(entrance, origins=s2s.page_origins(page)),
        [s2s.build_router(service), s2s.build_secondary_port_router(service)],
        auth_gate.PortRules(
            refusals={s2s.PATH: s2s.DIALECT.send_refusal}, tidy_prefixes=openai_routes.PREFIXES
        ),
        openapi_url=None,
    )
