"""Errors in OpenAI's shape as schemas, for OpenAPI. Nothing is validated with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    """What was wrong, as OpenAI's clients read it."""

    message: str = Field(examples=["The audio is empty (0 bytes). Check that …"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["file"])
    code: str = Field(examples=["audio_empty"], description="One of docs/errors.md.")


class ErrorBody(BaseModel):
    """The body of an error."""

    error: Error


_ERROR = {"application/json": {"schema": ErrorBody.model_json_schema()}}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What was wrong with the request", "content": _ERROR},
    "5XX": {"description": "What went wrong here", "content": _ERROR},
}
