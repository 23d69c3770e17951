"""What serves beside HTTP: begun together, ended together."""

import errno
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from service_process import run_command

from sidecar import errors
from sidecar.server.http_server import SecondaryPort
from sidecar.server.listeners import ProtocolListeners, bind_port, listen


class Noted:
    """Writes down what it is told, and fails where it is to."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self._name, self._notes, self._fails = name, notes, fails

    def _note(self, what: str) -> None:
        self._notes.append(f"{self._name} {what}")
        if what == self._fails:
            raise errors.PortInUse()

    async def start(self) -> dict[str, Any]:
        self._note("starts")
        return {self._name: 1}

    def stop_accepting(self) -> None:
        self._note("refuses")

    async def drain(self, grace_s: float) -> None:
        self._note(f"has {grace_s:g} s")

    async def close(self) -> None:
        self._note("closes")


async def test_listeners_start_in_order_refuse_together_and_close_in_reverse() -> None:
    notes: list[str] = []
    listeners = ProtocolListeners([Noted("a", notes), Noted("b", notes)])
    assert await listeners.start() == {"a": 1, "b": 1}
    listeners.stop_accepting()
    await listeners.close(3)
    assert notes == [
        *("a starts", "b starts", "a refuses", "b refuses"),
        *("b has 3 s", "b closes", "a has 3 s", "a closes"),
    ]
    await listeners.close(3)
    assert len(notes) == 8


async def test_listener_that_cannot_start_closes_those_before_it() -> None:
    notes: list[str] = []
    listeners = ProtocolListeners(
        [Noted("a", notes), Noted("b", notes, "starts"), Noted("c", notes)]
    )
    with pytest.raises(errors.PortInUse):
        await listeners.start()
    assert notes == ["a starts", "b starts", "b closes", "a closes"]


@pytest.mark.parametrize("fails", ["refuses", "has 2 s", "closes"])
async def test_listener_that_fails_to_refuse_drain_or_close_does_not_keep_others_open(
    fails: str,
) -> None:
    notes: list[str] = []
    listeners = ProtocolListeners([Noted("a", notes), Noted("b", notes, fails)])
    await listeners.start()
    listeners.stop_accepting()
    await listeners.close(2)
    assert {"a refuses", "a has 2 s", "a closes", "b closes"} <= set(notes)


@pytest.mark.parametrize("setting", ["grpc-port", "talk-ports", "wyoming-port"])
def test_secondary_port_in_use_is_fatal_and_names_setting(setting: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        words = ("--port", "0", f"--{setting}", port, "--data-dir", str(tmp_path))
        result = run_command(
            [sys.executable, "-m", "sidecar.main", "serve", "--engine", "scripted", *words]
        )
    line = json.loads(result.stdout)
    assert (result.returncode, line["event"], line["code"]) == (75, "fatal", "port_in_use")
    assert port in line["message"]
    assert f"--{setting}" in line["hint"]


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="there a port is had by one alone")
async def test_secondary_port_taken_between_bind_and_listen_is_port_in_use() -> None:
    """Two that do not listen yet may have the same."""
    with socket.socket() as quicker, bind_port("127.0.0.1", 0) as ours:
        quicker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        quicker.bind(ours.getsockname())
        quicker.listen()
        config = uvicorn.Config("nothing:app", log_config=None)
        besides = SecondaryPort("talk_port", config, ours, "Stop it.")
        with pytest.raises(errors.PortInUse) as caught:
            await ProtocolListeners([besides]).start()
        assert caught.value.hint == "Stop it."
        assert ours.fileno() == -1, "nothing is left"


def test_port_that_the_system_denies_is_in_use_on_windows_and_elsewhere_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows denies one of another user's program, and those that it reserves."""

    class Denied(socket.socket):
        def bind(self, _: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket", Denied)
    on_windows = sys.platform == "win32"
    with pytest.raises(errors.PortInUse if on_windows else errors.SettingsInvalid):
        bind_port("127.0.0.1", 80)


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere REUSEADDR shares no port")
def test_no_other_program_can_bind_the_port() -> None:
    with socket.socket() as other, bind_port("127.0.0.1", 0) as ours:
        listen(ours)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match=r"10013|10048"):
            other.bind(ours.getsockname())
