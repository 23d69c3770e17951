"""Traces over OTLP, if the environment configures them; otherwise OpenTelemetry is not imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sidecar.plugin import HttpRoutes, Plugin
from sidecar.version import __version__

if TYPE_CHECKING:
    from sidecar.service.facade import Service, ServicePart

OTLP_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Standard variables for the address to which traces are sent."""


def is_tracing_configured(environment: Mapping[str, str]) -> bool:
    """Return whether the environment configures traces, by the standard's variables."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return exporter == "otlp" or any(environment.get(name) for name in OTLP_ENDPOINT_VARIABLES)


def _create_part(service: Service) -> ServicePart | None:
    if not is_tracing_configured(os.environ):
        return None
    from sidecar.plugins.tracing.otlp_exporter import create_exporter
    from sidecar.plugins.tracing.part import Tracing

    exporter = create_exporter(__version__)
    return Tracing(service, exporter) if exporter is not None else None


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.tracing.arrivals import ArrivalRecorder
    from sidecar.plugins.tracing.part import Tracing

    on = any(isinstance(part, Tracing) for part in service.parts)
    return HttpRoutes(routers=(), middleware=(ArrivalRecorder,) if on else ())


PLUGIN = Plugin(name="tracing", create_part=_create_part, http=_http)
