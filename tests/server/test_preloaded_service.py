"""A service that tests have forked is like one that is started anew."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import service_process
from preloaded_service import ForkedService, Forker
from service_process import PATIENCE_S, REPOSITORY, Server

from sidecar.limit_overrides import VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services are forked on Linux only")


@pytest.fixture
def forker(monkeypatch: pytest.MonkeyPatch) -> Forker:
    made = Forker(REPOSITORY)
    monkeypatch.setattr(service_process, "FORKER", made)
    return made


def test_it_says_and_does_what_one_that_was_started_does(
    forker: Forker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voice: bytes
) -> None:
    said = []
    for name in ("forked", "started"):
        with Server(tmp_path / name, log_format="json") as server:
            assert isinstance(server.process, ForkedService) == (name == "forked")
            answer = server.post(voice).json()
            own = {"pid", "instance", "worker_pid"}
            health = {key: value for key, value in server.health().items() if key not in own}
            files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            files -= name == "forked"  # a line to what forks its workers
            folder = server.process.cwd()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(PATIENCE_S)
            messages = [line.partition('"message": "')[2][:20] for line in server.log().split("\n")]
        for key in ("processing_time", "job_id"):
            answer["metadata"].pop(key)
        said.append((answer, health.keys(), files, folder, code, messages))
        monkeypatch.setattr(service_process, "FORKER", None)
    assert said[0] == said[1]
    assert said[0][-2] == 0
    assert forker.cpu_s > 0


def test_its_end_by_a_signal_is_told_and_its_processes_are_its_own(
    forker: Forker, tmp_path: Path
) -> None:
    with Server(tmp_path / "one") as one, Server(tmp_path / "other") as other:
        assert one.process.poll() is None
        with pytest.raises(psutil.TimeoutExpired):
            one.process.wait(0.0)
        one.process.kill()
        assert one.process.wait(PATIENCE_S) == one.process.returncode == -signal.SIGKILL
        assert other.process.poll() is None
        assert other.health()["pid"] == other.process.pid


def test_with_limits_of_its_own_it_is_started(forker: Forker, tmp_path: Path) -> None:
    with Server(tmp_path, limits={"request_deadline": 10}) as server:
        assert not isinstance(server.process, ForkedService)
        assert "10" in server.process.environ()[VARIABLE]
