"""The wire of estimates as schemas and examples, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from sidecar.api.http.schemas import OPTIONS


class Alternative(BaseModel):
    """A precision that would fit."""

    precision: str = Field(examples=["int8"])
    needed_mb: int = Field(examples=[11469])
    seconds: float | None = Field(examples=[231.5])


class Estimate(BaseModel):
    """What a recording would take; memory in MB (2**20 bytes), times in seconds."""

    fits: bool
    precision: str = Field(examples=["int8"], description="The precision that would be used.")
    audio_seconds: float | None = Field(
        examples=[3600.0], description="Null where only decoding would tell."
    )
    needed_mb: int | None = Field(
        examples=[11469], description="Null for engines that take next to nothing."
    )
    available_mb: int | None = Field(examples=[16282])
    seconds: float | None = Field(
        examples=[231.5], description="Roughly; null where the device's speed is not known."
    )
    longest_audio_seconds: float = Field(
        examples=[3600.0], description="What this precision takes at once."
    )
    sentence: str = Field(examples=["fits: int8, 11.2 of 15.9 GB, about 4 minutes"])
    alternatives: list[Alternative] = Field(description="What would fit where this does not.")


_OPTIONS = {name: OPTIONS[name] for name in ("precision", "hotwords", "prompt", "max_tokens")}

ESTIMATE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "duration": {
                        "type": "number",
                        "minimum": 0,
                        "description": "Seconds of audio; or send 'audio_path'.",
                    },
                    "audio_path": {
                        "type": "string",
                        "description": "Full path of a file on this machine.",
                    },
                    **_OPTIONS,
                },
            },
            "examples": {
                "an hour": {"value": {"duration": 3600, "precision": "int8"}},
                "a file": {"value": {"audio_path": "/home/me/recordings/meeting.opus"}},
            },
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["audio"],
                "properties": {"audio": {"type": "string", "format": "binary"}, **_OPTIONS},
            }
        },
    },
}
