"""POST /v1/estimate: will a recording fit, at which precision, and how long will it take."""

from __future__ import annotations

from math import ceil
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api import estimate_models
from sidecar.api.http.bodies import json_response, open_local, read_fields
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.gpu_memory.forecast import Forecast
from sidecar.interfaces.options import parse_number
from sidecar.service import Service

MB = 1 << 20


def forecast_body(forecast: Forecast) -> dict[str, Any]:
    """A forecast as JSON; memory in MB (2**20 bytes), times in seconds."""
    return {
        "fits": forecast.fits,
        "precision": forecast.precision.value,
        "audio_seconds": _rounded(forecast.audio_s),
        "needed_mb": _megabytes(forecast.needed_bytes),
        "available_mb": forecast.available_bytes and forecast.available_bytes // MB,
        "seconds": _rounded(forecast.seconds),
        "longest_audio_seconds": forecast.longest_audio_s,
        "sentence": forecast.sentence,
        "alternatives": [
            {
                "precision": other.precision.value,
                "needed_mb": _megabytes(other.peak_bytes),
                "seconds": _rounded(other.seconds),
            }
            for other in forecast.alternatives
        ],
    }


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()

    @router.post(
        "/v1/estimate",
        summary="Whether a recording fits, and how long it takes",
        response_model=estimate_models.Estimate,
        responses=PROBLEMS,
        openapi_extra={"requestBody": estimate_models.ESTIMATE_BODY},
    )
    async def estimate(request: Request) -> Response:
        return json_response(forecast_body(await _forecast(request, service)))

    return router


async def _forecast(request: Request, service: Service) -> Forecast:
    fields, source = await read_fields(request, service)
    try:
        options = service.options(fields)
        if source is None and fields.get("duration") is not None:
            if fields.get("audio_path") is not None:
                raise errors.FieldInvalid(
                    "'duration' and 'audio_path' say the same.", hint="Send one of them."
                )
            longest_s = service.settings.max_audio_hours * 3600
            audio_s = parse_number("duration", fields["duration"], 0, longest_s)
        elif source is None and "audio_path" not in fields:
            raise errors.FieldMissing("One of the fields 'duration' and 'audio_path' is needed.")
        else:
            source = source or await open_local(request, fields, service)
            audio_s = await service.submissions.measure(caller_of(request), source)
    finally:
        if source is not None:
            source.close()
    return service.forecast(audio_s, options)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _megabytes(size: int | None) -> int | None:
    """Rounded up: so much is really needed."""
    return None if size is None else ceil(size / MB)
