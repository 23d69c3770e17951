"""What this wire answers to plain requests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The service answers."""

    status: Literal["ok"] = "ok"
