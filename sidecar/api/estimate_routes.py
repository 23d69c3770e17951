"""Routes of /v1/estimate."""

from __future__ import annotations

from dataclasses import asdict
from math import ceil
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field

from sidecar import errors
from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response
from sidecar.api.http.upload import Fields, open_local, read_fields
from sidecar.api.transcribe_routes import TRANSCRIBE_FIELDS, TranscribeWarning
from sidecar.audio.audio_source import AudioSource
from sidecar.gpu_memory.memory_plan import JobForecast
from sidecar.interfaces.request_options import parse_number, unknown_field_notices, unknown_fields
from sidecar.service.facade import Service

MB = 1 << 20
NeededMegabytes = Annotated[int, BeforeValidator(lambda size: size and ceil(size / MB))]
"""From bytes, rounded up, as that much is needed."""
FreeMegabytes = Annotated[int, BeforeValidator(lambda size: size and size // MB)]


class EstimateAlternative(openapi.RenderedBody):
    """A precision with which the recording would fit into memory."""

    precision: str = Field(examples=["int8"])
    needed_mb: NeededMegabytes = Field(examples=[11469], validation_alias="peak_bytes")
    seconds: openapi.RoundedSeconds | None = Field(examples=[231.5])


class EstimateAnswer(openapi.RenderedBody):
    """Estimate of a recording; memory in MB (2**20 bytes), times in seconds."""

    fits: bool
    precision: str = Field(examples=["int8"], description="The precision that would be used.")
    audio_seconds: openapi.RoundedSeconds | None = Field(
        examples=[3600.0],
        description="Null if only decoding would show it.",
        validation_alias="audio_s",
    )
    needed_mb: NeededMegabytes | None = Field(
        examples=[11469],
        description="Null for engines that need little memory.",
        validation_alias="needed_bytes",
    )
    available_mb: FreeMegabytes | None = Field(examples=[16282], validation_alias="available_bytes")
    seconds: openapi.RoundedSeconds | None = Field(
        examples=[231.5], description="Estimate; null if the device's speed is not known."
    )
    longest_audio_seconds: float = Field(
        examples=[3600.0],
        description="Longest recording for this precision.",
        validation_alias="longest_audio_s",
    )
    sentence: str = Field(examples=["fits: int8, 11.2 of 15.9 GB, about 4 minutes"])
    alternatives: list[EstimateAlternative] = Field(
        description="Precisions that would fit if this one does not."
    )
    warnings: list[TranscribeWarning] = Field(
        default=[], description="Only if there are any, such as of an unknown field."
    )


_OPTIONS = {
    name: openapi.OPTIONS[name]
    for name in ("precision", "diarize", "hotwords", "prompt", "max_tokens")
}

_FIELDS = TRANSCRIBE_FIELDS | {"duration"}
"""Fields that are no mistake: a client may send those of the transcription that it is about."""
_DURATION = openapi.number(0, None, "Seconds of audio; or send 'audio_path'.")
ESTIMATE_BODY: dict[str, Any] = openapi.request_body(
    openapi.object_schema({"duration": _DURATION, "audio_path": openapi.PATH, **_OPTIONS}),
    openapi.object_schema({"audio": openapi.AUDIO_FILE, **_OPTIONS}, ["audio"]),
    examples={
        "an hour": {"value": {"duration": 3600, "precision": "int8"}},
        "a file": {"value": {"audio_path": "/home/me/recordings/meeting.opus"}},
    },
)


def build_router(service: Service) -> APIRouter:
    """Return the route of /v1/estimate."""
    router = APIRouter(responses=openapi.PROBLEMS)

    @router.post(
        "/v1/estimate",
        summary="Estimate memory and time of a recording",
        response_model=EstimateAnswer,
        openapi_extra={"requestBody": ESTIMATE_BODY},
    )
    async def estimate(request: Request) -> Response:
        return json_response(await _estimate_body(request, service))

    return router


async def _estimate_body(request: Request, service: Service) -> dict[str, Any]:
    fields, source = await read_fields(request, service)
    odd = unknown_field_notices(unknown_fields(fields, _FIELDS))
    body = EstimateAnswer.render(await _forecast(request, service, fields, source))
    return body | ({"warnings": [asdict(one) for one in odd]} if odd else {})


async def _forecast(
    request: Request, service: Service, fields: Fields, source: AudioSource | None
) -> JobForecast:
    """Return the forecast; ``source`` is closed."""
    try:
        options = service.options(fields)
        if source is None and fields.get("duration") is not None:
            if fields.get("audio_path") is not None:
                raise errors.FieldInvalid(
                    "'duration' and 'audio_path' exclude each other.", hint="Send one of them."
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
