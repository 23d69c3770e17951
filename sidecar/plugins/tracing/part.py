"""Traces of the jobs of a service."""

import asyncio
from typing import Any

from sidecar.plugins.tracing.job_traces import JobTraces
from sidecar.plugins.tracing.otlp_exporter import OtlpExporter
from sidecar.service.facade import Service


class Tracing:
    """Traces of the jobs that are submitted to a service, and their exporter."""

    def __init__(self, service: Service, exporter: OtlpExporter) -> None:
        self._exporter = exporter
        loader, now = service.fleet.files.loader, service.now
        traces = JobTraces(
            exporter,
            service.backend.listen,
            lambda: service.spec.name,
            lambda: loader.last_load(now()),
            now,
        )
        service.submissions.observer = traces

    def health(self) -> dict[str, Any]:
        """Return no field."""
        return {}

    async def close(self) -> None:
        """Send the remaining spans."""
        await asyncio.to_thread(self._exporter.close)
