"""The first answers of a service: `/health` at once, all else when the rest is imported."""

import asyncio
import gc
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hosted_service import SERVE, HostedService, Start
from pydantic import SecretStr
from service_process import PATIENCE_S, REPOSITORY, settle

from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher
from sidecar.server.app import create_access_control, create_service, create_staged_app
from sidecar.server.http_app import create_whole_app
from sidecar.server.staged_app import StagedApp
from sidecar.service.facade import Service

TOKEN = "correct-horse-battery-staple"
HEALTH = "http://127.0.0.1:8765/health"
posix = pytest.mark.posix("signals")


class Staged:
    """A staged application in this process, and the whole application of the same service."""

    def __init__(self, **settings: Any) -> None:
        given = Settings(engine="scripted", **settings)
        self.service: Service = create_service(given)
        watcher = FileWatcher()
        access = create_access_control(given, watcher)
        self.app = create_staged_app(self.service, watcher, access)
        self.whole = create_whole_app(self.service, access)
        self.client = self._client(self.app)
        self.client_of_whole = self._client(self.whole)

    @staticmethod
    def _client(app: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 40_000))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765")


@pytest.fixture
async def staged(tmp_path: Path) -> AsyncIterator[Callable[..., Staged]]:
    """Makes staged applications, and closes their services."""
    made: list[Staged] = []

    def make(**settings: Any) -> Staged:
        made.append(Staged(data_dir=tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.service.close()


def counted(service: Service) -> dict[Any, Any]:
    """The requests that were counted, by method, route and status."""
    values = service.metrics.wires.requests.values
    return {labels: count for labels, count in values.items() if count}


REQUESTS: dict[str, tuple[str, dict[str, str], bytes]] = {
    "get": ("GET", {}, b""),
    "head": ("HEAD", {}, b""),
    "foreign-host": ("GET", {"Host": "evil.example"}, b""),
    "allowed-page": ("GET", {"Origin": "tauri://localhost"}, b""),
    "foreign-page": ("GET", {"Origin": "https://evil.example"}, b""),
    "wrong-token": ("GET", {"Authorization": "Bearer wrong-wrong-wrong-wrong"}, b""),
    "large-header": ("GET", {"X-Large": "x" * 70_000}, b""),
    "body": ("GET", {"Content-Type": "audio/wav"}, b"RIFF"),
}


@pytest.mark.parametrize("token", [None, SecretStr(TOKEN)], ids=["open", "token"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_first_health_is_answered_and_counted_as_by_whole_application(
    name: str,
    token: SecretStr | None,
    staged: Callable[..., Staged],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    both = staged(token=token)
    method, headers, body = REQUESTS[name]
    seen = []
    for client in (both.client, both.client_of_whole):
        caplog.clear()
        answer = await client.request(method, HEALTH, headers=headers, content=body)
        said = answer.json() if answer.content else {}
        request = said.pop("request_id", None)
        lines = [line.replace(str(request), "ID") for line in caplog.messages]
        kept = [pair for pair in answer.headers.raw if pair[0].lower() != b"date"]
        seen.append((answer.status_code, kept, said, lines))
    assert seen[0] == seen[1]
    assert set(counted(both.service).values()) == {2}  # under the same method, route and status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("POST", "/health", 405),
        ("GET", "/health/", 404),
        ("GET", "/healthz/live", 200),
        ("GET", "/nothing", 404),
    ],
)
async def test_other_requests_wait_for_whole_application(
    method: str, path: str, status: int, staged: Callable[..., Staged]
) -> None:
    both = staged()
    waiting = asyncio.create_task(both.client.request(method, path))
    assert (await both.client.get(HEALTH)).status_code == 200
    await settle()
    assert not waiting.done()
    await both.app.complete()
    assert (await waiting).status_code == status
    assert counted(both.service)["GET", "/health", "200"] == 1
    assert sum(counted(both.service).values()) == 2


async def test_waiting_request_is_refused_at_shutdown(staged: Callable[..., Staged]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": []}
    request = asyncio.create_task(staged().app(scope, None, send))
    await asyncio.sleep(0)
    request.cancel()  # as the server does at its shutdown
    await request
    assert sent[0]["status"] == 503
    assert b'"shutting_down"' in sent[1]["body"]


async def test_complete_application_enables_garbage_collection(
    staged: Callable[..., Staged],
) -> None:
    app = staged().app
    gc.disable()  # as the command line leaves it
    try:
        await app.complete()
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


async def test_event_loop_runs_while_application_is_imported() -> None:
    loop = asyncio.get_running_loop()
    answered: list[bool] = []

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        answered.append(True)

    def build() -> Any:  # it ends only if the loop runs meanwhile
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(PATIENCE_S)
        return whole

    app = StagedApp(whole, build)
    await app.complete()
    await app({"type": "http", "path": "/", "method": "GET"}, None, None)  # type: ignore[arg-type]
    assert answered == [True]


# --- the process

LATER = (
    *("fastapi", "typer", "rich", "httpx", "numpy"),
    *(
        "sidecar.plugins.yap.routes",
        "sidecar.plugins.openai.common",
        "sidecar.server.http_app",
        "sidecar.plugins.shared_jobs.shared_backend",
        "sidecar.jobs.recovery",
    ),
    "sidecar.plugins.conversation.conversation_loop",
    "sidecar.plugins.conversation.audio_pacing",
)
"""Modules that no service needs for its ready line and `/health`."""
PRINT_MODULES = """
import os, sys
from sidecar.server.staged_app import StagedApp

async def complete(self):
    print(*sys.modules, file=sys.stderr, flush=True)
    os._exit(0)

StagedApp.complete = complete
from sidecar.cli import main
main()
"""
FAIL_TO_IMPORT = """
import sys
sys.modules["sidecar.plugins.vvv.routes"] = None
from sidecar.cli import main
main()
"""


HANG_IN_IMPORT = """
import sys, threading, time

class Hang:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread().name == "import":
            print("hangs", file=sys.stderr, flush=True)
            time.sleep(3600)

sys.meta_path.insert(0, Hang())
from sidecar.cli import main
main()
"""


def started(start: Start, code: str = "", **settings: object) -> HostedService:
    """A service that is not forked, or that code of ours starts; it logs what is wrong."""
    command = [sys.executable, "-c", code] if code else SERVE
    how = {"fresh": True}
    return start(command=command, how=how, port=0, log_level="warning", **settings)


def test_ready_line_precedes_imports_that_health_does_not_need(start: Start) -> None:
    _, said, log = started(start, PRINT_MODULES).ended()
    assert b'"event": "ready"' in said, log
    names = set(log.split())
    assert "sidecar.service.facade" in names
    assert sorted(names & set(LATER)) == []


@pytest.mark.slow
def test_modules_of_conversations_are_imported_with_application() -> None:
    code = """if True:
        import sys
        from sidecar.server.app import create_app, load_settings
        create_app(load_settings(engine="scripted"))
        print(*sys.modules)
    """
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    needed = {"conversation_loop", "speech_input", "audio_pacing", "assistant_turn"}
    assert {f"sidecar.plugins.conversation.{name}" for name in needed} <= set(ended.stdout.split())


def test_invalid_variable_of_routes_is_fatal_before_ready_line(start: Start) -> None:
    start(port=0, env={"WS_CLOSE_BUSY_CODE": "busy"}).refused()


def test_failed_import_of_application_ends_service_with_exit_code_1(start: Start) -> None:
    exit_code, said, log = started(start, FAIL_TO_IMPORT).ended()
    assert exit_code == 1
    assert "internal error while the application was imported" in log
    assert said.count(b"\n") == 1


def test_missing_package_of_application_is_fatal_before_ready_line(start: Start) -> None:
    service = started(start, f"import sys; sys.modules['fastapi'] = None{FAIL_TO_IMPORT}")
    assert service.line()["event"] == "fatal"
    assert service.ended()[0] == 1


@pytest.mark.slow_except("input", "[SIGINT")
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param([], 0, id="end of standard input"),
        pytest.param([signal.SIGTERM], 0, id="SIGTERM", marks=posix),
        pytest.param([signal.SIGTERM, signal.SIGTERM], 0, id="SIGTERM twice", marks=posix),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, id="SIGINT twice", marks=posix),
    ],
)
def test_service_stops_cleanly_although_import_hangs(
    signals: list[signal.Signals], code: int, start: Start
) -> None:
    service = started(start, HANG_IN_IMPORT, exit_with_stdin=1)
    assert service.process.stderr is not None
    assert service.process.stderr.readline().strip() == b"hangs"
    for each in signals:  # the first may still be handled when the second comes
        service.process.send_signal(each)
    exit_code, _, log = service.ended()
    assert exit_code == code
    assert "Traceback" not in log


async def test_waiting_websockets_are_refused_beyond_limit_and_at_shutdown() -> None:
    async def unused(*_: Any) -> None:
        raise AssertionError

    app, sent = StagedApp(unused, lambda: unused, max_waiting_sockets=1), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/live", "headers": []}
    first = asyncio.create_task(app(scope, None, send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    second = asyncio.create_task(app(scope, None, send))  # type: ignore[arg-type]
    await settle()
    assert (first.done(), second.done()) == (False, True)
    assert [one["type"] for one in sent] == ["websocket.close"]
    first.cancel()  # as the server does at its shutdown
    await first
    assert [one["type"] for one in sent] == 2 * ["websocket.close"]


@pytest.mark.slow
@posix
def test_service_stopped_while_it_imports_application_ends_cleanly(start: Start) -> None:
    service = started(start)
    assert service.line()["event"] == "ready"
    service.process.terminate()
    exit_code, _, log = service.ended()
    assert exit_code == 0
    assert "Traceback" not in log
    assert "ERROR" not in log
