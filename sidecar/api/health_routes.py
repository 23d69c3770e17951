"""Routes of / and /health, and the probes (/healthz, also the yap server's), with schemas.

For desktop apps and operators. `/health` is answered before FastAPI is imported, which only
`build_router` needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.errors import JournalUnreachable
from sidecar.service.facade import Service
from sidecar.version import CONTRACT, __version__
from sidecar.workers.role_engine import EngineRole

if TYPE_CHECKING:
    from fastapi import APIRouter

PATH = "/health"
VLLM_STATUS = {"ok": "ok", "loading": "degraded", "stopping": "unreachable"}
"""Backend states for clients of the queue server that this service replaces."""


class RootAnswer(BaseModel):
    """Description of the service."""

    service: str = Field(examples=["vibevoice-asr"])
    version: str = Field(examples=["1.0.0"])
    status: str = Field(examples=["running"])


class HealthAnswer(BaseModel):
    """Health of the service: status 200 in every state, unless the setting 'health_errors' asks for
    500 if it is unhealthy."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(
        examples=["ok"], description="ok, loading or stopping; error with status 500."
    )
    model_loaded: bool
    gpu_available: bool
    vram_used_mb: int | None
    vram_total_mb: int | None
    contract: int = Field(
        examples=[1], description="Version of the contract with hosts (docs/embedding.md)."
    )
    version: str = Field(examples=["1.0.0"])
    pid: int = Field(examples=[4242], description="Process id of the service.")
    instance: str = Field(description="Id of this start.")
    engine: str = Field(examples=["moonshine"])
    precision: str = Field(examples=["int8"], description="Precision in use, or after the load.")
    requested_precision: str = Field(
        examples=["auto"], description="Setting 'precision'; an engine that lacks it uses its own."
    )
    device: Literal["cuda", "cpu"] = Field(description="Device of the engine for recordings.")
    engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] = Field(
        description="stuck: its worker process cannot be killed, and no job runs."
    )
    load_percent: int | None = Field(description="Progress of a load in percent.")
    worker_pid: int | None = Field(description="Process id of the engine, null if not loaded.")
    live_engine: str | None = Field(
        examples=["moonshine"], description="Engine for live audio, null if there is none."
    )
    live_engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] | None
    jobs_waiting: int = Field(examples=[0])
    jobs_paused: str | None = Field(
        examples=[None],
        description="Why no job starts now: the code of an error of this machine, for example "
        "disk_full, or recording_hangs: the engine waits for a disk. It ends by itself.",
    )
    faults: dict[str, str] = Field(
        examples=[{}],
        description="What jobs need and does not work since their last try, with the code of the "
        "error: disk, spool, storage, database, memory, engine, upstream, decoder, unknown.",
    )
    vllm: Literal["ok", "degraded", "unreachable"] = Field(
        description="State for clients of the queue server that this service replaces: ok: it "
        "accepts recordings; degraded: the engine is loading; unreachable: the service shuts down."
    )
    pipeline_state: str = Field(
        examples=["idle"], description="State of conversations, for their page."
    )
    initialized: bool = Field(description="True if there is a live engine for conversations.")
    grpc_port: int = Field(default=0, examples=[50051], description="Port of gRPC, if it is on.")
    wyoming_port: int = Field(
        default=0, examples=[10300], description="Port of Wyoming, if it is on."
    )
    talk_port: int = Field(
        default=0,
        examples=[8005],
        description="Port for the page of the speech-to-speech demo, if it is on.",
    )
    grpc_running: bool
    model_pool_healthy: bool = Field(description="True if recent recognitions succeeded.")
    models_loaded: bool
    model_count: int = Field(description="Engines in memory.")
    model_worker_total: int = Field(description="Number of worker processes.")
    model_worker_shutdown: int = Field(description="Deaths of worker processes since the start.")
    active_sessions: int = Field(description="Number of live sessions.")
    decode_queue_depth: int = Field(description="Number of waiting recordings.")
    decode_latency_avg: float = Field(description="Seconds of work for a segment of live speech.")
    decode_latency_max: float


