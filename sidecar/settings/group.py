"""What belongs together: settings that are read, and documented, side by side."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Some settings. Nobody makes one: `Settings` is all of them, and the one that is checked."""

    model_config = ConfigDict(defer_build=True, frozen=True, protected_namespaces=())
