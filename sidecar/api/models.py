"""What operators look at as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Probe(BaseModel):
    """Whether it is so, and why not."""

    status: str = Field(examples=["ok"])
    reason: str | None = Field(
        None,
        examples=["stopping"],
        description="starting, stopping, engine_stuck, too_many_timeouts or too_many_failures.",
    )


class Metrics(BaseModel):
    """What was counted: at the top by the names of the server whose dashboards read them."""

    active_sessions: int
    active_vad_utterances: int
    vad_triggers_total: int
    decode_cancelled: int
    decode_orphaned: int
    error_counts: dict[str, int]
    decode_latency_total: float
    decode_latency_count: int
    decode_latency_max: float
    decode_buffer_wait_total: float
    decode_buffer_wait_count: int
    decode_buffer_wait_max: float
    decode_queue_wait_total: float
    decode_queue_wait_count: int
    decode_queue_wait_max: float
    decode_response_emit_total: float
    decode_response_emit_count: int
    decode_response_emit_max: float
    rtf_total: float
    rtf_count: int
    rtf_max: float
    active_sessions_by_api: dict[str, int] | None = Field(
        None, description="By owner; there with the setting 'metrics_owners'."
    )
    vibevoice: dict[str, Any] = Field(
        description="service, jobs, live, engines, memory, http and grpc (docs/operations.md)."
    )


class Process(BaseModel):
    """The service's own process, without those of engines."""

    pid: int
    cpu_percent: float = Field(description="Of one processor, since the last question.")
    rss_bytes: int
    vms_bytes: int
    threads: int


class Memory(BaseModel):
    """The host's memory."""

    memory_total_bytes: int
    memory_available_bytes: int
    memory_percent: float


class Gpu(BaseModel):
    """The GPU that is used, as it was seen last; null where the driver does not say."""

    index: int
    name: str
    utilization_gpu: int | None
    utilization_memory: int | None
    memory_total_mib: int
    memory_used_mib: int
    temperature_gpu: int | None


class System(BaseModel):
    """The machine."""

    timestamp: float = Field(description="Seconds since 1970.")
    platform: str
    python: str
    cpu_count: int
    load_avg: list[float]
    process: Process
    system: Memory
    gpus: list[Gpu]


class Refused(BaseModel):
    """Why not, by the numbers of the original; `error` is the code that every wire knows."""

    code: str = Field(examples=["ERR4003"])
    message: str = Field(examples=["Model not found or is default"])
    error: str = Field(examples=["model_not_found"])
    detail: str
    hint: str


class Loading(BaseModel):
    """It is being loaded; `/admin/list_models` tells what came of it."""

    status: str = Field(examples=["loading_started"])
    message: str
    ignored: list[str] = Field(description="Fields that mean nothing here.")


class Unloaded(BaseModel):
    """It is gone, or (202) goes once the job that runs has ended."""

    status: str = Field(examples=["unloaded"], description="unloaded or unloading.")
    model_id: str


class Model(BaseModel):
    """A model and the engine that works with it."""

    id: str = Field(examples=["default"])
    role: str = Field(examples=["files"], description="files or live.")
    engine: str
    precision: str
    state: str = Field(examples=["ready"])


class Models(BaseModel):
    """Those that are there."""

    models: list[str] = Field(examples=[["default"]])
    details: list[Model]
    loading: list[str] = Field(description="Those that are on their way.")
    failed: dict[str, str] = Field(
        description="The last one that did not load: the code of its error by its name."
    )


LOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model_id"],
                    "properties": {
                        "model_id": {"type": "string", "maxLength": 100},
                        "model_path": {"type": "string"},
                        "model_size": {"type": "string"},
                        "device": {"type": "string"},
                        "compute_type": {"type": "string"},
                        "language": {"type": "string"},
                    },
                },
                "example": {"model_id": "other", "model_path": "/models/whisper-small"},
            }
        },
    }
}
UNLOAD: dict[str, Any] = {
    "parameters": [
        {"name": "model_id", "in": "query", "required": True, "schema": {"type": "string"}},
        {
            "name": "drain_timeout_sec",
            "in": "query",
            "schema": {"type": "number", "minimum": 0, "maximum": 3600},
        },
    ]
}
