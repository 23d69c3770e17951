"""Composition root: builds the service and its routes, and closes them in reverse."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from sidecar import errors
from sidecar.api import (
    admin_routes,
    enrolled_speaker_routes,
    estimate_routes,
    health_routes,
    job_routes,
    live_routes,
    metrics_routes,
    system_routes,
    transcribe_routes,
)
from sidecar.api import page as api_page
from sidecar.api.http import auth_gate, error_responses, middleware, openapi
from sidecar.api.http.auth_gate import TicketGrant
from sidecar.auth import authentication
from sidecar.auth.one_time_codes import OneTimeCodes
from sidecar.auth.open_connections import MAX_OPEN_STREAMS, RevocableStreams
from sidecar.auth.rate_limits import RateLimiter
from sidecar.auth.request_origin import is_loopback_address
from sidecar.auth.self_signed_certificate import CertificatePair
from sidecar.concurrency import running
from sidecar.config.settings import ROLE_FRONT, ROLE_NODE, Settings, load_settings
from sidecar.engines import engine_selection, engine_spec, missing_packages
from sidecar.errors import SettingsInvalid
from sidecar.files import FileWatcher
from sidecar.installation import needed_for
from sidecar.interfaces.engine_interface import AUTO
from sidecar.jobs import owner_quotas
from sidecar.protocols import openai_common, vvv
from sidecar.protocols.grpc_stt import disable_fork_support
from sidecar.protocols.openai import routes as openai_routes
from sidecar.protocols.openai_realtime import routes as openai_realtime_routes
from sidecar.protocols.s2s import routes as s2s_routes
from sidecar.protocols.yap import routes as yap_routes
from sidecar.service.facade import Service
from sidecar.tts.tts_engine_selection import choose_tts_engine
from sidecar.version import __version__

if TYPE_CHECKING:
    from sidecar.protocols.grpc_stt.server import GrpcServer

log = logging.getLogger(__name__)

DESCRIPTION = """
Speech to text with speakers, for one machine. Post a recording to `/transcribe`, get back who said
what and when. Every error is `application/problem+json` with a stable `code` and a `hint`; at the
addresses of OpenAI's API, with the same code in its shape.
"""


NO_FRAMEWORK_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""FastAPI's own telemetry is off: it would export addresses and messages of exceptions
(docs/tracing.md)."""


def create_service(settings: Settings) -> Service:
    """Create the service that all protocols use.

    Raises:
        errors.EngineUnavailable: the engine in the settings cannot run here, or does not support
            the language in the settings.
        errors.BadCheckpoint: its weights are missing or not usable.
    """
    choose = (
        engine_selection.choose_engine_for_nodes
        if settings.role == ROLE_FRONT
        else engine_selection.choose_engine
    )
    choice = choose(settings)
    engine_selection.check_language(choice.spec, settings)
    wanted = settings.engine != AUTO or not missing_packages(
        engine_spec(engine_selection.VIBEVOICE)
    )
    _log_choice("engine", choice, choice.reason, wanted=wanted)
    if substituted := choice.spec.substitution(settings.precision):
        log.warning("%s", substituted)
    if settings.role == ROLE_NODE:
        return Service(settings, choice)
    live, reason = engine_selection.choose_live_engine(settings, choice)
    _log_choice("live engine", live, reason, wanted=True)
    voice, reason = choose_tts_engine(settings, choice)
    _log_choice("TTS engine", voice, reason, wanted=voice is not None)
    return Service(settings, choice, live=live, voice=voice)


def _log_choice(
    role: str, choice: engine_selection.EngineChoice[Any] | None, reason: str, *, wanted: bool
) -> None:
    """Log an engine. What a base installation lacks, and nobody asked for, is no news."""
    level = logging.INFO if wanted else logging.DEBUG
    log.log(level, "%s %s: %s", role, choice.spec.name if choice else "(none)", reason)


