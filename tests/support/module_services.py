"""Services that all tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llm_server import Obedient
from service_process import Server


def service_of_module(**settings: Any) -> Any:
    """Return a fixture: a service with these settings, as `Server` takes them."""

    @pytest.fixture(scope="module")
    def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with Server(tmp_path_factory.mktemp("service"), **settings) as running:
            yield running

    return service


@pytest.fixture(scope="module")
def mind() -> Iterator[Obedient]:
    """A language model that does as it is told."""
    one = Obedient()
    yield one
    one.end()


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory, mind: Obedient) -> Iterator[Server]:
    """A service that converses: scripted words and tones, and ``mind``."""
    settings = {"voice_engine": "scripted", "conversations": 20, "llm": mind.url}
    with Server(tmp_path_factory.mktemp("thoughtful"), **settings) as running:  # type: ignore[arg-type]
        yield running
