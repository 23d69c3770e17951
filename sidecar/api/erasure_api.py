"""DELETE /v1/data: nothing is kept any more of whoever asks."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from sidecar.api import erasure_models
from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.service import Service


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.delete(
        "/v1/data",
        summary="Delete all that is kept of you: jobs, recordings, transcripts, people",
        response_model=erasure_models.Erased,
        responses=PROBLEMS,
    )
    async def erase(request: Request) -> Response:
        return json_response(asdict(await service.erasure.erase(caller_of(request))))

    return router
