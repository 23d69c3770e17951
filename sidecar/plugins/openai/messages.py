"""Response formats, stream events and schemas of OpenAI's transcription API.

JSON has only speech and no other audio events (`[Music]`): `text` is the text of the segments.
Additional keys that OpenAI's responses do not have are present only if they have a value.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.api.http import openapi
from sidecar.api.http.model_list import LocalModel
from sidecar.api.http.responses import IncrementalTextResponse, UnsentSegments, to_json
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.language_tags import language_code
from sidecar.jobs.job_record import JobRecord
from sidecar.plugins.openai import common as openai_common
from sidecar.plugins.openai.errors import WordsUnavailable
from sidecar.plugins.openai.request import (
    MAX_KNOWN_SPEAKERS,
    NATIVE_FIELDS,
    OpenAIAnswerOptions,
    OpenAIGranularity,
    OpenAIResponseFormat,
)
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.transcript_formats import render_transcript, to_vtt

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
SEGMENT = "transcript.text.segment"


def transcription_answer(
    transcript: Transcript, answer: OpenAIAnswerOptions, temperature: float
) -> tuple[bytes, str]:
    """Return the body of a response, and its media type.

    Raises:
        WordsUnavailable: word timestamps were requested, and the engine returned none.
    """
    match answer.format:
        case OpenAIResponseFormat.TEXT if not transcript.diarized:
            return f"{transcript.text}\n".encode(), TEXT
        case OpenAIResponseFormat.VTT:
            return to_vtt(transcript, "", plain=True).encode(), TEXT
        case OpenAIResponseFormat.TEXT | OpenAIResponseFormat.SRT:
            return render_transcript(transcript, answer.format.value).encode(), TEXT
        case OpenAIResponseFormat.DIARIZED:
            body = diarized_body(transcript)
        case OpenAIResponseFormat.VERBOSE:
            body = verbose_body(transcript, answer, temperature)
        case _:
            body = {"text": transcript.text, "languages": transcript_languages(transcript)}
    body["usage"] = {"type": "duration", "seconds": round(transcript.duration, 3)}
    return to_json(body | transcript_warnings(transcript)), JSON


def verbose_body(
    transcript: Transcript, answer: OpenAIAnswerOptions, temperature: float
) -> dict[str, Any]:
    """Return `verbose_json`; values about the decoding that are unknown are those of full
    confidence. The texts of the segments have the spaces between them, and add up to the whole."""
    language = openai_common.language_name(transcript.language)
    body: dict[str, Any] = {
        "task": "translate" if answer.translate else "transcribe",
        "language": "english" if answer.translate else language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    if OpenAIGranularity.SEGMENT in answer.granularities:
        added = IncrementalTextResponse("。")  # so the first begins with a space, too; not Chinese
        body["segments"] = [
            {
                "id": number,
                "seek": 0,
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": added.add(segment.text),
                "tokens": [],
                "temperature": temperature,
                "avg_logprob": round(math.log(segment.confidence or 1.0), 3),
                "compression_ratio": round(compression_ratio(segment.text), 3),
                "no_speech_prob": segment.no_speech_probability or 0.0,
            }
            for number, segment in enumerate(spoken_segments(transcript))
        ]
    if OpenAIGranularity.WORD in answer.granularities:
        body["words"] = word_bodies(transcript)
        if transcript.words_by:
            body["words_by"] = transcript.words_by
    return body


def word_bodies(transcript: Transcript) -> list[dict[str, Any]]:
    """Return every word that has timestamps.

    Raises:
        WordsUnavailable: no word has timestamps. An empty list would look like silence to
            the client.
    """
    segments = list(spoken_segments(transcript))
    if segments and not any(segment.words for segment in segments):
        name = transcript.engine
        raise WordsUnavailable(f"The engine '{name}' returns no word timestamps.")
    return [
        {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
        | ({"probability": word.confidence} if word.confidence else {})
        for segment in segments
        for word in segment.words
    ]


def diarized_body(transcript: Transcript) -> dict[str, Any]:
    """Return `diarized_json`."""
    return {
        "task": "transcribe",
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [
            segment_body(number, segment, transcript.name_of(segment.speaker))
            for number, segment in enumerate(spoken_segments(transcript))
        ],
    }


def segment_body(number: int, segment: Segment, name: str | None = None) -> dict[str, Any]:
    """Return a segment with its speaker, by ``name`` if that is known. It is also an event."""
    return {
        "type": SEGMENT,
        "id": f"seg_{number:03}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "speaker": name or openai_common.speaker_letters(segment.speaker or 0),
    }


def compression_ratio(text: str) -> float:
    """Return Whisper's compression ratio: the length of a text by that of its zlib compression. It
    is high for repetitive text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def spoken_segments(transcript: Transcript) -> Iterator[Segment]:
    """Return the segments with speech."""
    return (segment for segment in transcript.segments if segment.is_speech)


def transcript_languages(transcript: Transcript) -> list[dict[str, str]]:
    """Return the languages of the transcript; empty if unknown."""
    code = language_code(transcript.language)
    return [] if code is None else [{"code": code}]


def transcript_warnings(transcript: Transcript) -> dict[str, Any]:
    """Return the warnings of a transcript."""
    warnings = [{"code": notice.code, "message": notice.message} for notice in transcript.notices]
    return {"warnings": warnings} if warnings else {}


