"""The path of a small recording through the code: docs/architecture.md names its files, and it gets
no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from asgi_server import served
from entered_functions import Entered, EnteredFunctions, files_named, of_worker, worker_command
from module_services import open_service  # noqa: F401 - a fixture
from recordings import wav
from service_process import until

from sidecar.api.http.uvicorn_protocols import REQUEST_HEAD_S, http_protocol
from sidecar.gpu_memory import gpu_devices
from sidecar.jobs import duration_prediction
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.workers import worker_process

MOST_FILES, MOST_FUNCTIONS = 58, 365
"""What it takes now, in both processes. Who shortens the path lowers them."""
ENGINE = "engines/scripted_engine.py"
WARM, COUNTED = 3, 3
"""Requests before, which load and measure; then those that count."""
TIMERS = (
    (duration_prediction, "SAVE_INTERVAL_S"),
    (gpu_devices, "GPU_POLL_INTERVAL_S"),
    (worker_process, "HEARTBEAT_INTERVAL_S"),
)
"""They are not on the path, and come during each request that takes long."""
NEVER_S = 3600.0


class RequestPath(NamedTuple):
    """What each request entered, and what at least one did: timers and other background work, and
    what depends on how the bytes came."""

    always: set[Entered]
    ever: set[Entered]


@pytest.fixture
async def path(
    open_service: Callable[..., Awaitable[Service]],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> RequestPath:
    """What a warm `POST /transcribe` enters, from the first byte of the request to the last of the
    response, and what its transcription enters in the worker process."""
    file = tmp_path / "entered"
    monkeypatch.setattr(worker_process, "worker_command", lambda: worker_command(file))
    for module, interval in TIMERS:
        monkeypatch.setattr(module, interval, NEVER_S)
    service = await open_service()
    app = create_app(service.settings, service)
    form = {"audio": ("voice.wav", wav(b"\x10\x20" * 16_000))}
    found = []
    protocol = http_protocol(REQUEST_HEAD_S)
    async with served(app, http=protocol, timeout_keep_alive=int(NEVER_S)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/transcribe"
        with httpx.Client(timeout=None) as client:
            for _ in range(WARM + COUNTED):
                with EnteredFunctions() as entered:
                    response = await asyncio.to_thread(client.post, address, files=form)
                assert response.status_code == 200, response.text
                found.append(entered.found)
    await until(lambda: len(of_worker(file)) == len(found))
    processes = found[WARM:], of_worker(file)[WARM:]
    always, ever = (
        {one for requests in processes for one in combine(*requests)}
        for combine in (set.intersection, set.union)
    )
    return RequestPath(always, ever)


async def test_small_recording_enters_at_most_so_many_files_and_page_names_them(
    path: RequestPath,
) -> None:
    always, ever = ({one.file for one in entered} for entered in path)
    assert always - {ENGINE} <= files_named("The path of a request") <= ever
    assert len(always) <= MOST_FILES
    assert len(path.always) <= MOST_FUNCTIONS
