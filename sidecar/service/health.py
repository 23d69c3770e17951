"""Health of the service."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.workers.engine_fleet import EngineRole, EngineStatus
from sidecar.workers.engine_slot import EngineState


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How the service is. Never waits for anything."""

    version: str
    instance: str
    engine: str
    precision: str
    state: EngineState
    model_loaded: bool
    worker_pid: int | None
    loading: float | None
    gpu: GpuMemory | None
    live: EngineStatus | None
    engines: dict[EngineRole, EngineStatus]
    jobs_waiting: int
    jobs_running: int
    live_sessions: int
    starting: bool
    """What was to be there before anybody comes is not yet there."""
    stopping: bool
    reachable: bool
    """Whether the database of shared jobs answers; true without one."""
    trouble: str | None
    """Why it is not healthy: by what came of its work lately, or an engine that hangs."""
    also: dict[str, Any]
    """As `Service.also`."""


def hang_reason(engines: Iterable[EngineStatus]) -> str | None:
    """Why it is not healthy, where an engine hangs that nothing ends."""
    stuck = any(one.state is EngineState.STUCK for one in engines)
    return errors.EngineStuck.code if stuck else None
