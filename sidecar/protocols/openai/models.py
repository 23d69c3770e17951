"""This wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sidecar.api.http.schemas import OPTIONS
from sidecar.protocols.openai.request import OWN, Format, Granularity
from sidecar.protocols.openai.speakers import MOST
from sidecar.protocols.schemas import ERRORS


class Model(BaseModel):
    """A name of what is loaded."""

    id: str = Field(examples=["whisper-1"])
    object: Literal["model"]
    created: int = Field(description="When the service was started, in seconds since 1970.")
    owned_by: str
    engine: str
    precision: str
    alias_of: str | None = Field(description="Our own name of a model of OpenAI's.")


class ModelList(BaseModel):
    """All names that count."""

    object: Literal["list"]
    data: list[Model]


_USAGE = {
    "type": "object",
    "properties": {"type": {"const": "duration"}, "seconds": {"type": "number"}},
}
_ANSWER = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": {"type": "string"},
        "task": {"type": "string", "enum": ["transcribe", "translate"]},
        "language": {"type": "string"},
        "languages": {"type": "array", "items": {"type": "object"}},
        "duration": {"type": "number"},
        "segments": {"type": "array", "items": {"type": "object"}},
        "words": {"type": "array", "items": {"type": "object"}},
        "usage": _USAGE,
        "warnings": {"type": "array", "items": {"type": "object"}},
    },
    "description": "json, verbose_json and diarized_json: the fields of OpenAI's answers.",
}
_PLAIN = {
    "application/json": {"schema": _ANSWER},
    "text/plain": {"schema": {"type": "string"}},
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
TRANSCRIPTION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "By response_format; as events with 'stream': transcript.text.delta, "
        "transcript.text.segment (diarized_json), transcript.text.done",
        "content": {**_PLAIN, **_STREAM},
    },
    **ERRORS,
}
TRANSLATION = TRANSCRIPTION


def texts(said: str) -> dict[str, Any]:
    """A list of words."""
    return {"type": "array", "items": {"type": "string"}, "description": said}


def form(fields: dict[str, Any], *needed: str) -> dict[str, Any]:
    """The body of a request with these fields, and its headers."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file", *needed],
                        "properties": fields,
                    }
                }
            },
        },
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": "Sent again, it gives the same job; hanging up does not end that.",
            }
        ],
    }


_BOTH: dict[str, Any] = {
    "file": {"type": "string", "format": "binary"},
    "model": {
        "type": "string",
        "examples": ["whisper-1"],
        "description": "A name of GET /v1/models; those of OpenAI stand for what is loaded.",
    },
    "prompt": OPTIONS["prompt"],
    "temperature": OPTIONS["temperature"],
    "stream": {"type": "boolean", "default": False},
    "language": {"type": "string", "examples": ["en"], "description": "Of the recording."},
    **{name: OPTIONS[name] for name in OWN},
}
_FORMAT: dict[str, Any] = {"type": "string", "enum": [*Format], "default": "json"}
TRANSLATE = form(
    _BOTH
    | {
        "response_format": _FORMAT
        | {"enum": [one.value for one in Format if one is not Format.DIARIZED]}
    },
    "model",
)
INFER = form(
    _BOTH
    | {
        "response_format": _FORMAT,
        "translate": {"type": "boolean", "default": False, "description": "Into English."},
    }
)
TRANSCRIBE = form(
    _BOTH
    | {
        "response_format": _FORMAT,
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": [*Granularity]},
            "description": "With verbose_json; 'word' where the engine tells times of words.",
        },
        "chunking_strategy": {
            "type": "string",
            "enum": ["auto"],
            "description": "Or a 'server_vad'; we cut by rules of our own in any case.",
        },
        "languages[]": texts("Languages that there may be."),
        "keywords[]": texts("Words that may be said: hotwords."),
        "include[]": texts("'logprobs' is refused: no engine tells them."),
        "known_speaker_names[]": texts(f"Up to {MOST} names."),
        "known_speaker_references[]": texts("2 to 10 s of each voice, as data URLs."),
    },
    "model",
)