def create_access(settings: Settings, watch: FileWatcher) -> authentication.AccessPolicy:
    """Create the access policy; ``watch`` reloads the files that it depends on.

    Raises:
        errors.SettingsInvalid: the service would be open to the network.
    """
    authenticator = authentication.create_authenticator(settings, watch)
    anywhere = not is_loopback_address(settings.host)
    if anywhere and authenticator.local_only:
        raise SettingsInvalid(
            f"Other machines can reach the address {settings.host}, and there is neither a "
            "token nor a key of signed tokens.",
            hint=(
                "Set VIBEVOICE_TOKEN (or --token @FILE), issue a signed token with "
                "'vibevoice-asr token create --subject NAME', or listen on 127.0.0.1."
            ),
        )
    if anywhere and not settings.encrypted and not settings.forwarded_allow_ips:
        log.warning(
            "tokens and recordings cross the network unencrypted: set --tls FILE with --tls-key or "
            "--tls self-signed, or put a proxy with TLS in front (--forwarded-allow-ips)"
        )
    listens = f"[{settings.host}]" if ":" in settings.host else settings.host
    return authentication.AccessPolicy(
        names=frozenset(name.lower() for name in (listens, *settings.allowed_hosts)),
        anywhere=anywhere,
        origins=frozenset(settings.allowed_origins),
        localhost_origins="localhost" in settings.allowed_origins,
        authenticator=authenticator,
        limits=owner_quotas.owner_limits_of(settings),
    )


def create_entrance(settings: Settings, watch: FileWatcher) -> authentication.AccessControl:
    """Create the access control of all protocols; ``watch`` as in `create_access`.

    Raises:
        errors.SettingsInvalid: the service would be open to the network.
    """
    access = create_access(settings, watch)
    per_minute = access.limits.requests_per_minute
    rate_limiter = RateLimiter(per_minute) if per_minute else None
    most = MAX_OPEN_STREAMS + settings.queue_limit + settings.live_sessions
    return authentication.AccessControl(
        access, rate_limiter, RevocableStreams(access.authenticator.refusal, most=most)
    )


def create_listeners(
    settings: Settings,
    service: Service,
    entrance: authentication.AccessControl,
    watch: FileWatcher,
    grpc: socket.socket | None,
    tls: CertificatePair | None = None,
) -> list[GrpcServer]:
    """Create the listeners beside HTTP.

    ``grpc`` is the socket that reserves the port; it is closed when the server listens there.
    ``tls`` are the files of TLS.

    Raises:
        errors.SettingsInvalid: a package is missing, a file cannot be used, or settings contradict
            each other.
    """
    if grpc is None:
        return []
    disable_fork_support()
    with needed_for("Calls over gRPC", "grpc"):
        from sidecar.protocols.grpc_stt.server import GrpcServer, server_credentials
    clients = settings.grpc_client_ca
    if clients is not None and tls is None:
        raise SettingsInvalid(
            "--grpc-client-ca requires clients' certificates, but TLS is off.",
            hint="Set --tls FILE with --tls-key, or --tls self-signed.",
        )
    credentials = server_credentials(tls, watch, clients) if tls else None
    return [GrpcServer(service, entrance, grpc, credentials)]


def create_app(
    settings: Settings | None = None,
    service: Service | None = None,
    watch: FileWatcher | None = None,
    entrance: authentication.AccessControl | None = None,
) -> FastAPI:
    """Create the ASGI application of a service, which is created if ``service`` is `None`.

    ``watch`` reloads files; ``entrance`` is the access control, shared with the other protocols.

    Raises:
        errors.SettingsInvalid: the environment or the file has an invalid setting.
        errors.EngineUnavailable: the engine cannot run here.
        errors.BadCheckpoint: its weights are missing or not usable.
    """
    settings = settings or load_settings()
    service = service or create_service(settings)
    watch = watch or FileWatcher()
    entrance = entrance or create_entrance(settings, watch)
    tickets = OneTimeCodes[TicketGrant]()
    app = _application(
        service,
        entrance.access,
        entrance,
        _routers(service, tickets),
        refusals={
            live_routes.PATH: live_routes.DIALECT.send_refusal,
            openai_realtime_routes.REALTIME: openai_realtime_routes.DIALECT.send_refusal,
            yap_routes.PATH: yap_routes.dialect().send_refusal,
            s2s_routes.PATH: s2s_routes.DIALECT.send_refusal,
        },
        dialects=_error_dialects(settings),
        opens=lambda asked: (
            api_page.is_public_page(asked) or metrics_routes.is_public_metrics(settings, asked)
        ),
        tickets=tickets,
        title="vibevoice-asr",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(service, watch, entrance.visits),
        docs_url=None,
        redoc_url=None,
    )
    if service.traces.on:
        app.add_middleware(middleware.ArrivalRecorder)
    if settings.role != ROLE_NODE:
        openapi.install_docs_page(app)
        api_page.install_page(app)
    return app


