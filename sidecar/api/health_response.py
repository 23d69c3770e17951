"""Response of /health, for desktop apps and operators."""

from __future__ import annotations

import os
from typing import Any

from starlette.responses import Response

from sidecar.api.http.responses import json_response
from sidecar.service.facade import Service, ServiceHealth
from sidecar.version import CONTRACT

PATH = "/health"
VLLM_STATUS = {"ok": "ok", "loading": "degraded", "stopping": "unreachable"}
"""Backend states for clients of the queue server that this service replaces."""


async def health_response(service: Service) -> Response:
    """Return the response of /health."""
    now, settings = await service.looked(), service.settings
    reports = settings.health_errors
    reports = settings.grpc_port is not None if reports is None else reports
    failing = now.trouble is not None and reports
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
            "engine": now.files.engine,
            "precision": now.files.precision,
            "requested_precision": settings.precision.value,
            "device": now.files.device,
            "engine_state": now.files.state.value,
            "load_percent": None if now.files.loading is None else round(100 * now.files.loading),
            "worker_pid": now.files.worker_pid,
            "live_engine": now.live and now.live.engine,
            "live_engine_state": now.live and now.live.state.value,
            "jobs_waiting": now.jobs_waiting,
            "jobs_paused": now.jobs_paused,
            "vllm": VLLM_STATUS[_status(now)],
            "pipeline_state": service.conversations.phase.value,
            "initialized": service.live.spec is not None,
            **now.also,
            **_classic_health(service, now),
        },
        status=500 if failing else 200,
    )


def _classic_health(service: Service, now: ServiceHealth) -> dict[str, Any]:
    """Return the fields of `/health` for clients of the speech server with the same gRPC
    protocol."""
    pids = sum(one.worker_pid is not None for one in now.engines.values())
    work = service.tally.live.work.only
    return {
        "grpc_running": "grpc_port" in now.also,
        "model_pool_healthy": now.trouble is None,
        "models_loaded": pids > 0,
        "model_count": pids,
        "model_worker_total": pids,
        "model_worker_shutdown": sum(one.crashes for one in now.engines.values()),
        "active_sessions": now.live_sessions,
        "decode_queue_depth": now.jobs_waiting,
        "decode_latency_avg": round(work.mean, 6),
        "decode_latency_max": round(work.largest, 6),
    }


def _status(now: ServiceHealth) -> str:
    if now.stopping:
        return "stopping"
    return "ok" if now.files.loading is None else "loading"
