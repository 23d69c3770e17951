"""Routes of /metrics, /metrics.json and /system."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, create_model
from starlette.types import Scope as Asked

from sidecar import clock
from sidecar.api.gauges import gauges, metrics_nested, service_values
from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.auth.identity import Scope
from sidecar.config.settings import Settings
from sidecar.observability import metrics
from sidecar.observability.metrics import METRIC_PREFIX, import_library, render_metrics, stt_gauges
from sidecar.service.facade import Service

if TYPE_CHECKING:
    import psutil


_STT_METRICS = metrics.stt_metrics_json(metrics.ServiceMetrics(), 0)
_STT_FIELDS: dict[str, Any] = {
    name: (dict[str, int] if isinstance(value, dict) else type(value), ...)
    for name, value in _STT_METRICS.items()
}
MetricsAnswer: type[BaseModel] = create_model(
    "MetricsAnswer",
    __doc__="Metrics: at the top level by the names that the dashboards of another server read.",
    **_STT_FIELDS,
    active_sessions_by_api=(
        dict[str, int] | None,
        Field(None, description="By owner, if the setting 'metrics' has 'owners'."),
    ),
    vibevoice=(
        dict[str, Any],
        Field(
            description="service, jobs, live, engines, memory, http and grpc (docs/operations.md)."
        ),
    ),
)


METRICS = ("/metrics", "/metrics.json", "/system")
TEXT: dict[str, Any] = {"content": openapi.content("text/plain", "application/openmetrics-text")}


def is_public_metrics(settings: Settings, asked: Asked) -> bool:
    """Return whether a request is for metrics that need no token."""
    return "open" in settings.metrics and asked["type"] == "http" and asked["path"] in METRICS


def demand_metrics_scope(settings: Settings, request: Request) -> None:
    """Refuse a request for metrics without their scope, unless they are open.

    Raises:
        errors.ScopeMissing: the client lacks the scope.
    """
    if not is_public_metrics(settings, request.scope):
        identity_of(request).demand(Scope.METRICS)


class SystemProcess(BaseModel):
    """Process of the service, without worker processes."""

    pid: int
    cpu_percent: float = Field(description="Percent of one processor since the previous request.")
    rss_bytes: int
    vms_bytes: int
    threads: int


class SystemMemory(openapi.RenderedBody):
    """Memory of the host."""

    memory_total_bytes: int = Field(validation_alias="total")
    memory_available_bytes: int = Field(validation_alias="available")
    memory_percent: float = Field(validation_alias="percent")


class SystemGpu(openapi.RenderedBody):
    """GPU in use, at the last query; null if the driver does not say."""

    index: int = 0
    name: str
    utilization_gpu: int | None = Field(validation_alias="busy")
    utilization_memory: int | None = Field(validation_alias="memory_busy")
    memory_total_mib: int = Field(validation_alias="total_mb")
    memory_used_mib: int = Field(validation_alias="used_mb")
    temperature_gpu: int | None = Field(validation_alias="celsius")


class SystemAnswer(BaseModel):
    """Machine, process of the service, and GPUs."""

    timestamp: float = Field(description="Seconds since 1970.")
    platform: str
    python: str
    cpu_count: int
    load_avg: list[float] = Field(
        description="Of 1, 5 and 15 minutes; empty where Windows' performance counters are off."
    )
    process: SystemProcess
    system: SystemMemory
    gpus: list[SystemGpu]


@cache
def _own_process() -> psutil.Process:
    import psutil

    return psutil.Process()


def _load_averages() -> list[float]:
    """Return those of 1, 5 and 15 minutes; none on a Windows without performance counters."""
    import psutil

    try:
        return list(psutil.getloadavg())
    except RuntimeError:
        return []


def machine_facts() -> dict[str, Any]:
    """Return a snapshot: bytes, percent (of one processor, since the previous call; 0 at the
    first), seconds since 1970."""
    import psutil

    process = _own_process()
    held = process.memory_info()
    return {
        "timestamp": clock.wall_time(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu_count": os.cpu_count() or 1,
        "load_avg": _load_averages(),
        "process": {
            "pid": process.pid,
            "cpu_percent": process.cpu_percent(),
            "rss_bytes": held.rss,
            "vms_bytes": held.vms,
            "threads": process.num_threads(),
        },
        "system": SystemMemory.render(psutil.virtual_memory()),
    }


def build_router(service: Service) -> APIRouter:
    """Return the routes of /metrics, /metrics.json and /system."""
    router = openapi.Routes(responses=openapi.PROBLEMS)

    @router.get("/metrics", responses={200: TEXT})
    async def metrics(request: Request) -> Response:
        """Metrics for Prometheus."""
        demand_metrics_scope(service.settings, request)
        await import_library()
        own = [*gauges(service), *service.metrics.measured()]
        other = stt_gauges(metrics_nested(service))
        accept = ", ".join(request.headers.getlist("accept"))
        page, media_type = render_metrics(own, other, METRIC_PREFIX, accept)
        return Response(page, headers={"Content-Type": media_type, "Vary": "Accept", **NO_STORE})

    @router.get("/metrics.json", response_model=MetricsAnswer)
    async def metrics_json(request: Request) -> Response:
        """The same as JSON."""
        demand_metrics_scope(service.settings, request)
        own = service_values(service)
        return json_response({**metrics_nested(service), "vibevoice": own}, headers=NO_STORE)

    @router.get("/system", response_model=SystemAnswer)
    async def system(request: Request) -> Response:
        """The machine, our process on it, and the GPU."""
        demand_metrics_scope(service.settings, request)
        gpu = service.fleet.gpu
        gpus = [] if gpu is None else [{"index": 0, **SystemGpu.render(gpu)}]
        return json_response({**machine_facts(), "gpus": gpus}, headers=NO_STORE)

    return router
