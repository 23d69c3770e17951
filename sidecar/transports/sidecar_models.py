"""The sidecar's wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sidecar.engine import Diarization, Precision, Windowing
from sidecar.options import LONGEST_PROMPT, MOST_SPEAKERS, MOST_TOKENS


class Root(BaseModel):
    """Who answers."""

    service: str = Field(examples=["vibevoice-asr"])
    version: str = Field(examples=["0.1.0"])
    status: str = Field(examples=["running"])


class Health(BaseModel):
    """How the service is; always 200, whatever it is doing."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(examples=["ok"])
    model_loaded: bool
    gpu_available: bool
    vram_used_mb: int | None
    vram_total_mb: int | None
    contract: int = Field(
        examples=[1], description="Version of what a host relies on (docs/embedding.md)."
    )
    version: str = Field(examples=["0.1.0"])
    pid: int = Field(examples=[4242], description="Process id of the service.")
    instance: str = Field(description="New at every start: tells an orphan from the real one.")
    engine: str = Field(examples=["moonshine"])
    precision: str = Field(examples=["int8"])
    engine_state: Literal["absent", "loading", "ready", "busy"]
    load_percent: int | None = Field(description="While an engine is being loaded.")
    worker_pid: int | None = Field(description="Process id of the engine, null if not loaded.")
    jobs_waiting: int = Field(examples=[0])


class Word(BaseModel):
    """One word, where the engine tells."""

    start_time: float
    end_time: float
    text: str


class Segment(BaseModel):
    """One stretch of speech by one speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    start_time: float = Field(examples=[0.07], description="Seconds from the start.")
    end_time: float = Field(examples=[0.93])
    text: str = Field(examples=["Do you hear me?"])
    words: list[Word] = []
    flags: list[str] = []


class Warning(BaseModel):
    """Something to know about this transcript."""

    code: str = Field(examples=["precision_substituted"])
    message: str


class Metadata(BaseModel):
    """About the transcript as a whole."""

    model_config = ConfigDict(protected_namespaces=())

    duration: float = Field(examples=[28.277], description="Seconds of audio.")
    language: str = Field(examples=["en"])
    processing_time: float = Field(examples=[11.2], description="Seconds the engine worked.")
    model_precision: str = Field(examples=["int8"], description="The precision really used.")
    num_speakers: int = Field(examples=[2])
    engine: str = Field(examples=["moonshine"])
    diarized: bool
    no_speech: bool
    job_id: str
    warnings: list[Warning]


class Transcription(BaseModel):
    """The answer to a transcription."""

    status: Literal["success"]
    segments: list[Segment]
    metadata: Metadata


class Progress(BaseModel):
    """How far a job is."""

    audio_seconds_done: float
    audio_seconds_total: float | None
    fraction: float | None


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str
    hint: str


class Job(BaseModel):
    """A job as it stands. A running job's speakers may still be revised in its result."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int | None = Field(description="How many jobs go first; null once it runs.")
    attempts: int
    progress: Progress
    segments: list[Segment]
    result: Transcription | None = None
    error: JobError | None = None


class JobList(BaseModel):
    """The jobs that are remembered, oldest first."""

    jobs: list[Job]


class Reloaded(BaseModel):
    """The answer to a reload."""

    status: Literal["success"]
    message: str = Field(examples=["Model reloaded with precision: int8"])


class Problem(BaseModel):
    """What was wrong, and what to do (RFC 9457); the codes are in docs/errors.md."""

    type: str = Field(examples=["urn:vibevoice-asr:error:audio_empty"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    code: str = Field(examples=["audio_empty"])
    detail: str = Field(examples=["The audio is empty (0 bytes)."])
    hint: str = Field(examples=["Check that the recording was written before it was sent."])
    request_id: str = Field(examples=["9f0c…"], description="To tell one report from another.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What was wrong with the request",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    },
    "5XX": {
        "description": "What went wrong here",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    },
}

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
    "diarization": {"type": "string", "enum": [*Diarization], "default": "balanced"},
    "hotwords": {
        "type": "string",
        "description": (
            "Names and terms that may be said, separated by commas or in free text. With 'prompt' "
            f"together at most {LONGEST_PROMPT} characters."
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
        "maximum": MOST_SPEAKERS,
        "description": "How many people speak, if somebody knows: a hint.",
        "examples": [2],
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
        "maximum": MOST_TOKENS,
        "description": "Longest answer of the model; without it, by the length of the audio.",
        "examples": [4096],
    },
    "windows": {
        "type": "string",
        "enum": [*Windowing],
        "default": "auto",
        "description": (
            "'parallel' hears a long recording in several windows at once, where there is memory "
            "for it: faster, with borders where speakers are linked by their voices."
        ),
        "examples": ["auto"],
    },
}
"""An engine that cannot follow one of the last seven says so (`option_ignored` in the warnings)."""

TRANSCRIBE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["audio"],
                "properties": {"audio": {"type": "string", "format": "binary"}, **OPTIONS},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["audio_path"],
                "properties": {
                    "audio_path": {
                        "type": "string",
                        "description": "Full path of a file on this machine.",
                    },
                    **OPTIONS,
                },
            },
            "example": {
                "audio_path": "/home/me/recordings/meeting.opus",
                "precision": "fp16",
                "language": "auto",
                "hotwords": "Nagg, Nell, Beckett",
                "num_speakers": 2,
            },
        },
    },
}

RELOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["precision"],
                "properties": {"precision": {"type": "string", "enum": [*Precision]}},
            },
            "example": {"precision": "int8"},
        }
    },
}
