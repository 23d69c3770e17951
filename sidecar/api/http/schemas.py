"""Schemas that several protocols share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sidecar import clock
from sidecar.interfaces.engine_interface import DiarizationEffort, Precision, WindowingMode
from sidecar.interfaces.request_options import MAX_PROMPT_CHARACTERS, MAX_SPEAKERS, MAX_TOKENS


class RenderedBody(BaseModel):
    """A body that is rendered from an object of the service, by the fields that OpenAPI shows."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def render(cls, source: object) -> dict[str, Any]:
        """Return the body of ``source`` as JSON values, without fields that have their default."""
        return cls.model_validate(source).model_dump(exclude_defaults=True)


UtcDate = Annotated[str, BeforeValidator(clock.format_utc)]
"""From seconds since 1970."""
RoundedSeconds = Annotated[float, AfterValidator(lambda seconds: round(seconds, 3))]


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457); the codes are in docs/errors.md."""

    type: str = Field(examples=["urn:vibevoice-asr:error:audio_empty"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    code: str = Field(examples=["audio_empty"])
    detail: str = Field(examples=["The audio is empty (0 bytes)."])
    hint: str = Field(examples=["Check that the recording was written before it was sent."])
    request_id: str = Field(examples=["9f0c…"], description="To tell one report from another.")


class JobProgress(RenderedBody):
    """How far a job is."""

    audio_seconds_done: RoundedSeconds = Field(validation_alias="audio_s_done")
    audio_seconds_total: RoundedSeconds | None = Field(validation_alias="audio_s_total")
    fraction: float | None


class JobError(RenderedBody):
    """Why a job failed, or is refused."""

    code: str
    detail: str
    hint: str


class JobSummary(BaseModel):
    """A job as it stands, without what was said."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int | None = Field(description="How many jobs go first; null once it runs.")
    attempts: int
    created: str = Field(examples=["2026-11-20T21:10:00Z"], description="When it was sent, in UTC.")
    duration: float | None = Field(description="Seconds of audio, where they are known.")
    progress: JobProgress
    error: JobError | None = None
    refused: JobError | None = Field(
        None, description="Why no node that is there can do it, while it waits for one that can."
    )


_PROBLEM = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What was wrong with the request", "content": _PROBLEM},
    "5XX": {"description": "What went wrong here", "content": _PROBLEM},
}
"""Of every route: an `APIRouter` is made with it."""

PATH: dict[str, Any] = {
    "type": "string",
    "description": "Full path of a file on this machine.",
}


AUDIO_FILE: dict[str, Any] = {"type": "string", "format": "binary"}


def object_schema(
    properties: dict[str, Any], required: Sequence[str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the schema of an object."""
    needed = {} if required is None else {"required": [*required]}
    return {"type": "object", **needed, "properties": properties, **more}


def request_body(
    json: dict[str, Any], form: dict[str, Any] | None = None, **examples: Any
) -> dict[str, Any]:
    """Return the body of a request as JSON and, with ``form``, as multipart form too.

    ``json``, ``form``: schemas; ``examples``: of the JSON.
    """
    content = {"application/json": {"schema": json, **examples}}
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"required": True, "content": content}


def submission(options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request with a recording, in its two forms, beside ``options``."""
    return request_body(
        object_schema({"audio_path": PATH, **options}, ["audio_path"]),
        object_schema({"audio": AUDIO_FILE, **options}, ["audio"]),
        example={
            "audio_path": "/home/me/recordings/meeting.opus",
            "precision": "fp16",
            "language": "auto",
            "hotwords": "Nagg, Nell, Beckett",
            "num_speakers": 2,
        },
    )


def schema_fields(body: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all fields in the forms of a `request_body`."""
    forms = [one["schema"]["properties"] for one in body["content"].values()]
    return frozenset(name for properties in forms for name in properties)


OPTIONS: dict[str, Any] = {
    "precision": {
        "type": "string",
        "enum": [*Precision],
        "default": "auto",
        "description": "A wish: an engine without it uses its own and says so in the warnings.",
    },
    "language": {"type": "string", "default": "auto", "examples": ["auto", "en"]},
    "diarize": {
        "type": "boolean",
        "default": True,
        "description": "Tell speakers apart; without it the work is a fraction.",
    },
    "diarization": {"type": "string", "enum": [*DiarizationEffort], "default": "balanced"},
    "recognise": {
        "type": "boolean",
        "default": True,
        "description": "Say who of your people speaks, where the setting 'people' is on.",
    },
    "hotwords": {
        "type": "string",
        "description": (
            "Names and terms that may be said, separated by commas or in free text. With 'prompt' "
            f"together at most {MAX_PROMPT_CHARACTERS} characters."
        ),
        "examples": ["Nagg, Nell, Beckett"],
    },
    "prompt": {
        "type": "string",
        "description": "What the recording is about, in the language that is spoken.",
        "examples": ["A scene of Samuel Beckett's Endgame"],
    },
    "context": {"type": "string", "description": "The same as 'prompt'; send one of them."},
    "num_speakers": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_SPEAKERS,
        "description": "How many people speak, if somebody knows: a hint.",
        "examples": [2],
    },
    "speakers": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_SPEAKERS,
        "description": "The same as 'num_speakers'; send one of them.",
    },
    "temperature": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0,
        "description": "0 takes the likeliest words; above it there is chance.",
        "examples": [0],
    },
    "max_tokens": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_TOKENS,
        "description": "Longest answer of the model; without it, by the length of the audio.",
        "examples": [4096],
    },
    "windows": {
        "type": "string",
        "enum": [*WindowingMode],
        "default": "auto",
        "description": (
            "'parallel' hears a long recording in several windows at once, where there is memory "
            "for it: faster, with borders where speakers are linked by their voices."
        ),
        "examples": ["auto"],
    },
    "words": {
        "type": "boolean",
        "default": False,
        "description": "Times of words, also from an engine for which they are more work.",
    },
}
"""An engine that cannot follow one of those from
`hotwords` to `windows` says so (`option_ignored` in the warnings)."""
