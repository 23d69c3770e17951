"""Where the page of the speech-to-speech demo finds us with no change: at its own server's port,
by what that said there, and from a browser that speaks, is answered, and speaks over the answer."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser_visitor import IS_HERE, Visitor
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, REPOSITORY, Server, free_port, run_command, wait_until, web
from websockets.exceptions import ConnectionClosed
from wheel_recordings import write_scene

from bench import conversation
from sidecar import errors
from sidecar.config.settings import load_settings
from sidecar.file_watcher import FileWatcher
from sidecar.server.app import create_entrance, create_service
from sidecar.server.http_app import create_talk_app

PAGE_PORT = 3000
PAGE = REPOSITORY / "tests" / "support" / "pages" / "talk.html"
"""Behaves as that of the speech-to-speech demo."""


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Made-up words and tones, and a port for that page."""
    home = tmp_path_factory.mktemp("talks")
    ports = f"0:{PAGE_PORT}"
    with Server(home, voice_engine="scripted", talk_ports=ports, conversations=2) as running:
        yield running


def port_of(server: Server) -> int:
    """It is told from the first answer on."""
    return int(server.health()["talk_port"])


@pytest.fixture(scope="module")
def port(talks: Server) -> int:
    return port_of(talks)


def test_there_is_what_its_server_said_and_nothing_else_of_ours(port: int) -> None:
    with httpx.Client(base_url=f"http://localhost:{port}", timeout=PATIENCE_S) as client:
        assert client.get("/").json() == {"message": "S2S Pipeline API", "status": "running"}
        assert client.get("/health").json() == {
            "status": "ok",
            "pipeline_state": "idle",
            "initialized": True,
        }
        assert client.get("/config").json()["output_sample_rate"] == 24_000
        assert client.get("/status").json()["state"] == "idle"
        for other in ("/v1/jobs", "/docs", "/openapi.json"):
            assert client.get(other).status_code == 404, other


def test_its_page_may_ask_and_no_other(talks: Server, port: int) -> None:
    def asked(page: str, at: int) -> httpx.Response:
        return web.get(f"http://127.0.0.1:{at}/status", headers={"Origin": page})

    own = f"http://localhost:{PAGE_PORT}"
    assert asked(own, port).headers["Access-Control-Allow-Origin"] == own
    for stranger in (f"http://localhost:{PAGE_PORT + 1}", "null", "https://evil.example"):
        assert asked(stranger, port).json()["code"] == "origin_not_allowed", stranger
    assert asked(own, talks.port).json()["code"] == "origin_not_allowed", "at our port as ever"


async def test_who_talks_there_is_told_when_the_service_ends(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(voice_engine="scripted", talk_ports="0")
    port = port_of(server)
    async with Page(server, port) as page:
        await page.speak(tone(1.0) + tone(0.8, 0))
        assert len((await page.until("transcript"))["user"].split()) >= 4
        server.process.terminate()
        with pytest.raises(ConnectionClosed):
            await page.until("nothing")
        assert page.live.close_code in (1001, 1012)
    assert server.process.wait(PATIENCE_S) == 0
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_another_has_is_said_with_what_to_do(port: int, tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--talk-ports", str(port), "--data-dir", str(tmp_path))
    result = run_command(
        [sys.executable, "-m", "sidecar.main", "serve", "--engine", "scripted", *words],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    line = json.loads(result.stdout)
    assert (result.returncode, line["event"], line["code"]) == (75, "fatal", "port_in_use")
    assert str(port) in line["message"]
    assert "--talk-ports" in line["hint"]


def test_where_a_token_is_asked_for_there_is_no_such_port(tmp_path: Path) -> None:
    settings = load_settings(engine="scripted", token="x" * 16, data_dir=tmp_path)
    entrance = create_entrance(settings, FileWatcher())
    with pytest.raises(errors.SettingsInvalid, match="--talk-ports"):
        create_talk_app(create_service(settings), entrance, PAGE_PORT)


GAPS_S = (2.4, 2.47, 2.53, 2.6)
"""Between two pieces: an answer is there by then, and no two begin at the same place of a frame."""


@contextmanager
def site() -> Iterator[int]:
    """A web server that has the page alone; its port."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(PAGE.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def page(port: int, wire: int, spoken: Path) -> Iterator[Any]:
    """A browser that shows the page at ``port``, connected to ``wire``, and hears ``spoken`` again
    and again once somebody talks."""
    visitor = Visitor(spoken)
    try:
        visitor.driver.get(f"http://localhost:{port}/{PAGE.name}?wire={wire}")
        visitor.until("document.body.dataset.ready", "the page is there")
        yield visitor.driver
    finally:
        visitor.driver.quit()


LACKING = "no Chromium with selenium, or no espeakng-loader: nobody spoke on that page"


@pytest.mark.slow
def test_somebody_speaks_on_that_page_sees_both_sides_and_speaks_over_the_answer(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The embedded engine hears a recorded voice in a real browser; answers are never brief."""
    if not IS_HERE or find_spec("espeakng_loader") is None:
        warnings.warn(f"SKIPPED: {LACKING}", stacklevel=1)
        pytest.skip(LACKING)
    pieces = [one for one in conversation.sayings() if len(one) > 2 * conversation.IN_RATE][:2]
    spoken = write_scene(tmp_path / "spoken.wav", pieces, GAPS_S)
    with conversation.model() as (url, _), site() as at:
        settings: dict[str, Any] = {"engine": "auto", "voice_engine": "espeak", "llm": url}
        settings |= {"llm_model": "scripted", "limits": {"llm_max_tokens": 20}}
        server = start_server(talk_ports=f"0:{at}", **settings)
        with page(at, port_of(server), spoken) as driver:
            driver.execute_script("talk()")
            lines = "return [...document.querySelectorAll('li')].map((one) => one.textContent)"

            def interrupted() -> list[str]:
                said: list[str] = driver.execute_script(lines)
                return said if any(one.endswith("…") for one in said[1::2]) else []

            wait_until(interrupted, PATIENCE_S, "somebody was interrupted")
            onsets = len(driver.execute_script("return seen.onsets"))
            again = f"return seen.onsets.length > {onsets}"
            wait_until(lambda: driver.execute_script(again), PATIENCE_S, "somebody speaks again")
            before = len(driver.execute_script(lines))
            driver.execute_script("stop()")  # in the middle of a sentence; the wire says nothing
            wait_until(lambda: len(driver.execute_script(lines)) > before, PATIENCE_S, "flushed")
            said, seen = driver.execute_script(lines), driver.execute_script("return seen")
    people, answers = said[::2], said[1::2]
    assert all(people)
    assert all(conversation.ANSWER.startswith(one.rstrip("… ")) for one in answers)
    cut = next(one for one in answers if one.endswith("…"))
    assert len(cut) < len(conversation.ANSWER)
    assert seen["states"][:3] == ["ready", "processing", "ready"]
    assert seen["played"]
    assert (seen["errors"], seen["closed"]) == ([], None)
