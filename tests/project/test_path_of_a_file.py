"""The path of a small recording through the code: docs/architecture.md names its files, and it gets
no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from asgi_server import served
from entered_functions import (
    PACKAGE,
    TIMERS,
    Entered,
    EnteredFunctions,
    files_named,
    of_worker,
    worker_command,
)
from module_services import open_service  # noqa: F401 - a fixture
from recordings import wav
from service_process import until

from sidecar.api.http.uvicorn_protocols import REQUEST_HEAD_S, http_protocol
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.workers import worker_process

MOST_FILES, MOST_FUNCTIONS = 56, 345
"""What it takes now, in both processes. Who shortens the path lowers them."""
ENGINE = "engines/scripted_engine.py"
WARM, COUNTED = 3, 3
"""Requests before, which load and measure; then those that count."""
NEVER_S = 3600


class RequestPath(NamedTuple):
    """What each request entered, and what at least one did: background work, and what depends on
    how the bytes came."""

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
    service = await open_service()
    app = create_app(service.settings, service)
    form = {"audio": ("voice.wav", wav(b"\x10\x20" * 16_000))}
    found = []
    protocol = http_protocol(REQUEST_HEAD_S)
    async with served(app, http=protocol, timeout_keep_alive=NEVER_S) as listener:
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


@pytest.mark.parametrize("name", TIMERS)
def test_timer_that_is_left_out_of_the_paths_is_a_function_of_the_service(name: str) -> None:
    kind, _, function = name.partition(".")
    text = (PACKAGE / TIMERS[name]).read_text("utf-8")
    assert f"def {function}(" in text.partition(f"\nclass {kind}")[2].partition("\nclass ")[0]


@pytest.mark.posix("the path set for it")
async def test_transcription_enters_no_more_files_and_functions_than_set_and_page_names_files(
    path: RequestPath,
) -> None:
    always, ever = ({one.file for one in entered} for entered in path)
    assert always - {ENGINE} <= files_named("The path of a request") <= ever
    assert len(always) <= MOST_FILES
    assert len(path.always) <= MOST_FUNCTIONS
