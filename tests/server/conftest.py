"""Services as their host has them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosted_service import HostedService, Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services with pipes; none outlives the test."""
    started: list[HostedService] = []

    def begin(*words: object, **settings: object) -> HostedService:
        started.append(HostedService(tmp_path, *words, **settings))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.communicate()
