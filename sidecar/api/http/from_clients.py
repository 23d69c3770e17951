"""JSON that a client wrote: text that can be written down again, and numbers that are some."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from pydantic_core import from_json

MOST_VALUES = 100_000
"""Of one message: each is looked at while everybody else's wait, and a message may have 4 MiB."""


def read(text: str | bytes) -> Any:
    """What it says.

    Raises:
        ValueError: it is no JSON, NaN included, or holds what no wire could send on: half of a
            surrogate pair, or a number beyond those of a double (``1e400``); or too many values.
    """
    found = from_json(text, allow_inf_nan=False)
    inner: Collection[Any]
    waiting, count = [found], 1
    while waiting:
        match waiting.pop():
            case dict() as fields:
                inner = fields.values()
            case list() as items:
                inner = items
            case float() as number if not math.isfinite(number):
                raise ValueError("a number is too large")
            case _:
                continue
        count += len(inner)
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        waiting += inner
    return found
