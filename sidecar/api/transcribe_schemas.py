"""Schemas of /transcribe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sidecar.api.http.schemas import OPTIONS, JobSummary, submission
from sidecar.interfaces.engine_interface import Precision
from sidecar.transcripts.speaker_embeddings import LOCAL_VOICES_FIELD, WINDOW_FORMAT


class RootAnswer(BaseModel):
    """Who answers."""

    service: str = Field(examples=["vibevoice-asr"])
    version: str = Field(examples=["0.1.0"])
    status: str = Field(examples=["running"])


class HealthAnswer(BaseModel):
    """How the service is: 200 whatever it is doing, unless the setting 'health_errors' wants 500
    where it is not healthy."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(
        examples=["ok"], description="ok, loading, or stopping: it ends soon; with 500 error."
    )
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
    engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] = Field(
        description="stuck: its process hangs where nothing ends it, and no work is done."
    )
    load_percent: int | None = Field(description="While an engine is being loaded.")
    worker_pid: int | None = Field(description="Process id of the engine, null if not loaded.")
    live_engine: str | None = Field(
        examples=["moonshine"], description="For live audio, null where none hears it."
    )
    live_engine_state: Literal["absent", "loading", "ready", "busy", "stuck"] | None
    jobs_waiting: int = Field(examples=[0])
    vllm: Literal["ok", "degraded", "unreachable"] = Field(
        description=(
            "For clients of the queue server that this service stands in for, which ask how its "
            "engine is: ok, it takes recordings; degraded, it is being loaded; unreachable, the "
            "service ends."
        )
    )
    pipeline_state: str = Field(
        examples=["idle"], description="What conversations are doing, for their page."
    )
    initialized: bool = Field(description="Whether there is an ear for conversations.")
    grpc_port: int = Field(
        default=0, examples=[50051], description="Port of gRPC; there only where it is on."
    )
    wyoming_port: int = Field(
        default=0, examples=[10300], description="Port of Wyoming; there only where it is on."
    )
    talk_port: int = Field(
        default=0,
        examples=[8005],
        description="Port for the page of the speech-to-speech demo; there only where it is on.",
    )
    local_voices: str = Field(
        default="",
        examples=[WINDOW_FORMAT],
        description=(
            "Form of what a service of the same build may ask for with a piece of a recording, to "
            "tell voices apart over all of it; there only where it is to be had."
        ),
    )
    grpc_running: bool
    model_pool_healthy: bool = Field(description="Whether what was recognised lately went well.")
    models_loaded: bool
    model_count: int = Field(description="Engines in memory.")
    model_worker_total: int = Field(description="Processes of engines.")
    model_worker_shutdown: int = Field(description="How many of them died since the start.")
    active_sessions: int = Field(description="Live ones.")
    decode_queue_depth: int = Field(description="Recordings that wait.")
    decode_latency_avg: float = Field(description="Seconds of work for a stretch of live speech.")
    decode_latency_max: float


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
    """What is known of a speaker by voice."""

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
    """What a piece of a recording says of its voices."""

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


class TranscribeJob(JobSummary):
    """A job with what was said so far. A running job's speakers may be revised in its result."""

    segments: list[TranscribeSegment]
    result: TranscribeAnswer | None = None


class TranscribeJobList(BaseModel):
    """The jobs of requests with 'Prefer: respond-async', oldest first."""

    jobs: list[JobSummary]


class ReloadAnswer(BaseModel):
    """The answer to a reload."""

    status: Literal["success"]
    message: str = Field(examples=["Model reloaded with precision: int8"])


TRANSCRIBE_BODY = submission(
    OPTIONS
    | {
        LOCAL_VOICES_FIELD: {
            "type": "string",
            "description": (
                "For another vibevoice-asr, which has cut a recording and tells its voices apart "
                "itself (docs/upstream.md): JSON with form, words_s, first_s, until_s and begins. "
                "What is made of it is in no job and in no list."
            ),
        }
    }
)

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
