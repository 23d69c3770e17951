"""Event stream of a transcription."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from sidecar.api.http import responses
from sidecar.api.http.responses import IncrementalTextResponse, UnsentSegments
from sidecar.errors import SidecarError, TokenInvalid
from sidecar.jobs.job_record import JobRecord
from sidecar.protocols.openai import messages
from sidecar.protocols.openai.request import OpenAIResponseFormat
from sidecar.protocols.openai.retries import OpenAIFollowedJob
from sidecar.protocols.openai_common import error_body
from sidecar.transcripts.transcript import Transcript

DONE = b"data: [DONE]\n\n"
AnnotateTranscript = Callable[[JobRecord], Transcript]
"""Function that returns the transcript of a finished job, with its warnings; it raises the job's
error."""


async def event_frames(
    running: OpenAIFollowedJob, fmt: OpenAIResponseFormat, noted: AnnotateTranscript
) -> AsyncGenerator[bytes, None]:
    """Yield the event stream, with a comment as keep-alive while no event comes."""
    told = OpenAIJobEvents(diarized=fmt is OpenAIResponseFormat.DIARIZED)
    try:
        async with aclosing(running.watched(responses.SSE_KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield responses.SSE_KEEP_ALIVE
                    continue
                for event in told.more(record):
                    yield responses.sse_frame(event)
                if record.over:
                    for event in told.end(noted(record)):
                        yield responses.sse_frame(event)
    except SidecarError as error:
        yield responses.sse_frame(error_body(error))
    yield DONE


def token_revoked_frame() -> bytes:
    """Return the last frame for a client whose token was revoked."""
    return responses.sse_frame(error_body(TokenInvalid())) + DONE


class OpenAIJobEvents:
    """Events of one job. Pure."""

    def __init__(self, *, diarized: bool) -> None:
        self._unsaid, self._saying = UnsentSegments(), IncrementalTextResponse()
        self._diarized = diarized
        self._segments: dict[str, dict[str, Any]] = {}

    def more(self, record: JobRecord) -> Iterator[dict[str, Any]]:
        """Yield the events of new segments of a job."""
        for index, segment in self._unsaid.more(record):
            if not segment.is_speech:
                continue
            number = sum(one.is_speech for one in record.segments[:index])
            body = messages.segment_body(number, segment)
            named = {"segment_id": body["id"]} if self._diarized else {}
            if delta := self._saying.add(segment.text):
                yield {"type": "transcript.text.delta", "delta": delta, **named}
            if self._diarized:
                yield from self._segment(body)

    def end(self, transcript: Transcript) -> Iterator[dict[str, Any]]:
        """Yield the revised segments and the end.

        Nothing is billed, so the token counts are 0; ``usage`` also has the duration of the audio.
        """
        done: dict[str, Any] = {
            "type": "transcript.text.done",
            "text": transcript.text,
            "languages": messages.transcript_languages(transcript),
            "usage": {
                "type": "tokens",
                "input_tokens": 0,
                "output_tokens": 0,
                "total_tokens": 0,
                "seconds": round(transcript.duration, 3),
            },
        }
        if self._diarized:
            done["segments"] = messages.diarized_body(transcript)["segments"]
            for body in done["segments"]:
                yield from self._segment(body)
        yield done | messages.transcript_warnings(transcript)

    def _segment(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the event of a segment, unless the same was sent before."""
        if self._segments.get(body["id"]) != body:
            self._segments[body["id"]] = body
            yield body
