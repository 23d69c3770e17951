"""Services that all tests of a module share, and some of one test in its process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llm_server import Obedient
from service_process import PATIENCE_S, Server

from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service


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


@pytest.fixture
async def open_service(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Opens a service in this process with these settings, whose engines have processes."""
    opened: list[Service] = []

    async def start(**settings: Any) -> Service:
        usual = {"engine": "scripted", "live_grace": 0.0, "live_delay": 0.0}
        service = create_service(load_settings(**{**usual, "data_dir": tmp_path, **settings}))
        await service.open()
        service.live.bounds = replace(service.live.bounds, late_s=PATIENCE_S)
        opened.append(service)
        return service

    yield start
    for service in opened:
        await service.close()
