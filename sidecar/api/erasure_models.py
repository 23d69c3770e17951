"""The wire of erasure as schemas, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Erased(BaseModel):
    """What was deleted, and what goes on."""

    jobs: int = Field(description="With their recordings and transcripts; those that ran ended.")
    people: int = Field(description="Who was known by voice.")
    live_sessions: int = Field(
        description="Yours that go on at this service: they are not ended. One with 'keep' will be "
        "a job."
    )
