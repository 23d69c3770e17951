"""Routes of /metrics, /metrics.json and /system, and the gauges of the service."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, create_model
from starlette.types import Scope as Asked

from sidecar import clock
from sidecar.api.health_routes import load_percent, why_not_ready
from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.auth.identity import Scope
from sidecar.config.settings import Settings
from sidecar.live.sessions.session import Session
from sidecar.observability import health, metrics
from sidecar.observability.metrics import METRIC_PREFIX, import_library, render_metrics, stt_gauges
from sidecar.service.facade import Service
from sidecar.version import __version__
from sidecar.workers.engine_fleet import AnyHost, EngineRole
from sidecar.workers.engine_slot import EngineState

if TYPE_CHECKING:
    import psutil


def gauges(service: Service) -> list[metrics.AnyMetric]:
    """Return the gauges that are read from the service, beside the counters in its metrics."""
    settings, wires = service.settings, service.metrics.wires
    sessions: dict[metrics.Labels, float] = {
        (wire,): count for wire, count in service.live.count_by(_wire_of).items()
    }
    gpu, paused = service.fleet.gpu, service.jobs_paused
    found: list[metrics.AnyMetric] = [
        metrics.Gauge("build_info", "Version of the service.", {(__version__,): 1}, ("version",)),
        _gauge("healthy", "1 if recent recognitions succeeded.", service.trouble is None),
        _gauge("ready", "1 if the service accepts work.", not why_not_ready(service)),
        _gauge("jobs_waiting", "Waiting jobs.", service.queue.depth),
        _gauge("jobs_running", "Running jobs.", service.queue.running),
        metrics.Gauge(
            "jobs_paused",
            "1 if no job starts now, with the code of the error of this machine.",
            {(paused,): 1} if paused is not None else {},
            ("code",),
        ),
        _gauge("jobs_limit", "Maximum waiting jobs.", settings.queue_limit),
        metrics.Gauge("live_sessions", "Live sessions; of two channels: two.", sessions, ("wire",)),
        _gauge("live_sessions_limit", "Maximum live sessions.", service.live.most),
        _gauge("live_speaking", "Utterances in progress.", service.metrics.live.speaking),
        _gauge("live_sound_bytes", "Bytes of buffered live audio.", service.live.held.bytes),
        _gauge("http_requests_answering", "HTTP requests in progress.", wires.answering),
        _gauge("websockets_open", "Open WebSockets.", wires.sockets_open),
        *_engines(service.fleet.engines),
    ]
    if gpu is not None:
        measured = (
            ("gpu_memory_used_bytes", "GPU memory in use by all processes.", gpu.used_bytes),
            ("gpu_memory_bytes", "Memory of the GPU.", gpu.total_mb << 20),
            ("gpu_utilization_percent", "Utilization of the GPU.", gpu.busy),
            ("gpu_temperature_celsius", "Temperature of the GPU.", gpu.celsius),
        )
        found += [_gauge(name, what, value) for name, what, value in measured if value is not None]
    return found


def _wire_of(session: Session) -> str:
    return session.event_metrics.wire


def metrics_nested(service: Service) -> dict[str, Any]:
    """Return the metrics by the names of the compatible speech server."""
    by_owner = None
    if "owners" in service.settings.metrics:
        by_owner = service.live.count_by(lambda one: one.owner)
    return metrics.stt_metrics_json(service.metrics, len(service.live), by_owner)


def _service_values(service: Service) -> dict[str, Any]:
    gpu = service.fleet.gpu
    service_metrics, lately = (
        service.metrics,
        service.metrics.outcomes.lately(health.HEALTH_WINDOW_S),
    )
    return {
        "service": {
            "version": __version__,
            "instance": service.instance,
            "ready": not why_not_ready(service),
            "starting": service.starting,
            "stopping": service.queue.draining,
            "trouble": service.trouble,
            "lately": {one.value: lately[one] for one in health.RecognitionOutcome},
            **service.also,
        },
        "jobs": _jobs(service),
        "live": _live(service),
        "engines": [_engine(role, one) for role, one in service.fleet.engines.items()],
        "memory": {
            "gpu": gpu
            and {"name": gpu.name, "used_bytes": gpu.used_bytes, "total_bytes": gpu.total_mb << 20}
        },
        "http": {
            "answering": service_metrics.wires.answering,
            "websockets_open": service_metrics.wires.sockets_open,
            "by_status": service_metrics.wires.requests.by("status"),
            "websockets_by_code": service_metrics.wires.sockets.by("code"),
        },
        "grpc": {"by_status": service_metrics.wires.calls.by("status")},
    }


def _jobs(service: Service) -> dict[str, Any]:
    jobs = service.metrics.jobs
    ended = jobs.ended.by("outcome")
    return {
        "waiting": service.queue.depth,
        "running": service.queue.running,
        "limit": service.settings.queue_limit,
        "submitted": jobs.submitted.total,
        **{name: ended.get(name, 0) for name in ("done", "failed", "cancelled")},
        "failed_by_code": jobs.wrong.by("code"),
        "crashed_attempts": jobs.crashed.total,
        "audio_seconds": jobs.audio.total,
        "processing_seconds": jobs.work.total,
        "realtime_ratio": _histogram_values(jobs.factor),
        "wait_seconds": _histogram_values(jobs.waited),
    }


def _live(service: Service) -> dict[str, Any]:
    live = service.metrics.live
    return {
        "sessions": len(service.live),
        "limit": service.live.most,
        "by_wire": service.live.count_by(_wire_of),
        "opened": live.opened.total,
        "opened_by_wire": live.opened.by("wire"),
        "ended_by_reason": live.ended.by("reason"),
        "refused_by_code": live.refused.by("code"),
        "speaking": live.speaking,
        "utterances": live.turns.total,
        "finals": live.finals.total,
        "partials": live.partials.total,
        "audio_seconds": live.audio.total,
        "sound_bytes": service.live.held.bytes,
        "realtime_ratio": _histogram_values(live.factor),
        "decode_seconds": _histogram_values(live.work),
        "queue_wait_seconds": _histogram_values(live.queued),
    }


def _histogram_values(histogram: metrics.Histogram) -> dict[str, float]:
    seen = histogram.only
    return {"count": seen.count, "mean": seen.mean, "max": seen.largest}


def _resident(engine: AnyHost) -> int:
    """Return the resident bytes of an engine's worker process; 0 if it has none, or has ended."""
    import psutil

    if engine.slot.worker_pid is None:
        return 0
    try:
        return int(psutil.Process(engine.slot.worker_pid).memory_info().rss)
    except psutil.Error:
        return 0


