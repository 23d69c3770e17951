"""DELETE /v1/data: nothing is kept any more of whoever asks."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from sidecar.service import Service
from sidecar.transports.erasure import models
from sidecar.transports.http.bodies import json_response
from sidecar.transports.http.caller import caller_of
from sidecar.transports.http.schemas import PROBLEMS


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.delete(
        "/v1/data",
        summary="Delete all that is kept of you: jobs, recordings, transcripts, people",
        response_model=models.Erased,
        responses=PROBLEMS,
    )
    async def erase(request: Request) -> Response:
        return json_response(asdict(await service.erasure.erase(caller_of(request))))

    return router