async def health_response(service: Service) -> Response:
    """Return the response of /health."""
    await service.backend.count()
    settings, fleet, trouble = service.settings, service.fleet, service.trouble
    files, live = fleet.files, fleet.recognizers.get(EngineRole.LIVE)
    reports = settings.health_errors
    reports = "grpc_port" in service.also if reports is None else reports
    failing = trouble is not None and reports
    pids = sum(one.worker_pid is not None for one in fleet.engines.values())
    work = service.metrics.live.work.only
    return json_response(
        {
            "status": "error" if failing else _status(service),
            "model_loaded": files.loaded,
            "gpu_available": fleet.gpu is not None,
            "vram_used_mb": fleet.gpu.used_mb if fleet.gpu else None,
            "vram_total_mb": fleet.gpu.total_mb if fleet.gpu else None,
            "contract": CONTRACT,
            "version": __version__,
            "pid": os.getpid(),
            "instance": service.instance,
            "engine": service.spec.name,
            "precision": files.precision.value,
            "requested_precision": settings.precision.value,
            "device": fleet.files.device,
            "engine_state": files.state.value,
            "load_percent": load_percent(files.loader.loading),
            "worker_pid": files.worker_pid,
            "live_engine": live and live.spec.name,
            "live_engine_state": live and live.state.value,
            "jobs_waiting": service.queue.depth,
            "jobs_paused": service.jobs_paused,
            "faults": service.faults,
            "vllm": VLLM_STATUS[_status(service)],
            "pipeline_state": "idle",
            **{name: value for part in service.parts for name, value in part.health().items()},
            "initialized": service.live.spec is not None,
            **service.also,
            # for clients of the speech server with the same gRPC protocol
            "grpc_running": "grpc_port" in service.also,
            "model_pool_healthy": trouble is None,
            "models_loaded": pids > 0,
            "model_count": pids,
            "model_worker_total": pids,
            "model_worker_shutdown": sum(one.crashes for one in fleet.engines.values()),
            "active_sessions": len(service.live),
            "decode_queue_depth": service.queue.depth,
            "decode_latency_avg": round(work.mean, 6),
            "decode_latency_max": round(work.largest, 6),
        },
        status=500 if failing else 200,
    )


def _status(service: Service) -> str:
    if service.queue.draining:
        return "stopping"
    return "ok" if service.fleet.files.loader.loading is None else "loading"


def load_percent(loading: float | None) -> int | None:
    """Return the share of a load that is done in percent."""
    return None if loading is None else round(100 * loading)


class ProbeAnswer(BaseModel):
    """Result of a probe, with the reason of a failure."""

    status: str = Field(examples=["ok"])
    reason: str | None = Field(
        None,
        examples=["stopping"],
        description="starting, stopping, engine_stuck, too_many_timeouts or too_many_failures.",
    )


def build_router(service: Service) -> APIRouter:
    """Return the routes of / and /health, and the probes."""
    from sidecar.api.http.openapi import Routes

    router, unavailable = Routes(), {503: {"model": ProbeAnswer}}
    probe: dict[str, Any] = {"response_model": ProbeAnswer, "responses": unavailable}

    @router.get("/", response_model=RootAnswer)
    async def root() -> Response:
        """Describe the service."""
        return json_response(
            {"service": "vibevoice-asr", "version": __version__, "status": "running"},
            headers={"Vary": "Accept"},  # a client that accepts HTML gets the page (api/page.py)
        )

    @router.get(PATH, response_model=HealthAnswer)
    async def health() -> Response:
        """Health of the service."""
        return await health_response(service)

    @router.get("/healthz", summary="Liveness probe", **probe)
    @router.get("/healthz/live", summary="Liveness probe", **probe)
    async def live() -> Response:
        return _probe("")

    @router.get("/healthz/startup", **probe)
    async def startup() -> Response:
        """Startup probe."""
        return _probe("starting" if service.starting else "")

    @router.get("/healthz/ready", **probe)
    async def ready() -> Response:
        """Readiness probe."""
        return _probe(why_not_ready(service))

    return router


def _probe(why_not: str) -> Response:
    body = {"status": "unavailable", "reason": why_not} if why_not else {"status": "ok"}
    return json_response(body, status=503 if why_not else 200, headers=NO_STORE)


def why_not_ready(service: Service) -> str:
    """Return the reason why the service accepts no work; "" if it does."""
    if service.queue.draining:
        return "stopping"
    if service.starting:
        return "starting"
    return service.trouble or ("" if service.backend.reachable else JournalUnreachable.code)
