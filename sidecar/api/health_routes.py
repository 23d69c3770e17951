"""Routes of / and /health, and the probes (/healthz), with schemas.

What the desktop host looks at, and whoever looks after a service that only works.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from sidecar import __version__
from sidecar.api.http.responses import json_response
from sidecar.config.settings import Settings
from sidecar.errors import JournalUnreachable
from sidecar.observability import prometheus
from sidecar.service.facade import Service, ServiceHealth
from sidecar.transcripts.speaker_embeddings import LOCAL_VOICES_FIELD, WINDOW_FORMAT
from sidecar.version import CONTRACT


class RootAnswer(BaseModel):
    """Description of the service."""

    service: str = Field(examples=["vibevoice-asr"])
    version: str = Field(examples=["0.2.0"])
    status: str = Field(examples=["running"])


class HealthAnswer(BaseModel):
    """How the service is: 200 whatever it is doing, unless the setting 'health_errors' wants 500
    where it is not healthy."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(
        examples=["ok"], description="ok, loading, or stopping: it ends soon; with 500 error."
    )
    model_loaded: bool
    gpu_available: bool
    vram_used_mb: int | None
    vram_total_mb: int | None
    contract: int = Field(
        examples=[1], description="Version of what a host relies on (docs/embedding.md)."
    )
    version: str = Field(examples=["0.2.0"])
    pid: int = Field(examples=[4242], description="Process id of the service.")
    instance: str = Field(description="New at every start: tells an orphan from the real one.")
    engine: str = Field(examples=["moonshine"])
    precision: str = Field(examples=["int8"], description="In use, or used once it is loaded.")
    requested_precision: str = Field(
        examples=["auto"],
        description="By the setting 'precision'; an engine that lacks it uses its own.",
    )
    engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] = Field(
        description="stuck: its process hangs where nothing ends it, and no work is done."
    )
    load_percent: int | None = Field(description="While an engine is being loaded.")
    worker_pid: int | None = Field(description="Process id of the engine, null if not loaded.")
    live_engine: str | None = Field(
        examples=["moonshine"], description="For live audio, null where none hears it."
    )
    live_engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] | None
    jobs_waiting: int = Field(examples=[0])
    vllm: Literal["ok", "degraded", "unreachable"] = Field(
        description=(
            "For clients of the queue server that this service stands in for, which ask how its "
            "engine is: ok, it takes recordings; degraded, it is being loaded; unreachable, the "
            "service ends."
        )
    )
    pipeline_state: str = Field(
        examples=["idle"], description="What conversations are doing, for their page."
    )
    initialized: bool = Field(description="Whether there is an ear for conversations.")
    grpc_port: int = Field(
        default=0, examples=[50051], description="Port of gRPC; there only where it is on."
    )
    wyoming_port: int = Field(
        default=0, examples=[10300], description="Port of Wyoming; there only where it is on."
    )
    talk_port: int = Field(
        default=0,
        examples=[8005],
        description="Port for the page of the speech-to-speech demo; there only where it is on.",
    )
    local_voices: str = Field(
        default="",
        examples=[WINDOW_FORMAT],
        description=(
            "Form of what a service of the same build may ask for with a piece of a recording, to "
            "tell voices apart over all of it; there only where it is to be had."
        ),
    )
    grpc_running: bool
    model_pool_healthy: bool = Field(description="Whether what was recognised lately went well.")
    models_loaded: bool
    model_count: int = Field(description="Engines in memory.")
    model_worker_total: int = Field(description="Processes of engines.")
    model_worker_shutdown: int = Field(description="How many of them died since the start.")
    active_sessions: int = Field(description="Live ones.")
    decode_queue_depth: int = Field(description="Recordings that wait.")
    decode_latency_avg: float = Field(description="Seconds of work for a stretch of live speech.")
    decode_latency_max: float


