"""What this wire answers to plain requests."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Metrics(BaseModel):
    """Where the time went before the last reply was heard, in milliseconds."""

    vad_ms: float = Field(description="From the last sound to the decision that it was the last.")
    asr_ms: float = Field(description="How long words took once they were wanted.")
    llm_ms: float = Field(description="To the first words of the reply.")
    tts_first_chunk_ms: float = Field(description="To its first sound.")
    total_ms: float = Field(description="From the person's last sound to the reply's first.")


class State(BaseModel):
    """How conversations are going."""

    state: str = Field(examples=["idle"])
    initialized: bool
    total_requests: int = Field(description="Replies since the service started.")
    last_metrics: Metrics


class Configuration(BaseModel):
    """Who hears, thinks and speaks."""

    asr_model: str = Field(examples=["moonshine"])
    llm_model: str = Field(examples=["repeat"])
    tts_model: str = Field(examples=["espeak"], description="'none' where answers are read.")
    input_sample_rate: int
    output_sample_rate: int


class Part(BaseModel):
    """Who does something in conversations."""

    name: str
    title: str


class Thinks(BaseModel):
    """Who answers."""

    name: str = Field(examples=["repeat"])
    models: list[str] = Field(description="Who may, the usual one first; 'repeat' needs nothing.")


class Speaks(Part):
    """Who says the answers; what is heard is synthetic speech."""

    voices: list[str]
    voice: str = Field(description="The usual one.")


class Parts(BaseModel):
    """Who takes part in conversations, and who else may."""

    hears: Part | None
    thinks: Thinks
    speaks: Speaks | None = Field(description="None where answers are read.")
    remedy: str = Field(description="How a voice gets here, where there is none.")
