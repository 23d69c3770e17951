"""A socket that another opened: served on, handed to nobody, trusted no more than a port."""

import os
import socket
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from hosted_service import HostedService, Start
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.server import listeners

pytestmark = pytest.mark.posix("socket activation")

AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.executable, [sys.executable, "-m", "sidecar.main", "serve", "--port", "1"])
"""


def activated(start: Start, sock: socket.socket) -> HostedService:
    """A service on a socket, as systemd starts it."""
    command = [sys.executable, "-c", AS_SYSTEMD, str(sock.fileno())]
    return start(command=command, how={"pass_fds": [sock.fileno()]})


def test_activated_socket_answers_early_client_is_not_in_workers_and_outlives_service(
    start: Start, voice: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            service = activated(start, sock)
            ready = service.line()
            assert (ready["event"], ready["port"]) == ("ready", port)
            assert ready["url"] == f"http://127.0.0.1:{port}"
            early.settimeout(PATIENCE_S)
            assert early.recv(100).startswith(b"HTTP/1.1 200")
        answer = httpx.post(
            f"{ready['url']}/transcribe", files={"audio": voice}, timeout=PATIENCE_S
        )
        assert answer.status_code == 200
        workers = psutil.Process(service.process.pid).children(recursive=True)
        assert workers
        for worker in workers:
            assert not worker.net_connections("tcp"), "nobody else has the socket"
            assert not [name for name in worker.environ() if name.startswith("LISTEN_")]
        service.process.terminate()
        assert service.ended()[0] == 0
        assert activated(start, sock).line()["port"] == port


def test_activated_socket_beyond_loopback_needs_token(start: Start) -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        assert "0.0.0.0" in activated(start, sock).refused()["message"]


@pytest.mark.slow
def test_activated_unix_socket_is_refused(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.listen()
        assert "not a listening TCP" in activated(start, sock).refused()["message"]


def test_sockets_of_other_process_are_ignored_and_several_are_refused() -> None:
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "PATH": "/bin"}
    assert listeners.take_activated_socket(environment) is None
    assert environment == {"PATH": "/bin"}
    with pytest.raises(errors.SettingsInvalid, match="2 sockets"):
        listeners.take_activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