class OpenAIModel(BaseModel):
    """A name of the loaded model."""

    id: str = Field(examples=["whisper-1"])
    object: Literal["model"]
    created: int = Field(description="Start of the service, in seconds since 1970.")
    owned_by: str
    engine: str
    precision: str
    alias_of: str | None = Field(description="Name of the loaded model that this alias stands for.")

    @classmethod
    def of(cls, spec: EngineSpec, name: str, created: int, *, strict: bool = False) -> OpenAIModel:
        """Return the model of a name; ``created``: the start of the service, in seconds since 1970.
        ``strict``: the setting `openai_strict`.

        Raises:
            errors.ModelNotFound: no model has this name.
        """
        return cls(
            id=name,
            object="model",
            created=created,
            owned_by="vibevoice-asr",
            engine=spec.name,
            precision=openai_common.chosen_precision(spec, name, strict=strict).value,
            alias_of=None if name.partition(":")[0] == spec.name else spec.name,
        )


class OpenAIModelList(BaseModel):
    """All valid names, and beside OpenAI's fields the models of this machine."""

    object: Literal["list"]
    data: list[OpenAIModel]
    models: list[LocalModel] = Field(default=[], description="For the scope 'admin'.")


_OBJECTS = {"type": "array", "items": {"type": "object"}}
_ANSWER = openapi.object_schema(
    {
        "text": openapi.text(),
        "task": openapi.choice(["transcribe", "translate"]),
        "language": openapi.text(),
        "languages": _OBJECTS,
        "duration": {"type": "number"},
        "segments": _OBJECTS,
        "words": _OBJECTS,
        "usage": openapi.object_schema(
            {"type": {"const": "duration"}, "seconds": {"type": "number"}}
        ),
        "warnings": _OBJECTS,
    },
    ["text"],
    description="json, verbose_json and diarized_json: the fields of OpenAI's answers.",
)
TRANSCRIPTION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "By response_format; as events with 'stream': transcript.text.delta, "
        "transcript.text.segment (diarized_json), transcript.text.done",
        "content": {
            **openapi.content("application/json", schema=_ANSWER),
            **openapi.content("text/plain", "text/event-stream"),
        },
    }
}


def form(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI body of a request with these fields, and its headers. If the body is the
    recording itself, the fields are in the query."""
    form = openapi.object_schema(fields, ["file"])
    key = openapi.idempotency_key(
        "If it is sent again, the answer is the same job; disconnecting does not cancel it."
    )
    return {
        **openapi.body(
            openapi.content("multipart/form-data", schema=form)
            | openapi.content("audio/*", schema=openapi.AUDIO_FILE)
        ),
        **openapi.parameters(key),
    }


_BOTH: dict[str, Any] = {
    "file": openapi.AUDIO_FILE,
    "model": openapi.text(
        "A name of GET /v1/models, or none; names of OpenAI's models stand for the loaded one.",
        examples=["whisper-1"],
    ),
    "prompt": openapi.OPTIONS["prompt"],
    "temperature": openapi.OPTIONS["temperature"],
    "stream": openapi.flag(False),
    "language": openapi.text("Of the recording.", examples=["en"]),
    **{name: openapi.OPTIONS[name] for name in NATIVE_FIELDS},
}
_FORMAT = openapi.choice(OpenAIResponseFormat, default="json")
_TRANSLATED = [one for one in OpenAIResponseFormat if one is not OpenAIResponseFormat.DIARIZED]
TRANSLATE = form(_BOTH | {"response_format": openapi.choice(_TRANSLATED, default="json")})
INFER = form(
    _BOTH | {"response_format": _FORMAT, "translate": openapi.flag(False, "Into English.")}
)
TRANSCRIBE = form(
    _BOTH
    | {
        "response_format": _FORMAT,
        "timestamp_granularities[]": {
            "type": "array",
            "items": openapi.choice(OpenAIGranularity),
            "description": "Has an effect with verbose_json.",
        },
        "chunking_strategy": openapi.choice(
            ["auto"], "'auto' or a 'server_vad'; no effect: this service uses its own parameters."
        ),
        "languages[]": openapi.texts("Possible languages."),
        "keywords[]": openapi.texts("Words to expect (hotwords)."),
        "include[]": openapi.texts("'logprobs' has no effect: there are none of tokens."),
        "known_speaker_names[]": openapi.texts(f"Up to {MAX_KNOWN_SPEAKERS} names."),
        "known_speaker_references[]": openapi.texts("2 to 10 s of each voice, as data URLs."),
    }
)


class OpenAIJobEvents:
    """Events of one job. Pure."""

    def __init__(self, *, diarized: bool) -> None:
        self._unsent, self._saying = UnsentSegments(), IncrementalTextResponse()
        self._diarized, self._spoken = diarized, 0
        self._segments: dict[str, dict[str, Any]] = {}

    def more(self, record: JobRecord) -> Iterator[dict[str, Any]]:
        """Yield the events of new segments of a job."""
        for _, segment in self._unsent.more(record):
            if not segment.is_speech:
                continue
            body = segment_body(self._spoken, segment)
            self._spoken += 1
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
            "languages": transcript_languages(transcript),
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
        yield done | transcript_warnings(transcript)

    def _segment(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the event of a segment, unless the same was sent before."""
        if self._segments.get(body["id"]) != body:
            self._segments[body["id"]] = body
            yield body
