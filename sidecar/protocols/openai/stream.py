"""A running job as OpenAI's stream of events: text as it is heard, segments, the end.

What was said stays said. Who says it may be revised until the end, when voices that are known get
their names: a segment that the whole
transcript has otherwise comes once more then, by the same id, and `transcript.text.done` has them
all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from sidecar.api.http import sse
from sidecar.api.http.unsaid import Saying, Unsaid
from sidecar.errors import SidecarError, TokenInvalid
from sidecar.jobs.record import JobRecord
from sidecar.protocols.dialect import error_body
from sidecar.protocols.openai.answers import diarized_body, languages_of, segment_body, warnings_of
from sidecar.protocols.openai.following import Running
from sidecar.protocols.openai.request import Format
from sidecar.transcripts.transcript import Transcript

DONE = b"data: [DONE]\n\n"
Noted = Callable[[JobRecord], Transcript]
"""The transcript of a job that has ended, with what its client should know of it; raises why there
is none."""


async def frames(running: Running, fmt: Format, noted: Noted) -> AsyncGenerator[bytes, None]:
    """What a client gets to read, with a comment where nothing comes for a while."""
    told = Told(diarized=fmt is Format.DIARIZED)
    try:
        async with aclosing(running.watched(sse.KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield sse.KEEP_ALIVE
                    continue
                for event in told.more(record):
                    yield sse.frame(event)
                if record.over:
                    for event in told.end(noted(record)):
                        yield sse.frame(event)
    except SidecarError as error:
        yield sse.frame(error_body(error))
    yield DONE


def farewell() -> bytes:
    """What is said last to who has a token that counts no more."""
    return sse.frame(error_body(TokenInvalid())) + DONE


class Told:
    """The events of one job. Pure."""

    def __init__(self, *, diarized: bool) -> None:
        self._unsaid, self._saying = Unsaid(), Saying()
        self._diarized = diarized
        self._segments: dict[str, dict[str, Any]] = {}

    def more(self, record: JobRecord) -> Iterator[dict[str, Any]]:
        """Of what is new in a job."""
        for index, segment in self._unsaid.more(record):
            if not segment.is_speech:
                continue
            number = sum(one.is_speech for one in record.segments[:index])
            body = segment_body(number, segment)
            named = {"segment_id": body["id"]} if self._diarized else {}
            if delta := self._saying.add(segment.text):
                yield {"type": "transcript.text.delta", "delta": delta, **named}
            if self._diarized:
                yield from self._segment(body)

    def end(self, transcript: Transcript) -> Iterator[dict[str, Any]]:
        """What was revised, and the end.

        Nothing is billed, so no tokens are; what was heard is in ``usage`` beside them.
        """
        done: dict[str, Any] = {
            "type": "transcript.text.done",
            "text": transcript.text,
            "languages": languages_of(transcript),
            "usage": {
                "type": "tokens",
                "input_tokens": 0,
                "output_tokens": 0,
                "total_tokens": 0,
                "seconds": round(transcript.duration, 3),
            },
        }
        if self._diarized:
            done["segments"] = diarized_body(transcript)["segments"]
            for body in done["segments"]:
                yield from self._segment(body)
        yield done | warnings_of(transcript)

    def _segment(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An event, unless that was said."""
        if self._segments.get(body["id"]) != body:
            self._segments[body["id"]] = body
            yield body
