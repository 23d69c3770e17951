"""The path of live audio through the code: docs/architecture.md names its files, and it gets no
longer."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from asgi_server import served
from entered_functions import Entered, EnteredFunctions, files_named, of_worker, worker_command
from module_services import open_service  # noqa: F401 - a fixture
from scripted_speech import pieces, sound
from service_process import PATIENCE_S, until
from websockets.asyncio.client import connect

from sidecar.api.http.uvicorn_protocols import REQUEST_HEAD_S, http_protocol, websocket_protocol
from sidecar.interfaces.live_options import EndpointingOptions
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.workers import worker_process

MOST_FILES, MOST_FUNCTIONS = 34, 205
"""What it takes now, in both processes. Who shortens the path lowers them."""
ENGINE = "engines/scripted_engine.py"
VAD = "live/runtime/vad.py"
"""The scripted engine has its own."""
NO_GUESS = {"pause_s": EndpointingOptions().silence_s}
"""With this no utterance is recognized while its pause may still end it: whether that recognition
begins before the end of the pause depends on the machine, and each way has functions of its own."""
UTTERANCE = sound((0.2, 0.0), (1.0, 0.3), (0.8, 0.0))
WARM, COUNTED = 3, 4
"""Utterances before, which load and have partials and labels; then those that count, without."""


@pytest.fixture
async def entered(
    open_service: Callable[..., Awaitable[Service]],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[set[Entered]]:
    """What each utterance of a session enters, from the first byte of its audio to the last of its
    final: those in the service, then those in the worker process."""
    file = tmp_path / "entered"
    monkeypatch.setattr(worker_process, "worker_command", lambda: worker_command(file))
    service = await open_service()
    app = create_app(service.settings, service)
    protocols = {"http": http_protocol(REQUEST_HEAD_S), "ws": websocket_protocol()}
    found = []
    async with served(app, **protocols) as listener, asyncio.timeout(PATIENCE_S):
        address = f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/live"
        async with connect(address, proxy=None, ping_interval=None) as socket:
            await socket.send(json.dumps({"type": "begin"}))
            for number in range(WARM + COUNTED):
                if number == WARM - 1:
                    change = {"type": "change", "partials": False, "diarize": False}
                    change["endpointing"] = NO_GUESS
                    await socket.send(json.dumps(change))
                with EnteredFunctions() as functions:
                    for piece in pieces(UTTERANCE):
                        await socket.send(piece)
                    while json.loads(await socket.recv())["type"] != "final":
                        pass
                found.append(functions.found)
    await until(lambda: len(of_worker(file)) == len(found))
    return [*found, *of_worker(file)]


@pytest.mark.posix("the path set for it")
async def test_utterance_enters_no_more_files_and_functions_than_set_and_page_names_files(
    entered: list[set[Entered]],
) -> None:
    service, worker = entered[WARM : WARM + COUNTED], entered[-COUNTED:]
    always = set.intersection(*service) | set.intersection(*worker)
    ever = {one.file for one in set.union(*entered)}
    files = {one.file for one in always}
    assert files - {ENGINE} <= files_named("The path of live audio") <= ever | {VAD}
    assert len(files) <= MOST_FILES
    assert len(always) <= MOST_FUNCTIONS
