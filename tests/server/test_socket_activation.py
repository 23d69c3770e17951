"""A socket that another opened: served on, handed to nobody, trusted no more than a port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from service_process import PATIENCE_S, REPOSITORY

from sidecar import errors
from sidecar.server import listeners

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd is of Linux")

AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.executable, [sys.executable, "-m", "sidecar.main", "serve", "--port", "1"])
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services on a socket, as systemd does."""
    started = []

    def begin(sock: socket.socket) -> subprocess.Popen[bytes]:
        outer = {key: value for key, value in os.environ.items() if "VIBEVOICE" not in key}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, str(sock.fileno())],
                cwd=REPOSITORY,
                env={
                    **outer,
                    "VIBEVOICE_CONFIG": str(tmp_path / "none.toml"),
                    "VIBEVOICE_DATA_DIR": str(tmp_path / "data"),
                    "VIBEVOICE_ENGINE": "scripted",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[sock.fileno()],
            )
        )
        return started[-1]

    yield begin
    for one in started:
        one.kill()
        one.communicate()


def line_of(service: subprocess.Popen[bytes]) -> dict[str, object]:
    assert service.stdout is not None
    return dict(json.loads(service.stdout.readline()))


def test_who_connects_before_it_is_up_is_answered_and_after_its_end_the_next_one_serves(
    start: Start, voice: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            service = start(sock)
            ready = line_of(service)
            assert (ready["event"], ready["port"]) == ("ready", port)
            assert ready["url"] == f"http://127.0.0.1:{port}"
            early.settimeout(PATIENCE_S)
            assert early.recv(100).startswith(b"HTTP/1.1 200")
        answer = httpx.post(
            f"{ready['url']}/transcribe", files={"audio": voice}, timeout=PATIENCE_S
        )
        assert answer.status_code == 200
        workers = psutil.Process(service.pid).children(recursive=True)
        assert workers
        for worker in workers:
            assert not worker.net_connections("tcp"), "nobody else has the socket"
            assert not [name for name in worker.environ() if name.startswith("LISTEN_")]
        service.terminate()
        assert service.wait(PATIENCE_S) == 0
        assert line_of(start(sock))["port"] == port


def test_beyond_the_loopback_it_wants_a_token_as_with_a_port_of_its_own(start: Start) -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        service = start(sock)
        said = line_of(service)
        assert (said["event"], said["code"]) == ("fatal", "settings_invalid")
        assert "0.0.0.0" in str(said["message"])
        assert service.wait(PATIENCE_S) == 78


def test_a_socket_file_is_refused(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.listen()
        service = start(sock)
        said = line_of(service)
        assert (said["event"], said["code"]) == ("fatal", "settings_invalid")
        assert "not a listening TCP" in str(said["message"])
        assert service.wait(PATIENCE_S) == 78


def test_what_is_for_another_process_is_left_alone_and_several_are_refused() -> None:
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "PATH": "/bin"}
    assert listeners.take_activated_socket(environment) is None
    assert environment == {"PATH": "/bin"}
    with pytest.raises(errors.SettingsInvalid, match="2 sockets"):
        listeners.take_activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
