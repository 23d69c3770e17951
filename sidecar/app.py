"""The composition root: the only place that builds everything, and closes it in reverse."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from sidecar import __version__
from sidecar.runtime.choice import choose
from sidecar.service import Service
from sidecar.settings import Settings, load_settings
from sidecar.transports import docs_page, estimate_api, problems, sidecar_api

log = logging.getLogger(__name__)

DESCRIPTION = """
Speech to text with speakers, for one machine. Post a recording to `/transcribe`, get back who said
what and when. Every error is `application/problem+json` with a stable `code` and a `hint`.
"""


def create_service(settings: Settings) -> Service:
    """The parts behind every wire.

    Raises:
        errors.EngineUnavailable: the engine that the settings name cannot run here.
        errors.BadCheckpoint: its weights are missing, or not usable.
    """
    choice = choose(settings)
    log.info("engine %s: %s", choice.spec.name, choice.reason)
    return Service(settings, choice)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The whole service as an ASGI application.

    Raises:
        errors.SettingsInvalid: the environment or the file holds an impossible setting.
        errors.EngineUnavailable: the engine cannot run here.
        errors.BadCheckpoint: its weights are missing, or not usable.
    """
    settings = settings or load_settings()
    service = create_service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="vibevoice-asr",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever Host the client claims
    )
    routers = [sidecar_api.build_router(service), estimate_api.build_router(service)]
    for router in routers:
        app.include_router(router)
    docs_page.install(app)
    problems.install(app, *routers)
    return app
