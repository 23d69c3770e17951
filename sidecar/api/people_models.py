"""This wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from sidecar.api.http.schemas import PATH
from sidecar.transcripts.people import LONGEST_NAME


class PersonVoice(BaseModel):
    """A recording that a person is known by."""

    added: str = Field(examples=["2026-11-20T21:10:00Z"], description="In UTC.")
    seconds: float = Field(examples=[8.4], description="Of voice.")


class Person(BaseModel):
    """Somebody who is recognised."""

    id: str
    name: str = Field(examples=["Nell"])
    created: str = Field(examples=["2026-11-20T21:10:00Z"], description="In UTC.")
    voices: list[PersonVoice]


class PersonList(BaseModel):
    """Your people, the oldest first."""

    people: list[Person]


class ExportedVoice(PersonVoice):
    """The same, with its vector."""

    vector: str = Field(description="Base64 of 256 little-endian float16.")


class ExportedPerson(Person):
    """All that is stored of a person."""

    voices: list[ExportedVoice]  # type: ignore[assignment]


class Export(BaseModel):
    """All that is stored of your people."""

    people: list[ExportedPerson]


_NAME: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_NAME,
    "examples": ["Nell"],
}
_JOB: dict[str, Any] = {"type": "string", "description": "A job of yours that has ended."}
_SPEAKER: dict[str, Any] = {
    "type": "string",
    "examples": ["Speaker_0"],
    "description": "One of that job's.",
}


def person_form(required: list[str]) -> dict[str, Any]:
    """The body of a request about a person, in its two forms."""
    form: dict[str, Any] = {
        "type": "object",
        "required": [*required, "audio"],
        "properties": {
            "name": _NAME,
            "audio": {
                "type": "string",
                "format": "binary",
                "description": "Some seconds of one person speaking.",
            },
        },
    }
    plain: dict[str, Any] = {
        "type": "object",
        "required": required,
        "properties": {"name": _NAME, "job": _JOB, "speaker": _SPEAKER, "audio_path": PATH},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": plain},
            },
        }
    }


ADD = person_form(["name"])
CHANGE = person_form([])
