"""A job as it stands, without what was said, as several wires have it."""

from __future__ import annotations

from typing import Any

from sidecar import clock
from sidecar.jobs.events import Failure
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.store import Turn
from sidecar.transcripts.transcript import Progress


def job_summary(job: JobRecord, turn: Turn | None) -> dict[str, Any]:
    """Return a job's body in a list; times in seconds, dates in UTC."""
    done = job.state is JobState.DONE and job.transcript is not None
    duration = job.transcript.duration if done and job.transcript else job.facts.total_s
    body: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "position": turn and turn.position,
        "attempts": job.attempts,
        "created": clock.for_people(job.created),
        "duration": duration and round(duration, 3),
        "progress": progress_body(job.progress),
    }
    if job.error is not None:
        body["error"] = error_body(job.error)
    if job.refused is not None:
        body["refused"] = error_body(job.refused)
    return body


def progress_body(progress: Progress) -> dict[str, Any]:
    """How far a job is."""
    total = progress.audio_s_total
    return {
        "audio_seconds_done": round(progress.audio_s_done, 3),
        "audio_seconds_total": total and round(total, 3),
        "fraction": progress.fraction,
    }


def error_body(error: Failure) -> dict[str, Any]:
    """Why a job has no transcript."""
    return {"code": error.code, "detail": error.detail, "hint": error.hint}