_ENGINE_NUMBERS: Sequence[tuple[str, str, Callable[[AnyHost], float]]] = (
    ("loads_total", "Loads of the engine.", lambda one: one.slot.loads),
    ("load_seconds", "Seconds of the last load.", lambda one: one.slot.load_s),
    ("crashes_total", "Crashes of the worker process.", lambda one: one.crashes),
    ("reserved_bytes", "Planned memory on its device.", lambda one: one.reserved_bytes),
    ("resident_bytes", "Resident host memory of the worker process.", _resident),
)


def _engine(role: EngineRole, one: AnyHost) -> dict[str, Any]:
    return {
        "role": role.value,
        "engine": one.spec.name,
        "precision": one.slot.precision.value,
        "state": one.slot.state.value,
        "load_percent": load_percent(one.slot.loading),
        "pid": one.slot.worker_pid,
        "on_gpu": one.on_gpu,
        **{name.removesuffix("_total"): value(one) for name, _, value in _ENGINE_NUMBERS},
    }


def _engines(engines: Mapping[EngineRole, AnyHost]) -> list[metrics.AnyMetric]:
    def each(name: str, what: str, value: Callable[[AnyHost], float]) -> metrics.AnyMetric:
        values: dict[metrics.Labels, float] = {
            (role.value,): float(value(one)) for role, one in engines.items()
        }
        if not name.endswith("_total"):
            return metrics.Gauge(name, what, values, ("role",))
        counter = metrics.Counter(name, what, ("role",))
        counter.values = values
        return counter

    infos: dict[metrics.Labels, float] = {
        (role.value, one.spec.name, one.slot.precision.value): 1.0 for role, one in engines.items()
    }
    states: dict[metrics.Labels, float] = {
        (role.value, state.value): float(one.slot.state is state)
        for role, one in engines.items()
        for state in EngineState
    }
    return [
        metrics.Gauge(
            "engine_info", "Loaded engine and precision.", infos, ("role", "engine", "precision")
        ),
        metrics.Gauge(
            "engine_state", "1 for what it is, 0 for the rest.", states, ("role", "state")
        ),
        *(each(f"engine_{name}", what, value) for name, what, value in _ENGINE_NUMBERS),
    ]


def _gauge(name: str, what: str, value: float) -> metrics.Gauge:
    return metrics.Gauge(name, what, {(): float(value)})


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

    process = _own_process()
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
        own = _service_values(service)
        return json_response({**metrics_nested(service), "vibevoice": own}, headers=NO_STORE)

    @router.get("/system", response_model=SystemAnswer)
    async def system(request: Request) -> Response:
        """The machine, our process on it, and the GPU."""
        demand_metrics_scope(service.settings, request)
        gpu = service.fleet.gpu
        gpus = [] if gpu is None else [{"index": 0, **SystemGpu.render(gpu)}]
        return json_response({**machine_facts(), "gpus": gpus}, headers=NO_STORE)

    return router
