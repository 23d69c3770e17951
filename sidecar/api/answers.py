"""The bodies of this wire: a transcription's answer, and a job with what was said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import Response

from sidecar.api.http.bodies import json_response, to_json
from sidecar.api.http.summary import job_summary
from sidecar.auth.identity import Identity
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.store import Turn
from sidecar.service import Service
from sidecar.transcripts.local_voices import FIELD
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import segment_body, transcript_body


def answer_body(service: Service, job: JobRecord, transcript: Transcript) -> dict[str, Any]:
    """The answer to a transcription."""
    body = transcript_body(service.noted(transcript, job.options))
    body["metadata"] |= {"processing_time": round(job.processing_s, 3), "job_id": job.id}
    if (heard := transcript.local_voices) is not None:
        body[FIELD] = asdict(heard)
    return {"status": "success", **body}


def job_rendering(service: Service, job: JobRecord, turn: Turn | None) -> Callable[[], bytes]:
    """What makes the body of a job as it stands now, with its result once there is one; it may be
    called in a thread."""
    summary, segments = job_summary(job, turn), job.segments
    transcript = job.transcript if job.state is JobState.DONE else None

    def render() -> bytes:
        body = summary | {"segments": [segment_body(segment) for segment in segments]}
        if transcript is not None:
            body["result"] = answer_body(service, job, transcript)
        return to_json(body)

    return render


async def job_response(
    service: Service,
    caller: Identity,
    job: JobRecord,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer about one job."""
    turn = await service.owned.turn(caller, job)
    body = await service.owned.answer(caller, job, job_rendering(service, job, turn))
    return json_response(body, status, headers)
