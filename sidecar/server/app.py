"""Composition root: builds the service, its access control and its applications.

What the first answer of `/health` does not need is imported later: routes, protocols and FastAPI
(`server/http_app.py`).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sidecar.auth import authentication
from sidecar.auth.allowed_hosts import allowed_hosts_of
from sidecar.auth.rate_limits import MAX_OPEN_STREAMS, RateLimiter, RevocableStreams
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings
from sidecar.engines import engine_selection, engine_spec, missing_packages
from sidecar.errors import SettingsInvalid
from sidecar.file_watcher import FileWatcher
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, TtsSpec
from sidecar.plugin import PluginPort, PortParts, ProtocolListener
from sidecar.plugins import enabled, load_settings, shared_jobs_of, voices_of
from sidecar.server.staged_app import StagedApp, create_health_app, service_lifespan
from sidecar.service.facade import Service

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from sidecar.api.http.auth_gate import PortRules
    from sidecar.auth.tls import CertificatePair

log = logging.getLogger(__name__)


def create_service(settings: Settings) -> Service:
    """Create the service that all protocols use; it is closed if a part of a plugin cannot be
    created.

    Raises:
        errors.EngineUnavailable: the engine in the settings cannot run here, or does not support
            the language in the settings.
        errors.BadCheckpoint: its weights are missing or not usable.
        errors.SettingsInvalid: a folder, a database or a plugin's part cannot be used.
    """
    if settings.is_front:
        choice = engine_selection.choose_engine_for_nodes(settings)
    else:
        choice = engine_selection.choose_engine(settings)
    engine_selection.check_language(choice.spec, settings)
    best = engine_spec(engine_selection.VIBEVOICE)
    wanted = settings.engine != AUTO or not missing_packages(best)
    _log_choice("engine", choice, choice.reason, wanted=wanted)
    if substituted := choice.spec.substitution(settings.precision):
        log.warning("%s", substituted)
    live: engine_selection.EngineChoice[EngineSpec] | None = None
    voice: engine_selection.EngineChoice[TtsSpec] | None = None
    plugins = enabled(settings)
    if not settings.is_node:
        live, reason = engine_selection.choose_live_engine(settings, choice)
        _log_choice("live engine", live, reason, wanted=True)
        if (voices := voices_of(plugins)) is not None:
            voice, reason = voices.choose(settings)
            _log_choice("TTS engine", voice, reason, wanted=voice is not None)
    shared = shared_jobs_of(settings)
    service = Service(settings, choice, live=live, voice=voice, shared=shared)
    try:
        for create_part in (plugin.create_part for plugin in plugins):
            if create_part is not None and (part := create_part(service)) is not None:
                service.parts.append(part)
    except BaseException:
        with ThreadPoolExecutor(1) as pool:  # a host may run an event loop in this thread
            pool.submit(asyncio.run, service.close()).exception()
        raise
    return service


def _log_choice(
    role: str, choice: engine_selection.EngineChoice[Any] | None, reason: str, *, wanted: bool
) -> None:
    """Log an engine. What a base installation lacks, and nobody asked for, is no news."""
    level = logging.INFO if wanted else logging.DEBUG
    log.log(level, "%s %s: %s", role, choice.spec.name if choice else "(none)", reason)


def create_access_control(settings: Settings, watcher: FileWatcher) -> authentication.AccessControl:
    """Create the access control of all protocols; ``watcher`` reloads the files that it depends on.

    Raises:
        errors.SettingsInvalid: the service would be open to the network.
    """
    authenticator = authentication.create_authenticator(settings, watcher)
    anywhere = not is_loopback_address(settings.host)
    if anywhere and authenticator.local_only:
        raise SettingsInvalid(
            f"Other machines can reach the address {settings.host}, and there is neither a "
            "token nor a key of signed tokens.",
            hint="Set VIBEVOICE_TOKEN (or --token @FILE), issue a signed token with "
            "'vibevoice-asr token create --subject NAME', or listen on 127.0.0.1.",
        )
    if anywhere and not settings.encrypted and not settings.forwarded_allow_ips:
        log.warning(
            "tokens and recordings cross the network unencrypted: set --tls FILE with --tls-key or "
            "--tls self-signed, or put a proxy with TLS in front (--forwarded-allow-ips)"
        )
    limits = authentication.owner_limits_of(settings)
    per_minute = limits.requests_per_minute
    most = MAX_OPEN_STREAMS + settings.queue_limit + settings.live_sessions
    return authentication.AccessControl(
        hosts=allowed_hosts_of(settings),
        origins=frozenset(settings.allowed_origins),
        localhost_origins="localhost" in settings.allowed_origins,
        authenticator=authenticator,
        limits=limits,
        rate_limiter=RateLimiter(per_minute) if per_minute else None,
        streams=RevocableStreams(authenticator.refusal, most=most),
    )


def create_listeners(
    settings: Settings,
    service: Service,
    access: authentication.AccessControl,
    watcher: FileWatcher,
    ports: Mapping[str, socket.socket],
    pair: CertificatePair | None = None,
) -> list[ProtocolListener]:
    """Create the listeners of the ``ports`` beside HTTP (`reserve_ports`); ``pair``: the files
    of TLS.

    Raises:
        errors.SettingsInvalid: a package is missing, a file cannot be used, or settings contradict
            each other.
    """
    listeners = []
    for port in (port for plugin in enabled(settings) for port in plugin.ports):
        if (sock := ports.get(port.field)) is not None:
            http = partial(_http_listener, port, service, sock)
            parts = PortParts(settings, service, access, watcher, sock, pair, http)
            listeners.append(port.create_listener(parts))
    return listeners


def _http_listener(
    port: PluginPort,
    service: Service,
    sock: socket.socket,
    access: authentication.AccessControl,
    routers: Sequence[APIRouter],
    rules: PortRules,
) -> ProtocolListener:
    """Create the listener of an HTTP application that a plugin has at a ``port`` of its own."""
    from sidecar.server.http_app import create_application
    from sidecar.server.http_server import SecondaryPort, uvicorn_config

    app = create_application(service, access, routers, rules, openapi_url=None)
    return SecondaryPort(port.field, uvicorn_config(app, service.settings), sock, port.hint)


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """Create the whole ASGI application of a service, which is created if ``service`` is `None`.

    Raises:
        errors.SettingsInvalid: the environment or the file has an invalid setting.
        errors.EngineUnavailable: the engine cannot run here.
        errors.BadCheckpoint: its weights are missing or not usable.
    """
    settings = settings or load_settings()
    service = service or create_service(settings)
    watcher = FileWatcher()
    access = create_access_control(settings, watcher)
    from sidecar.server.http_app import create_whole_app

    def freeze_imports() -> None:
        """Exclude what is imported from collections of garbage, which are up to the program that
        this application is a part of."""
        gc.collect()
        gc.freeze()

    lifespan = service_lifespan(service, watcher, access.streams, opened=freeze_imports)
    return create_whole_app(service, access, lifespan)


def create_staged_app(
    service: Service, watcher: FileWatcher, access: authentication.AccessControl
) -> StagedApp:
    """Create the application that answers `/health` first, and the rest once it is imported.

    Raises:
        ModuleNotFoundError: the installation lacks what is imported later.
    """
    for name in ("fastapi", "sidecar.server.http_app"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def build() -> FastAPI:
        from sidecar.server.http_app import create_whole_app

        return create_whole_app(service, access)

    lifespan = service_lifespan(service, watcher, access.streams)
    return StagedApp(create_health_app(service, access, lifespan), build)
