"""The path of a small recording through the code: docs/architecture.md names its files, and it gets
no longer."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from asgi_server import served
from entered_functions import Entered, EnteredFunctions, of_worker, worker_command
from module_services import open_service  # noqa: F401 - a fixture
from recordings import wav
from service_process import until

from sidecar.api.http.uvicorn_protocols import REQUEST_HEAD_S, http_protocol
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.workers import worker_process

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
MOST_FILES, MOST_FUNCTIONS = 54, 371
"""What it takes now, in both processes. Who shortens the path lowers them."""
ENGINE = "engines/scripted_engine.py"
WARM, COUNTED = 3, 3
"""Requests before, which load and measure; then those that count, by what all of them enter: no
timer and no other background work does each time."""


@pytest.fixture
async def path(
    open_service: Callable[..., Awaitable[Service]],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> set[Entered]:
    """What a warm `POST /transcribe` enters, from the first byte of the request to the last of the
    response, and what its transcription enters in the worker process."""
    file = tmp_path / "entered"
    monkeypatch.setattr(worker_process, "worker_command", lambda: worker_command(file))
    service = await open_service()
    app = create_app(service.settings, service)
    form = {"audio": ("voice.wav", wav(b"\x10\x20" * 16_000))}
    found = []
    async with served(app, http=http_protocol(REQUEST_HEAD_S)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/transcribe"
        with httpx.Client(timeout=None) as client:
            for _ in range(WARM + COUNTED):
                with EnteredFunctions() as entered:
                    response = await asyncio.to_thread(client.post, address, files=form)
                assert response.status_code == 200, response.text
                found.append(entered.found)
    await until(lambda: len(of_worker(file)) == len(found))
    service_side, worker_side = found[WARM:], of_worker(file)[WARM:]
    return set.intersection(*service_side) | set.intersection(*worker_side)


async def test_path_of_a_small_recording_gets_no_longer_and_the_page_names_its_files(
    path: set[Entered],
) -> None:
    files = {one.file for one in path}
    section = PAGE.read_text("utf-8").partition("\n## The path of a request\n")[2]
    named = re.findall(r"`([a-z_/]+\.py)`", section.partition("\n## ")[0])
    assert {one for one in named if not one.startswith("tests/")} == files - {ENGINE}
    assert len(files) <= MOST_FILES
    assert len(path) <= MOST_FUNCTIONS
