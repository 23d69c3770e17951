"""What belongs together: settings that are read, and documented, side by side."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator

SMALLEST, LARGEST = 0.000_001, 1_000_000_000
"""Of any number that is not 0: a microsecond; thirty years in seconds, a petabyte in MB."""


class Group(BaseModel):
    """Some settings. Nobody makes one: `Settings` is all of them, and the one that is checked."""

    model_config = ConfigDict(defer_build=True, frozen=True, protected_namespaces=())

    @field_validator("*", mode="wrap")
    @classmethod
    def _reasonable(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Refuse numbers that nobody means, whatever limits a setting has of its own."""
        value = read(given)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return value
        if isinstance(given, bool) or (value and not SMALLEST <= abs(value) <= LARGEST):
            raise ValueError(f"not 0, nor a number from {SMALLEST:f} to {LARGEST:,}")
        return value
