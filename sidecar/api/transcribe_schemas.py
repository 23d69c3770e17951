"""Schemas of /transcribe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sidecar.api.http import schemas
from sidecar.interfaces.engine_interface import Precision
from sidecar.transcripts.speaker_embeddings import LOCAL_VOICES_FIELD, WINDOW_FORMAT


class TranscribeWord(BaseModel):
    """One word, where the engine tells."""

    start_time: float
    end_time: float
    text: str


class TranscribeSegment(BaseModel):
    """One stretch of speech by one speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(None, description="Who that is, where somebody was recognised.")
    start_time: float = Field(examples=[0.07], description="Seconds from the start.")
    end_time: float = Field(examples=[0.93])
    text: str = Field(examples=["Do you hear me?"])
    words: list[TranscribeWord] = []
    words_by: str = Field(
        default="",
        examples=["attention"],
        description=(
            "How the times of words were found, there with them: 'attention' (of the model), "
            "'server' (told by an upstream), 'spread' (evenly over the segment, a guess)."
        ),
    )
    flags: list[str] = []


class TranscribeWarning(BaseModel):
    """Something to know about this transcript."""

    code: str = Field(examples=["precision_substituted"])
    message: str


class TranscribeSpeaker(BaseModel):
    """Voice profile of a speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(examples=["Nell"], description="Null: it is nobody who is known.")
    person: str | None = Field(description="Id of that person, in /v1/people.")
    likeness: float | None = Field(
        examples=[0.78],
        description="To that person, or to the likeliest of those that it is not; 1 is the most.",
    )
    voice_seconds: float = Field(examples=[15.1], description="Heard alone.")


class TranscribeMetadata(BaseModel):
    """About the transcript as a whole."""

    model_config = ConfigDict(protected_namespaces=())

    duration: float = Field(examples=[28.277], description="Seconds of audio.")
    language: str = Field(examples=["en"])
    processing_time: float = Field(examples=[11.2], description="Seconds the engine worked.")
    model_precision: str = Field(examples=["int8"], description="The precision really used.")
    num_speakers: int = Field(examples=[2])
    engine: str = Field(examples=["moonshine"])
    model: str = Field(
        default="",
        examples=["whisper-small"],
        description="Which model heard it; there where the engine may have one of several.",
    )
    diarized: bool
    no_speech: bool
    job_id: str
    warnings: list[TranscribeWarning]
    words_by: str = Field(
        default="",
        examples=["attention"],
        description="Of all segments with words the least sure way; left out where none has any.",
    )
    speakers: list[TranscribeSpeaker] = Field(
        [], description="There with the setting 'people', or where voices came with the request."
    )


class TranscribeLocalVoices(BaseModel):
    """Window embeddings of a chunk of a recording."""

    form: str = Field(examples=[WINDOW_FORMAT])
    windows: str = Field(description="Base64, for another vibevoice-asr of the same build.")
    same: bool = Field(
        description="Whether the speakers of the segments were told apart by the like of these."
    )


class TranscribeAnswer(BaseModel):
    """The answer to a transcription."""

    status: Literal["success"]
    segments: list[TranscribeSegment]
    metadata: TranscribeMetadata
    local_voices: TranscribeLocalVoices | None = Field(
        None, description="There where the request asked for it."
    )


class TranscribeJob(schemas.JobSummary):
    """A job with what was said so far. A running job's speakers may be revised in its result."""

    segments: list[TranscribeSegment]
    result: TranscribeAnswer | None = None


class TranscribeJobList(BaseModel):
    """The jobs of requests with 'Prefer: respond-async', oldest first."""

    jobs: list[schemas.JobSummary]


class ReloadAnswer(BaseModel):
    """The answer to a reload."""

    status: Literal["success"]
    message: str = Field(examples=["Model reloaded with precision: int8"])


TRANSCRIBE_BODY = schemas.submission(
    schemas.OPTIONS
    | {
        LOCAL_VOICES_FIELD: schemas.text(
            "For another vibevoice-asr, which has cut a recording and tells its voices apart "
            "itself (docs/upstream.md): JSON with form, words_s, first_s, until_s and begins. "
            "What is made of it is in no job and in no list."
        )
    }
)

TRANSCRIBE_FIELDS = schemas.schema_fields(TRANSCRIBE_BODY)

RELOAD_BODY: dict[str, Any] = schemas.request_body(
    schemas.object_schema({"precision": schemas.choice(Precision)}, ["precision"]),
    example={"precision": "int8"},
)
