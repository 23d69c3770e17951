"""A job's events as server-sent events, each with its number as the id to resume after."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sidecar.api.http import sse
from sidecar.api.http.summary import error_body, progress_body
from sidecar.errors import JobCancelled, TokenInvalid
from sidecar.jobs.events import (
    Begun,
    Cancelled,
    Crashed,
    Edited,
    Failed,
    Failure,
    Interrupted,
    JobEvent,
    PutBack,
    Refused,
    Reported,
)
from sidecar.jobs.feed import TOGETHER, Behind, Subscription
from sidecar.transcripts.edit_serialization import step_values
from sidecar.transcripts.transcript import Checkpoint, Finished, Peaks, Progress, SegmentReady
from sidecar.transcripts.transcript_formats import segment_body

RETRY = b"retry: 1000\n\n"
"""Milliseconds until a browser asks again by itself."""


def event_body(job_id: str, event: JobEvent) -> tuple[str, dict[str, Any]] | None:
    """The name and the data of an event; None of one that says nothing to a client."""
    match event.change:
        case Begun():
            return "begun", {}
        case Crashed():
            return "crashed", {}
        case PutBack() | Interrupted():
            return "put_back", {}
        case Refused(refused):
            return "refused", {"error": error_body(refused) if refused is not None else None}
        case Failed(failure):
            return "failed", {"error": error_body(failure)}
        case Cancelled():
            return "cancelled", {"error": error_body(Failure.of(JobCancelled()))}
        case Reported(Progress() as progress):
            return "progress", progress_body(progress)
        case Reported(SegmentReady(index, segment)):
            return "segment", {"index": index, "segment": segment_body(segment)}
        case Reported(Checkpoint() | Peaks()):  # between us and the engine; for another address
            return None
        case Reported(Finished(transcript), processing_s):
            return "done", {
                "duration": round(transcript.duration, 3),
                "processing_time": round(processing_s, 3),
                "segments": len(transcript.segments),
                "transcript": f"/v1/jobs/{job_id}/transcript",
            }
        case Edited(step):
            return "edited", {"operations": step_values(step)}
    raise AssertionError(event)


def farewell() -> bytes:
    """The last frame of a stream whose reader's token counts no more."""
    return sse.frame({"error": error_body(Failure.of(TokenInvalid()))}, "unauthorized")


class Frames:
    """Events as they go out, each written once for all who follow it."""

    def __init__(self, most: int = TOGETHER) -> None:
        """``most``: so many of the last are kept, for those who take them a moment later."""
        self._most = most
        self._written: dict[tuple[str, int], bytes] = {}

    def of(self, job_id: str, event: JobEvent) -> bytes:
        """One event; nothing of what is none of a client's."""
        frame = self._written.get((job_id, event.seq))
        if frame is None:
            told = event_body(job_id, event)
            frame = b"" if told is None else sse.frame(told[1], told[0], event.seq)
            while len(self._written) >= self._most:
                del self._written[next(iter(self._written))]
            self._written[job_id, event.seq] = frame
        return frame

    async def following(
        self, job_id: str, subscription: Subscription
    ) -> AsyncGenerator[bytes, None]:
        """Every event of a subscription, until the job has ended. A reader that is too slow is told
        after which one to resume, and that is the last it gets."""
        yield RETRY
        try:
            async with aclosing(subscription.batches(sse.KEEP_ALIVE_S)) as batches:
                async for events in batches:
                    if not events:
                        yield sse.KEEP_ALIVE
                    elif frames := b"".join(self.of(job_id, event) for event in events):
                        yield frames
        except Behind as behind:
            yield sse.frame({"resume_after": behind.seq}, "behind")
