"""Retention of ended jobs for tests whose subject is another part."""

import time

from sidecar.clock import Clock, wall_time
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.retention import Retention
from sidecar.observability.health import OutcomeWindow
from sidecar.observability.metrics import JobMetrics


def job_metrics() -> JobMetrics:
    """Metrics of jobs that count from zero."""
    return JobMetrics(OutcomeWindow(time.monotonic))


def retention_of(
    log: JobEventLog,
    retention_s: float = 600.0,
    space_bytes: int = 1 << 20,
    *,
    now: Clock = wall_time,
) -> Retention:
    """The retention of a log's jobs, in the space that each owner has."""
    return Retention(log, retention_s, space_bytes, job_metrics(), now=now)
