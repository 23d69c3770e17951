"""The page's own wire as schemas, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Link(BaseModel):
    """A link that opens the page with the token that asked for it, once."""

    path: str = Field(examples=["/#open=9s2…"], description="To be put behind the address.")
    expires_in: float = Field(examples=[120.0], description="Seconds.")


_SIGNED_IN_AS = Field(
    None, description="The name in a signed token; missing for every other.", examples=["anna"]
)


class Session(BaseModel):
    """What the word of a link stood for."""

    token: str
    signed_in_as: str | None = _SIGNED_IN_AS


class Finding(BaseModel):
    """Something that is missing or wrong, and what to do."""

    topic: str = Field(examples=["uploads"])
    state: Literal["absent", "warning", "bad"]
    text: str
    remedy: str


class Engine(BaseModel):
    """What hears."""

    name: str = Field(examples=["moonshine"])
    title: str
    precisions: list[str] = Field(description="The first is its own choice.")
    languages: list[str] = Field(description="Empty where it takes any.")
    diarizes: bool
    planned: bool = Field(description="Whether its memory is planned: /v1/estimate says how.")


class About(BaseModel):
    """What the page has to know, beside what the other wires say."""

    version: str
    engine: Engine
    may_reload: bool
    keeps_seconds: float = Field(description="How long a result waits to be fetched.")
    keeps_jobs: bool = Field(description="Whether jobs outlive the service.")
    keeps_recordings: bool = Field(description="Whether recordings of jobs that are done stay.")
    people: bool = Field(description="Whether voices of people may be stored: /v1/people.")
    longest_audio_seconds: float
    findings: list[Finding] = Field(
        description="Only for who asks from this machine: they name folders of it."
    )
    signed_in_as: str | None = _SIGNED_IN_AS


SESSION: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["word"],
                "properties": {"word": {"type": "string", "description": "Of the link."}},
            },
            "example": {"word": "9s2…"},
        }
    },
}
