"""Limits that are constants, and the only way for tests of whole services to change them."""

import json
import os
from typing import TypeVar

Number = TypeVar("Number", int, float)
VARIABLE = "VIBEVOICE_TEST_LIMITS"
"""JSON object of numbers by the names given to `limit`, for tests only: it is not checked."""


def limit(name: str, usual: Number) -> Number:
    """Return ``usual``, or the number that a test has put under ``name`` into `VARIABLE`.

    A test has to see within seconds what happens beyond a limit. A part in the test's process takes
    it as a parameter; this is for services in their own processes, and for commands.
    """
    given = json.loads(os.environ.get(VARIABLE) or "{}")
    return type(usual)(given.get(name, usual))
