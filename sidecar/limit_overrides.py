"""Limits that are constants, and the one way for tests of whole services to change them."""

from __future__ import annotations

import json
import os
from typing import TypeVar

Number = TypeVar("Number", int, float)
VARIABLE = "VIBEVOICE_TEST_LIMITS"
"""A JSON object of numbers by the names given to `limit`. For tests alone: no setting, and nothing
checks what it says."""


def limit(name: str, usual: Number) -> Number:
    """Return ``usual``, or the number that a test has put under ``name`` into `VARIABLE`.

    A test has to see within seconds what happens beyond a limit. It monkeypatches the constant
    where the service is in its own process; this is for services in processes of their own.
    """
    given = json.loads(os.environ.get(VARIABLE) or "{}")
    return type(usual)(given.get(name, usual))
