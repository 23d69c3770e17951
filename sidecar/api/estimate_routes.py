"""Routes of /v1/estimate."""

from __future__ import annotations

from math import ceil
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response, open_local, read_fields
from sidecar.api.http.schemas import OPTIONS, PROBLEMS
from sidecar.gpu_memory.memory_plan import JobForecast
from sidecar.interfaces.request_options import parse_number
from sidecar.service.facade import Service


class EstimateAlternative(BaseModel):
    """A precision that would fit."""

    precision: str = Field(examples=["int8"])
    needed_mb: int = Field(examples=[11469])
    seconds: float | None = Field(examples=[231.5])


class EstimateAnswer(BaseModel):
    """What a recording would take; memory in MB (2**20 bytes), times in seconds."""

    fits: bool
    precision: str = Field(examples=["int8"], description="The precision that would be used.")
    audio_seconds: float | None = Field(
        examples=[3600.0], description="Null where only decoding would tell."
    )
    needed_mb: int | None = Field(
        examples=[11469], description="Null for engines that take next to nothing."
    )
    available_mb: int | None = Field(examples=[16282])
    seconds: float | None = Field(
        examples=[231.5], description="Roughly; null where the device's speed is not known."
    )
    longest_audio_seconds: float = Field(
        examples=[3600.0], description="What this precision takes at once."
    )
    sentence: str = Field(examples=["fits: int8, 11.2 of 15.9 GB, about 4 minutes"])
    alternatives: list[EstimateAlternative] = Field(
        description="What would fit where this does not."
    )


_OPTIONS = {name: OPTIONS[name] for name in ("precision", "hotwords", "prompt", "max_tokens")}

ESTIMATE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "duration": {
                        "type": "number",
                        "minimum": 0,
                        "description": "Seconds of audio; or send 'audio_path'.",
                    },
                    "audio_path": {
                        "type": "string",
                        "description": "Full path of a file on this machine.",
                    },
                    **_OPTIONS,
                },
            },
            "examples": {
                "an hour": {"value": {"duration": 3600, "precision": "int8"}},
                "a file": {"value": {"audio_path": "/home/me/recordings/meeting.opus"}},
            },
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["audio"],
                "properties": {"audio": {"type": "string", "format": "binary"}, **_OPTIONS},
            }
        },
    },
}


MB = 1 << 20


def forecast_body(forecast: JobForecast) -> dict[str, Any]:
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
        response_model=EstimateAnswer,
        responses=PROBLEMS,
        openapi_extra={"requestBody": ESTIMATE_BODY},
    )
    async def estimate(request: Request) -> Response:
        return json_response(forecast_body(await _request_forecast(request, service)))

    return router


async def _request_forecast(request: Request, service: Service) -> JobForecast:
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
            audio_s = await service.submissions.measure(identity_of(request), source)
    finally:
        if source is not None:
            source.close()
    return service.forecast(audio_s, options)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _megabytes(size: int | None) -> int | None:
    """Rounded up: so much is really needed."""
    return None if size is None else ceil(size / MB)
