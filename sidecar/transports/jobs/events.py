"""A job's events as server-sent events, each with its number as the id to resume after."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sidecar.errors import JobCancelled, TokenInvalid
from sidecar.jobs.feed import Behind, Subscription
from sidecar.jobs.record import (
    Begun,
    Cancelled,
    Crashed,
    Failed,
    Failure,
    Interrupted,
    JobEvent,
    PutBack,
    Reported,
)
from sidecar.speech.formats import segment_body
from sidecar.speech.transcript import Checkpoint, Finished, Peaks, Progress, SegmentReady
from sidecar.transports.http import sse
from sidecar.transports.http.summary import error_body, progress_body

RETRY = b"retry: 1000\n\n"
"""Milliseconds until a browser asks again by itself."""


def event_body(job_id: str, event: JobEvent) -> tuple[str, dict[str, Any]] | None:
    """The name and the data of an event; None where it is not for clients: what an engine goes on
    from, and what is asked for at an address of its own."""
    match event.change:
        case Begun():
            return "begun", {}
        case Crashed():
            return "crashed", {}
        case PutBack() | Interrupted():
            return "put_back", {}
        case Failed(failure):
            return "failed", {"error": error_body(failure)}
        case Cancelled():
            return "cancelled", {"error": error_body(Failure.of(JobCancelled()))}
        case Reported(Checkpoint() | Peaks()):
            return None
        case Reported(Progress() as progress):
            return "progress", progress_body(progress)
        case Reported(SegmentReady(index, segment)):
            return "segment", {"index": index, "segment": segment_body(segment)}
        case Reported(Finished(transcript), processing_s):
            return "done", {
                "duration": round(transcript.duration, 3),
                "processing_time": round(processing_s, 3),
                "segments": len(transcript.segments),
                "transcript": f"/v1/jobs/{job_id}/transcript",
            }
    raise AssertionError(event)


def farewell() -> bytes:
    """The last frame of a stream whose reader's token counts no more."""
    return sse.frame({"error": error_body(Failure.of(TokenInvalid()))}, "unauthorized")


async def frames(job_id: str, subscription: Subscription) -> AsyncGenerator[bytes, None]:
    """Every event of a subscription, until the job has ended. A reader that is too slow is told
    after which one to resume, and that is the last it gets."""
    yield RETRY
    try:
        async with aclosing(sse.with_pauses(subscription, sse.KEEP_ALIVE_S)) as events:
            async for event in events:
                if event is None:
                    yield sse.KEEP_ALIVE
                elif (told := event_body(job_id, event)) is not None:
                    name, body = told
                    yield sse.frame(body, name, event.seq)
    except Behind as behind:
        yield sse.frame({"resume_after": behind.seq}, "behind")
