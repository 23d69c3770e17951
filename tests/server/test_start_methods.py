"""The ways in which hosts start the service."""

import gc
import sys
from pathlib import Path

import pytest
from service_process import REPOSITORY, Server, free_port

from sidecar.config.settings import Settings
from sidecar.server.app import create_app

HERE = REPOSITORY / "sidecar"
UVICORN = ["-m", "uvicorn", "--log-level", "warning", "--host", "127.0.0.1", "--port"]
WAYS: dict[str, tuple[list[str], Path]] = {
    "python-main-in-its-folder": (["main.py"], HERE),
    "python-main-from-above": (["sidecar/main.py"], REPOSITORY),
    "module": (["-m", "sidecar.main"], REPOSITORY),
    "uvicorn-in-its-folder": ([*UVICORN, "{port}", "main:app"], HERE),
    "uvicorn-from-above": ([*UVICORN, "{port}", "sidecar.main:app"], REPOSITORY),
}


@pytest.mark.slow_except("python-main-in-its-folder")
@pytest.mark.parametrize("way", WAYS)
def test_service_serves_with_every_start_command(way: str, tmp_path: Path, voice: bytes) -> None:
    words, folder = WAYS[way]
    port = free_port()
    command = [sys.executable, *(word.format(port=port) for word in words)]
    with Server(tmp_path, command=command, cwd=folder, port=port) as server:
        assert server.client.get("/").json()["status"] == "running"
        response = server.post(voice)
        assert response.status_code == 200, response.text[:500]
        assert server.post_path("relative").status_code == 422
        assert server.client.get("/nothing").status_code == 404
        assert "Traceback" not in server.log()


async def test_application_of_other_program_does_not_enable_garbage_collection(
    tmp_path: Path,
) -> None:
    app = create_app(Settings(engine="scripted", data_dir=tmp_path))
    gc.disable()
    try:
        async with app.router.lifespan_context(app):
            assert not gc.isenabled()
    finally:
        gc.enable()