NO_STORE = {"Cache-Control": "no-store"}
VLLM_STATUS = {"ok": "ok", "loading": "degraded", "stopping": "unreachable"}
"""How the queue server's clients are told of an engine: by what they look at, its backend."""


def build_health_router(service: Service) -> APIRouter:
    """The routes that say it."""
    router = APIRouter()

    @router.get("/", summary="Who answers here", response_model=RootAnswer)
    async def root() -> Response:
        return json_response(
            {"service": "vibevoice-asr", "version": __version__, "status": "running"},
            headers={"Vary": "Accept"},  # who asks for HTML gets the page (api/page.py)
        )

    @router.get("/health", summary="How the service is", response_model=HealthAnswer)
    async def health() -> Response:
        now = await service.looked()
        failing = now.trouble is not None and _reports_500(service.settings)
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
                "requested_precision": service.settings.precision.value,
                "engine_state": now.state.value,
                "load_percent": None if now.loading is None else round(100 * now.loading),
                "worker_pid": now.worker_pid,
                "live_engine": now.live and now.live.engine,
                "live_engine_state": now.live and now.live.state.value,
                "jobs_waiting": now.jobs_waiting,
                "vllm": VLLM_STATUS[_status(now)],
                "pipeline_state": service.conversations.phase.value,
                "initialized": service.live.spec is not None,
                **({LOCAL_VOICES_FIELD: WINDOW_FORMAT} if service.offers_voices else {}),
                **now.also,
                **_classic_health(service, now),
            },
            status=500 if failing else 200,
        )

    return router


def _reports_500(settings: Settings) -> bool:
    """Return whether an unhealthy service answers 500."""
    if settings.health_errors is None:
        return settings.grpc_port is not None
    return settings.health_errors


def _classic_health(service: Service, now: ServiceHealth) -> dict[str, Any]:
    """Return the fields of `/health` for clients of the server whose wire gRPC is."""
    pids = sum(one.worker_pid is not None for one in now.engines.values())
    crashes = sum(one.crashes for one in now.engines.values())
    return {
        "grpc_running": "grpc_port" in now.also,
        "model_pool_healthy": now.trouble is None,
        **prometheus.stt_health(service.tally, now.live_sessions, now.jobs_waiting, pids, crashes),
    }


def _status(now: ServiceHealth) -> str:
    if now.stopping:
        return "stopping"
    return "ok" if now.loading is None else "loading"


class ProbeAnswer(BaseModel):
    """Result of a probe, and the reason."""

    status: str = Field(examples=["ok"])
    reason: str | None = Field(
        None,
        examples=["stopping"],
        description="starting, stopping, engine_stuck, too_many_timeouts or too_many_failures.",
    )


def build_probes_router(service: Service) -> APIRouter:
    """The routes of the probes."""
    router = APIRouter()

    @router.get("/healthz/live", summary="Whether the service runs", response_model=ProbeAnswer)
    async def live() -> Response:
        return _probe("")

    @router.get(
        "/healthz/startup",
        summary="Whether the service has started",
        response_model=ProbeAnswer,
        responses={503: {"model": ProbeAnswer}},
    )
    async def startup() -> Response:
        return _probe("starting" if service.health().starting else "")

    @router.get(
        "/healthz/ready",
        summary="Whether the service takes work",
        response_model=ProbeAnswer,
        responses={503: {"model": ProbeAnswer}},
    )
    async def ready() -> Response:
        return _probe(why_not_ready(service.health()))

    return router


def _probe(why_not: str) -> Response:
    body = {"status": "unavailable", "reason": why_not} if why_not else {"status": "ok"}
    return json_response(body, status=503 if why_not else 200, headers=NO_STORE)


def why_not_ready(now: ServiceHealth) -> str:
    """Why no work is taken, "" where it is."""
    if now.stopping:
        return "stopping"
    if now.starting:
        return "starting"
    return now.trouble or ("" if now.reachable else JournalUnreachable.code)
