"""The composition root: the only place that builds everything, and closes it in reverse."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI

from sidecar import __version__
from sidecar.access.approach import is_loopback
from sidecar.access.auth import Access
from sidecar.access.certificate import Pair
from sidecar.access.entrance import Entrance
from sidecar.access.extra import needed_for
from sidecar.access.handover import Handover
from sidecar.access.known import authenticator_of, limits_of
from sidecar.access.turnstile import Turnstile
from sidecar.access.visits import OPEN, Visits
from sidecar.access.watched import Watch
from sidecar.engines.choice import choose, choose_for_others, choose_live
from sidecar.engines.voice_choice import choose_voice
from sidecar.errors import SettingsInvalid
from sidecar.service import Service
from sidecar.settings import FRONT, NODE, Settings, load_settings
from sidecar.transports.control import admin as admin_api
from sidecar.transports.control import api as control_api
from sidecar.transports.control import dialect as control_dialect
from sidecar.transports.erasure import api as erasure_api
from sidecar.transports.estimate import api as estimate_api
from sidecar.transports.http import (
    arrivals,
    counted,
    cut_off,
    docs_page,
    gate,
    head,
    lingering,
    problems,
)
from sidecar.transports.http import tickets as tickets_api
from sidecar.transports.http.handshake import Grant
from sidecar.transports.jobs import api as jobs_api
from sidecar.transports.live import api as live_api
from sidecar.transports.live_grpc import without_forks
from sidecar.transports.openai import api as openai_api
from sidecar.transports.openai_terms import dialect as openai_dialect
from sidecar.transports.page import api as page_api
from sidecar.transports.page import front
from sidecar.transports.people import api as people_api
from sidecar.transports.queue import api as queue_api
from sidecar.transports.queue import dialect as queue_dialect
from sidecar.transports.realtime import api as realtime_api
from sidecar.transports.sidecar import api as sidecar_api
from sidecar.transports.sidecar import standing
from sidecar.transports.streaming import api as streaming_api
from sidecar.transports.talk import api as talk_api
from sidecar.transports.talk import original as original_talk

if TYPE_CHECKING:
    from sidecar.transports.live_grpc.listener import LiveGrpc

log = logging.getLogger(__name__)

DESCRIPTION = """
Speech to text with speakers, for one machine. Post a recording to `/transcribe`, get back who said
what and when. Every error is `application/problem+json` with a stable `code` and a `hint`; at the
addresses of OpenAI's API, with the same code in its shape.
"""


QUIET = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""FastAPI's own telemetry: it would tell addresses and what exceptions say (docs/tracing.md)."""


def create_service(settings: Settings) -> Service:
    """The parts behind every wire.

    Raises:
        errors.EngineUnavailable: the engine that the settings name cannot run here.
        errors.BadCheckpoint: its weights are missing, or not usable.
    """
    choice = choose_for_others(settings) if settings.role == FRONT else choose(settings)
    log.info("engine %s: %s", choice.spec.name, choice.reason)
    if settings.role == NODE:
        return Service(settings, choice)
    live, reason = choose_live(settings, choice)
    log.info("live engine %s: %s", live.spec.name if live else "(none)", reason)
    voice, reason = choose_voice(settings, choice)
    log.info("voice %s: %s", voice.spec.name if voice else "(none)", reason)
    return Service(settings, choice, live=live, voice=voice)


def access_of(settings: Settings, watch: Watch) -> Access:
    """Who may come in; ``watch`` looks at the files that this hangs on.

    Raises:
        errors.SettingsInvalid: the service would be open to the network.
    """
    authenticator = authenticator_of(settings, watch)
    anywhere = not is_loopback(settings.host)
    if anywhere and authenticator.local_only:
        raise SettingsInvalid(
            f"Other machines can reach the address {settings.host}, and there is no token and no "
            "key of signed ones.",
            hint="Set VIBEVOICE_TOKEN (or --token-file), make a signed one with 'vibevoice-asr "
            "token create --subject NAME', or listen on 127.0.0.1.",
        )
    if anywhere and not settings.encrypted and not settings.forwarded_allow_ips:
        log.warning(
            "tokens and recordings cross the network unencrypted: set --tls-cert with --tls-key or "
            "--tls self-signed, or put a proxy with TLS in front (--forwarded-allow-ips)"
        )
    listens = f"[{settings.host}]" if ":" in settings.host else settings.host
    return Access(
        names=frozenset(name.lower() for name in (listens, *settings.allowed_hosts)),
        anywhere=anywhere,
        origins=frozenset(settings.allowed_origins),
        localhost_origins=settings.allow_localhost_origins,
        authenticator=authenticator,
        limits=limits_of(settings),
    )


def entrance_of(settings: Settings, watch: Watch) -> Entrance:
    """What all wires have in common of who may come in; ``watch`` as in `access_of`.

    Raises:
        errors.SettingsInvalid: the service would be open to the network.
    """
    access = access_of(settings, watch)
    per_minute = access.limits.requests_per_minute
    turnstile = Turnstile(per_minute) if per_minute else None
    most = OPEN + settings.queue_limit + settings.live_sessions
    return Entrance(access, turnstile, Visits(access.authenticator.refusal, most=most))


