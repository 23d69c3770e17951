"""Route `GET /v1/jobs/{job_id}/speaking-time`."""

from collections import defaultdict

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response
from sidecar.service.facade import Service
from sidecar.transcripts.transcript_formats import speaker_label
from speaking_time import SpeakingTimeSettings


class SpeakingTime(BaseModel):
    """Seconds of speech by speaker, the longest first."""

    seconds: dict[str, float] = Field(examples=[{"Speaker_0": 61.2, "Speaker_1": 12.5}])


def build_router(service: Service) -> APIRouter:
    """Build the route for the jobs of this service."""
    router = openapi.Routes(dependencies=openapi.CHECKS, responses=openapi.PROBLEMS)
    least_s = SpeakingTimeSettings.of(service.settings).speaking_time_least

    @router.get("/v1/jobs/{job_id}/speaking-time", response_model=SpeakingTime)
    async def speaking_time(request: Request, job_id: str) -> Response:
        """Seconds that each speaker of a job spoke."""
        _, transcript = await service.owned.transcript(identity_of(request), job_id)
        spoken = defaultdict[str, float](float)
        for segment in transcript.segments:
            if segment.is_speech:
                name = transcript.name_of(segment.speaker) or speaker_label(segment.speaker)
                spoken[name] += segment.end - segment.start
        longest_first = sorted(spoken.items(), key=lambda item: -item[1])
        listed = {name: round(s, 2) for name, s in longest_first if s >= least_s}
        return json_response({"seconds": listed})

    return router