def _application(
    service: Service,
    access: authentication.AccessPolicy,
    entrance: authentication.AccessControl,
    routers: Sequence[APIRouter],
    *,
    refusals: auth_gate.WebSocketRefusals,
    dialects: error_responses.ErrorDialects = error_responses.NO_DIALECTS,
    opens: auth_gate.IsPublic = lambda scope: False,
    tickets: OneTimeCodes[TicketGrant] | None = None,
    **described: Any,
) -> FastAPI:
    """Return the application of one port; the outermost middleware is added last."""
    app = FastAPI(
        redirect_slashes=False,  # a redirect would go to any Host that the client sends
        telemetry=NO_FRAMEWORK_TELEMETRY,  # type: ignore[arg-type]  # older versions ignore it
        **described,
    )
    for router in routers:
        app.include_router(router)
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
    app.add_middleware(middleware.TidyPaths, prefixes=openai_routes.PREFIXES)
    app.add_middleware(middleware.RequestMetrics, tally=service.tally.wires)
    node = service.settings.role == ROLE_NODE
    error_responses.install_error_handlers(
        app,
        *routers,
        dialects=dialects,
        nothing_there=_not_on_a_node if node else errors.NotFound,
    )
    return app


def _not_on_a_node() -> errors.SidecarError:
    return errors.NotFound(
        hint="This is a node (role 'node'), which accepts no requests: send jobs to a front."
    )


def _lifespan(
    service: Service, watch: FileWatcher, visits: RevocableStreams
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return the lifespan: the service is open, files and credentials are checked repeatedly."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        gc.freeze()  # what was imported stays; see `sidecar/cli/__init__.py`
        gc.enable()
        try:
            async with running(watch.run(), visits.run()):
                yield
        finally:
            await service.close()

    return lifespan


def _routers(service: Service, tickets: OneTimeCodes[TicketGrant]) -> list[APIRouter]:
    """Return the routers of all HTTP protocols of this service."""
    operations = (
        metrics_routes.build_router,
        system_routes.build_router,
        health_routes.build_probes_router,
    )
    if service.settings.role == ROLE_NODE:  # a node accepts no requests
        return [build(service) for build in (health_routes.build_health_router, *operations)]
    builders = (
        health_routes.build_health_router,
        transcribe_routes.build_router,
        admin_routes.build_reload_router,
        estimate_routes.build_router,
        job_routes.build_router,
        enrolled_speaker_routes.build_router,
        enrolled_speaker_routes.build_erasure_router,
        vvv.build_router,
        openai_routes.build_router,
        api_page.build_router,
        live_routes.build_router,
        yap_routes.build_router,
        s2s_routes.build_router,
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
    return {
        **dict.fromkeys(vvv.PATHS, vvv.error_response),
        **dict.fromkeys(
            (*openai_routes.PATHS, *openai_realtime_routes.PATHS), openai_common.error_response
        ),
        admin_routes.PATH: admin_routes.install_error_format(on=settings.admin),
    }


def create_talk_app(service: Service, entrance: authentication.AccessControl, page: int) -> FastAPI:
    """Create the application for the page of the speech-to-speech demo at its own port.

    It has only that protocol's routes. Pages served on this machine at the port ``page`` may send
    requests.

    Raises:
        errors.SettingsInvalid: clients need a token, which that page cannot send.
    """
    if not entrance.access.authenticator.local_only:
        raise SettingsInvalid(
            "The service requires a token, and the pages of --talk-ports cannot send one.",
            hint="Remove one of the two; the routes of --port serve pages with a token, too.",
        )
    return _application(
        service,
        replace(entrance.access, origins=s2s_routes.page_origins(page)),
        entrance,
        [s2s_routes.build_router(service), s2s_routes.build_secondary_port_router(service)],
        refusals={s2s_routes.PATH: s2s_routes.DIALECT.send_refusal},
        openapi_url=None,
    )
