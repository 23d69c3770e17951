"""Who answers here, and how the service is.

What the desktop host looks at, and whoever looks after a service that only works.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, Response

from sidecar import __version__
from sidecar.api import transcribe_schemas
from sidecar.api.http.bodies import json_response
from sidecar.config.settings import Settings
from sidecar.observability import classic
from sidecar.service import Health, Service
from sidecar.transcripts.local_voices import FIELD, FORM
from sidecar.version import CONTRACT

VLLM = {"ok": "ok", "loading": "degraded", "stopping": "unreachable"}
"""How the queue server's clients are told of an engine: by what they look at, its backend."""


def build_router(service: Service) -> APIRouter:
    """The routes that say it."""
    router = APIRouter()

    @router.get("/", summary="Who answers here", response_model=transcribe_schemas.Root)
    async def root() -> Response:
        return json_response(
            {"service": "vibevoice-asr", "version": __version__, "status": "running"},
            headers={"Vary": "Accept"},  # who asks for HTML gets the page (transports/page)
        )

    @router.get("/health", summary="How the service is", response_model=transcribe_schemas.Health)
    async def health() -> Response:
        now = await service.looked()
        failing = now.trouble is not None and _says_so(service.settings)
        return json_response(
            {
                "status": "error" if failing else _status(now),
                "model_loaded": now.model_loaded,
                "gpu_available": now.gpu is not None,
                "vram_used_mb": now.gpu.used_mb if now.gpu else None,
                "vram_total_mb": now.gpu.total_mb if now.gpu else None,
                "contract": CONTRACT,
                "version": now.version,
                "pid": os.getpid(),
                "instance": now.instance,
                "engine": now.engine,
                "precision": now.precision,
                "engine_state": now.state.value,
                "load_percent": None if now.loading is None else round(100 * now.loading),
                "worker_pid": now.worker_pid,
                "live_engine": now.live and now.live.engine,
                "live_engine_state": now.live and now.live.state.value,
                "jobs_waiting": now.jobs_waiting,
                "vllm": VLLM[_status(now)],
                "pipeline_state": service.conversations.phase.value,
                "initialized": service.live.spec is not None,
                **({FIELD: FORM} if service.offers_voices else {}),
                **now.also,
                **_classic(service, now),
            },
            status=500 if failing else 200,
        )

    return router


def _says_so(settings: Settings) -> bool:
    """Whether 500 tells that it is not healthy."""
    return (
        settings.grpc_port is not None
        if settings.health_errors is None
        else (settings.health_errors)
    )


def _classic(service: Service, now: Health) -> dict[str, Any]:
    """What those read who had the server whose wire gRPC is."""
    pids = sum(one.worker_pid is not None for one in now.engines.values())
    crashes = sum(one.crashes for one in now.engines.values())
    return {
        "grpc_running": "grpc_port" in now.also,
        "model_pool_healthy": now.trouble is None,
        **classic.health(service.tally, now.live_sessions, now.jobs_waiting, pids, crashes),
    }


def _status(now: Health) -> str:
    if now.stopping:
        return "stopping"
    return "ok" if now.loading is None else "loading"
