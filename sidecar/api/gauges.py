"""Gauges of the service, read at each request of /metrics; the values of /metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.api.health_routes import load_percent, why_not_ready
from sidecar.live.sessions.session import Session
from sidecar.observability import health, metrics
from sidecar.service.facade import Service
from sidecar.version import __version__
from sidecar.workers.engine_fleet import AnyEngine
from sidecar.workers.engine_lease import EngineState
from sidecar.workers.role_engine import EngineRole


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
        metrics.Gauge(
            "faults",
            "1 for each thing that jobs need and that does not work, with the code of its error.",
            dict.fromkeys(service.faults.items(), 1),
            ("fault", "code"),
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


def service_values(service: Service) -> dict[str, Any]:
    """Return the gauges and the metrics of the service for JSON, by its parts."""
    gpu = service.fleet.gpu
    service_metrics = service.metrics
    lately = service_metrics.outcomes.lately(health.HEALTH_WINDOW_S)
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


def _resident(engine: AnyEngine) -> int:
    """Return the resident bytes of an engine's worker process; 0 if it has none, or has ended."""
    import psutil

    if engine.worker_pid is None:
        return 0
    try:
        return int(psutil.Process(engine.worker_pid).memory_info().rss)
    except psutil.Error:
        return 0


_ENGINE_NUMBERS: Sequence[tuple[str, str, Callable[[AnyEngine], float]]] = (
    ("loads_total", "Loads of the engine.", lambda one: one.loader.loads),
    ("load_seconds", "Seconds of the last load.", lambda one: one.loader.load_s),
    ("crashes_total", "Crashes of the worker process.", lambda one: one.crashes),
    ("reserved_bytes", "Planned memory on its device.", lambda one: one.memory.reserved_bytes),
    ("resident_bytes", "Resident host memory of the worker process.", _resident),
)


def _engine(role: EngineRole, one: AnyEngine) -> dict[str, Any]:
    return {
        "role": role.value,
        "engine": one.spec.name,
        "precision": one.precision.value,
        "state": one.state.value,
        "load_percent": load_percent(one.loader.loading),
        "pid": one.worker_pid,
        "on_gpu": one.on_gpu,
        **{name.removesuffix("_total"): value(one) for name, _, value in _ENGINE_NUMBERS},
    }


def _engines(engines: Mapping[EngineRole, AnyEngine]) -> list[metrics.AnyMetric]:
    def each(name: str, what: str, value: Callable[[AnyEngine], float]) -> metrics.AnyMetric:
        values: dict[metrics.Labels, float] = {
            (role.value,): float(value(one)) for role, one in engines.items()
        }
        if not name.endswith("_total"):
            return metrics.Gauge(name, what, values, ("role",))
        counter = metrics.Counter(name, what, ("role",))
        counter.values = values
        return counter

    infos: dict[metrics.Labels, float] = {
        (role.value, one.spec.name, one.precision.value): 1.0 for role, one in engines.items()
    }
    states: dict[metrics.Labels, float] = {
        (role.value, state.value): float(one.state is state)
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
