"""What belongs together: settings that are read, and documented, side by side."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

SMALLEST, LARGEST = 0.000_001, 1_000_000_000
"""Of any number that is not 0: a microsecond; thirty years in seconds, a petabyte in MB."""


class Group(BaseModel):
    """Some settings. Nobody makes one: `Settings` is all of them, and the one that is checked."""

    model_config = ConfigDict(defer_build=True, frozen=True, protected_namespaces=())

    @field_validator("*")
    @classmethod
    def _reasonable(cls, value: Any) -> Any:
        """Refuse numbers that nobody means, whatever limits a setting has of its own."""
        if isinstance(value, int | float) and value and not SMALLEST <= abs(value) <= LARGEST:
            raise ValueError(f"not 0, nor a number from {SMALLEST:f} to {LARGEST:,}")
        return value
