"""JSON that a client wrote: text that can be written down again, and numbers that are some."""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import from_json


def read(text: str | bytes) -> Any:
    """What it says.

    Raises:
        ValueError: it is no JSON, NaN included, or holds what no wire could send on: half of a
            surrogate pair, or a number beyond those of a double (``1e400``).
    """
    found = from_json(text, allow_inf_nan=False)
    waiting = [found]
    while waiting:
        match waiting.pop():
            case dict() as fields:
                waiting += fields.values()
            case list() as items:
                waiting += items
            case float() as number if not math.isfinite(number):
                raise ValueError("a number is too large")
    return found
