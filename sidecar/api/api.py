"""What operators look at: `/metrics`, `/metrics.json`, `/system`, and the probes of Kubernetes."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Scope as Asked

from sidecar.api import metrics_gauges, models
from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.auth.identity import Scope
from sidecar.config.settings import Settings
from sidecar.observability import classic
from sidecar.observability.exposition import exposition, import_library, library_is_here
from sidecar.observability.machine import Machine
from sidecar.observability.tally import PREFIX
from sidecar.service import Service

METRICS = ("/metrics", "/metrics.json", "/system")
UNKEPT = {"Cache-Control": "no-store"}
TEXT: dict[str, Any] = {
    "content": {
        form: {"schema": {"type": "string"}}
        for form in ("text/plain", "application/openmetrics-text")
    }
}


def is_open(settings: Settings, asked: Asked) -> bool:
    """Whether a request is for numbers that everybody gets who may come at all."""
    return settings.metrics_open and asked["type"] == "http" and asked["path"] in METRICS


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()
    machine = Machine()

    def admit(request: Request) -> None:
        if not is_open(service.settings, request.scope):
            caller_of(request).demand(Scope.METRICS)

    @router.get(
        "/metrics",
        summary="What was counted, for Prometheus",
        response_class=Response,
        responses={200: TEXT, **PROBLEMS},
    )
    async def metrics(request: Request) -> Response:
        admit(request)
        if not library_is_here():
            await asyncio.to_thread(import_library)
        own = [*metrics_gauges.measured(service, service.health()), *service.tally.measured()]
        other = classic.gauges(metrics_gauges.nested(service))
        accept = ", ".join(request.headers.getlist("accept"))
        page, media_type = exposition(own, other, PREFIX, accept)
        return Response(page, headers={"Content-Type": media_type, "Vary": "Accept", **UNKEPT})

    @router.get(
        "/metrics.json",
        summary="The same as JSON",
        response_model=models.Metrics,
        responses=PROBLEMS,
    )
    async def metrics_json(request: Request) -> Response:
        admit(request)
        return json_response(metrics_gauges.as_json(service, service.health()), headers=UNKEPT)

    @router.get(
        "/system",
        summary="The machine, our process on it, and the GPU",
        response_model=models.System,
        responses=PROBLEMS,
    )
    async def system(request: Request) -> Response:
        admit(request)
        facts = machine.facts()
        return json_response(
            {**facts, "gpus": metrics_gauges.gpus(service.health())}, headers=UNKEPT
        )

    _add_probes(router, service)
    return router


def _add_probes(router: APIRouter, service: Service) -> None:
    @router.get("/healthz/live", summary="Whether the service runs", response_model=models.Probe)
    async def live() -> Response:
        return _probe("")

    @router.get(
        "/healthz/startup",
        summary="Whether the service has started",
        response_model=models.Probe,
        responses={503: {"model": models.Probe}},
    )
    async def startup() -> Response:
        return _probe("starting" if service.health().starting else "")

    @router.get(
        "/healthz/ready",
        summary="Whether the service takes work",
        response_model=models.Probe,
        responses={503: {"model": models.Probe}},
    )
    async def ready() -> Response:
        return _probe(metrics_gauges.why_not_ready(service.health()))


def _probe(why_not: str) -> Response:
    body = {"status": "unavailable", "reason": why_not} if why_not else {"status": "ok"}
    return json_response(body, status=503 if why_not else 200, headers=UNKEPT)
