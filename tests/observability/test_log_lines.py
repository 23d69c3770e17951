"""Lines of the log as JSON."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sidecar.observability.logs import JsonFormatter


@pytest.fixture
def far_away() -> Iterator[None]:
    """A machine whose zone is not UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_the_time_of_a_line_is_the_same_everywhere() -> None:
    record = logging.LogRecord("sidecar", logging.INFO, "", 0, "ready", None, None)
    record.created = datetime(2026, 11, 23, 10, 31, 34, 56_000, UTC).timestamp()
    line = json.loads(JsonFormatter().format(record))
    assert line["time"] == "2026-11-23T10:31:34.056Z"
