"""JSON that a client wrote: text that can be written down again, and numbers that are some."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def read(text: str | bytes) -> Any:
    """What it says.

    Raises:
        ValueError: it is no JSON, NaN included, or holds half of a surrogate pair, which no wire
            could send on.
    """
    return from_json(text, allow_inf_nan=False)