def create_listeners(
    settings: Settings,
    service: Service,
    entrance: Entrance,
    watch: Watch,
    grpc: socket.socket | None,
    tls: Pair | None = None,
) -> list[LiveGrpc]:
    """What serves beside HTTP. ``grpc`` has the port of it, and is closed when that is listened at;
    ``tls`` are the files that connections are encrypted by.

    Raises:
        errors.SettingsInvalid: a package is missing, a file cannot be used, or settings contradict
            each other.
    """
    if grpc is None:
        return []
    without_forks()
    with needed_for("Calls over gRPC", "grpc"):
        from sidecar.transports.live_grpc.encryption import credentials_of
        from sidecar.transports.live_grpc.listener import LiveGrpc
    clients = settings.grpc_client_ca
    if clients is not None and tls is None:
        raise SettingsInvalid(
            "Clients are asked for certificates, and nothing is encrypted (--grpc-client-ca).",
            hint="Set --tls-cert with --tls-key, or --tls self-signed.",
        )
    credentials = credentials_of(tls, watch, clients) if tls else None
    return [LiveGrpc(service, entrance, grpc, credentials)]


def create_app(
    settings: Settings | None = None,
    service: Service | None = None,
    watch: Watch | None = None,
    entrance: Entrance | None = None,
) -> FastAPI:
    """The whole service as an ASGI application; without a ``service`` it makes its own. ``watch``
    looks at files while it runs; who comes by other wires comes by the same ``entrance``.

    Raises:
        errors.SettingsInvalid: the environment or the file holds an impossible setting.
        errors.EngineUnavailable: the engine cannot run here.
        errors.BadCheckpoint: its weights are missing, or not usable.
    """
    settings = settings or load_settings()
    service = service or create_service(settings)
    watch = watch or Watch()
    entrance = entrance or entrance_of(settings, watch)
    app = FastAPI(
        title="vibevoice-asr",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(service, watch, entrance.visits),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever Host the client claims
        telemetry=QUIET,  # type: ignore[arg-type]  # older ones have no such thing, and take it
    )
    tickets = Handover[Grant]()
    routers = _routers(service, tickets)
    for router in routers:
        app.include_router(router)
    app.add_middleware(counted.Route)
    app.add_middleware(head.Head)
    dialects = _dialects(settings)
    app.add_middleware(
        gate.Gate,
        access=entrance.access,
        turnstile=entrance.turnstile,
        dialects=dialects,
        visits=entrance.visits,
        opens=lambda asked: front.is_open(asked) or control_api.is_open(settings, asked),
        refusals={
            live_api.PATH: live_api.refuse,
            realtime_api.REALTIME: realtime_api.refuse,
            streaming_api.PATH: streaming_api.refuse(settings),
            talk_api.PATH: talk_api.refuse,
        },
        tickets=tickets,
    )
    app.add_middleware(lingering.Lingering)
    app.add_middleware(cut_off.CutOff, dialects=dialects)
    app.add_middleware(counted.Counted, tally=service.tally.wires)
    if service.traces.on:
        app.add_middleware(arrivals.Arrivals)
    if settings.role != NODE:
        docs_page.install(app)
        front.install(app)
    problems.install(app, *routers, dialects=dialects)
    return app


def _lifespan(
    service: Service, watch: Watch, visits: Visits
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """From the first request to the last: the service is open, and files are looked at."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        gc.collect()
        gc.freeze()
        spawn = asyncio.get_running_loop().create_task
        looking = spawn(watch.run(), name="watch"), spawn(visits.run(), name="visits")
        try:
            yield
        finally:
            for task in looking:
                task.cancel()
            await service.close()

    return lifespan


def _routers(service: Service, tickets: Handover[Grant]) -> list[APIRouter]:
    """Every wire over HTTP that this service has."""
    if service.settings.role == NODE:  # it takes nothing in: it is looked after, and that is all
        return [standing.build_router(service), control_api.build_router(service)]
    wires = (
        *(standing, sidecar_api, estimate_api, jobs_api, people_api, erasure_api, queue_api),
        *(openai_api, page_api, live_api, streaming_api, talk_api, control_api, admin_api),
    )
    return [
        tickets_api.build_router(tickets),
        realtime_api.build_router(service, tickets),
        *(wire.build_router(service) for wire in wires),
    ]


def _dialects(settings: Settings) -> dict[str, problems.Say]:
    """In whose words errors are told, by the beginning of an address; in ours elsewhere."""
    return {
        **dict.fromkeys(queue_api.PATHS, queue_dialect.say),
        **dict.fromkeys((*openai_api.PATHS, *realtime_api.PATHS), openai_dialect.say),
        admin_api.PATH: control_dialect.say_where(on=settings.admin),
    }


def create_talk_app(service: Service, entrance: Entrance, page: int) -> FastAPI:
    """What the page of the speech-to-speech demo finds at its own port, and nothing else: pages
    that are served on this machine at the port ``page`` may ask.

    Raises:
        errors.SettingsInvalid: somebody has to say who they are, which that page cannot.
    """
    if not entrance.access.authenticator.local_only:
        raise SettingsInvalid(
            "A token is asked for, and the page for which there is --talk-ports sends none.",
            hint="Have one of the two; what is at --port is there for pages with a token, too.",
        )
    app = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        telemetry=QUIET,  # type: ignore[arg-type]  # as above
    )
    routers = [talk_api.build_router(service), original_talk.build_router(service)]
    for router in routers:
        app.include_router(router)
    app.add_middleware(counted.Route)
    app.add_middleware(head.Head)
    app.add_middleware(
        gate.Gate,
        access=replace(entrance.access, origins=original_talk.origins(page)),
        turnstile=entrance.turnstile,
        visits=entrance.visits,
        refusals={talk_api.PATH: talk_api.refuse},
    )
    app.add_middleware(lingering.Lingering)
    app.add_middleware(cut_off.CutOff)
    app.add_middleware(counted.Counted, tally=service.tally.wires)
    problems.install(app, *routers)
    return app
