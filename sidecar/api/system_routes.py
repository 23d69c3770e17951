"""Route of /system: the machine, the process of the service, and the GPU."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import clock
from sidecar.api.health_routes import NO_STORE
from sidecar.api.http import openapi
from sidecar.api.http.responses import json_response
from sidecar.api.metrics_routes import demand_metrics_scope
from sidecar.service.facade import Service, ServiceHealth

if TYPE_CHECKING:
    import psutil


class SystemProcess(BaseModel):
    """Process of the service, without worker processes."""

    pid: int
    cpu_percent: float = Field(description="Percent of one processor since the previous request.")
    rss_bytes: int
    vms_bytes: int
    threads: int


class SystemMemory(BaseModel):
    """Memory of the host."""

    memory_total_bytes: int
    memory_available_bytes: int
    memory_percent: float


class SystemGpu(BaseModel):
    """GPU in use, at the last query; null if the driver does not say."""

    index: int
    name: str
    utilization_gpu: int | None
    utilization_memory: int | None
    memory_total_mib: int
    memory_used_mib: int
    temperature_gpu: int | None


class SystemAnswer(BaseModel):
    """Machine, process of the service, and GPUs."""

    timestamp: float = Field(description="Seconds since 1970.")
    platform: str
    python: str
    cpu_count: int
    load_avg: list[float]
    process: SystemProcess
    system: SystemMemory
    gpus: list[SystemGpu]


@cache
def _own_process() -> psutil.Process:
    import psutil

    return psutil.Process()


def machine_facts() -> dict[str, Any]:
    """Return a snapshot: bytes, percent (of one processor, since the previous call; 0 at the
    first), seconds since 1970."""
    import psutil

    process, memory = _own_process(), psutil.virtual_memory()
    held = process.memory_info()
    return {
        "timestamp": clock.wall_time(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu_count": os.cpu_count() or 1,
        "load_avg": list(psutil.getloadavg()),
        "process": {
            "pid": process.pid,
            "cpu_percent": process.cpu_percent(),
            "rss_bytes": held.rss,
            "vms_bytes": held.vms,
            "threads": process.num_threads(),
        },
        "system": {
            "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "memory_percent": memory.percent,
        },
    }


def gpu_metrics(now: ServiceHealth) -> list[dict[str, Any]]:
    """Return the GPU in use, as of the last query."""
    gpu = now.gpu
    if gpu is None:
        return []
    return [
        {
            "index": 0,
            "name": gpu.name,
            "utilization_gpu": gpu.busy,
            "utilization_memory": gpu.memory_busy,
            "memory_total_mib": gpu.total_mb,
            "memory_used_mib": gpu.used_mb,
            "temperature_gpu": gpu.celsius,
        }
    ]


def build_router(service: Service) -> APIRouter:
    """Return the route of /system."""
    router = APIRouter(responses=openapi.PROBLEMS)

    @router.get(
        "/system",
        summary="The machine, our process on it, and the GPU",
        response_model=SystemAnswer,
    )
    async def system(request: Request) -> Response:
        demand_metrics_scope(service.settings, request)
        return json_response(
            {**machine_facts(), "gpus": gpu_metrics(service.health())}, headers=NO_STORE
        )

    return router
