"""The keys of this wire as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

NO_SESSION = "sess_none"
"""The id of a session that nobody has opened yet."""


class Key(BaseModel):
    """A key for a client that should not have a token."""

    value: str = Field(examples=["ek_…"], description="Opens one connection.")
    expires_at: int = Field(description="In seconds since 1970.")


class Secret(Key):
    """It, and how the session will be heard."""

    session: dict[str, Any]


class BetaSession(BaseModel):
    """How the session will be heard, in the shape of the beta."""

    id: str
    client_secret: Key


def form(fields: dict[str, Any]) -> dict[str, Any]:
    """The body of a request with these fields."""
    schema = {"type": "object", "properties": fields}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_SESSION = {
    "type": "object",
    "properties": {
        "type": {"enum": ["transcription", "realtime"]},
        "model": {"type": "string"},
        "instructions": {"type": "string"},
        "audio": {
            "type": "object",
            "properties": {"input": {"type": "object"}, "output": {"type": "object"}},
        },
    },
    "description": "As in session.update (docs/openai.md, docs/talk.md).",
}
ASK = form({"session": _SESSION})
ASK_BETA = form(
    {
        "input_audio_format": {"type": "string", "enum": ["pcm16", "g711_ulaw", "g711_alaw"]},
        "input_audio_transcription": {"type": "object"},
        "turn_detection": {"type": ["object", "null"]},
    }
)
