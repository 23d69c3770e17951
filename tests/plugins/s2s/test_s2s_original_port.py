"""Where the page of the speech-to-speech demo finds us with no change: at its own server's port, by
what that said there."""

import json
import socket
from pathlib import Path

import httpx
import pytest
from module_services import service_of_module
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, Server, StartServer, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from sidecar import errors
from sidecar.file_watcher import FileWatcher
from sidecar.plugins import load_settings
from sidecar.server.app import create_access_control, create_listeners, create_service

PAGE_PORT = 3000


talks = service_of_module(voice_engine="scripted", talk_ports=f"0:{PAGE_PORT}", conversations=2)
"""Made-up words and tones, and a port for that page."""


def port_of(server: Server) -> int:
    """It is told from the first answer on."""
    return int(server.health()["talk_port"])


@pytest.fixture(scope="module")
def port(talks: Server) -> int:
    return port_of(talks)


def test_original_port_serves_the_demos_paths_and_no_others(port: int) -> None:
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


async def test_original_port_admits_the_demos_page_and_no_other_origin(
    talks: Server, port: int
) -> None:
    def asked(page: str, at: int) -> httpx.Response:
        return web.get(f"http://127.0.0.1:{at}/status", headers={"Origin": page})

    own = f"http://localhost:{PAGE_PORT}"
    assert asked(own, port).headers["Access-Control-Allow-Origin"] == own
    for stranger in (f"http://localhost:{PAGE_PORT + 1}", "null", "https://evil.example"):
        assert asked(stranger, port).json()["code"] == "origin_not_allowed", stranger
    assert asked(own, talks.port).json()["code"] == "origin_not_allowed", "at our port as ever"
    stream = f"ws://127.0.0.1:{port}/stream"
    async with connect(stream, origin=Origin(own)) as live:
        assert json.loads(await live.recv())["state"] == "ready"
    with pytest.raises(InvalidStatus):
        await connect(stream, origin=Origin("https://evil.example"))


async def test_shutdown_closes_conversations_on_the_original_port(
    start_server: StartServer,
) -> None:
    server = start_server(voice_engine="scripted", scripted_letter=0.01, talk_ports="0")
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


def test_original_port_of_a_service_with_a_token_is_refused(tmp_path: Path) -> None:
    settings = load_settings(
        engine="scripted", token="x" * 16, data_dir=tmp_path, talk_ports="original"
    )
    watcher = FileWatcher()
    access, service = create_access_control(settings, watcher), create_service(settings)
    with socket.socket() as sock, pytest.raises(errors.SettingsInvalid, match="--talk-ports"):
        create_listeners(settings, service, access, watcher, {"talk_port": sock})
