"""A service in the tests' own process, with an engine in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.settings import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service


@pytest.fixture
async def open_service(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    opened: list[Service] = []

    async def start(**settings: Any) -> Service:
        usual = {"engine": "scripted", "live_grace": 0.0, "live_delay": 0.0}
        service = create_service(load_settings(**{**usual, "data_dir": tmp_path, **settings}))
        await service.open()
        opened.append(service)
        return service

    yield start
    for service in opened:
        await service.close()
