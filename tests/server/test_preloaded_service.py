"""A service that tests have forked is like one that is started anew."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import service_process
from preloaded_service import READ_AT_IMPORT, ForkedService, Forker, limits_of
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


@pytest.mark.parametrize(("outcomes", "healthy"), [(1, False), (2, True)])
def test_it_has_limits_of_its_own(
    forker: Forker, tmp_path: Path, voice: bytes, outcomes: int, healthy: bool
) -> None:
    limits = {"health_min_events": outcomes}
    with Server(tmp_path, scripted_fails="int8", limits=limits) as server:
        assert isinstance(server.process, ForkedService)
        assert server.post(voice, precision="int8").status_code == 503
        assert server.client.get("/health").json()["model_pool_healthy"] == healthy


def test_with_limits_that_are_read_at_import_it_is_started(forker: Forker, tmp_path: Path) -> None:
    with Server(tmp_path, limits={"speech_characters": 10}) as server:
        assert not isinstance(server.process, ForkedService)
        assert "10" in server.process.environ()[VARIABLE]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """All of a module that is evaluated when it is imported: not what functions do."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        own = getattr(node, "decorator_list", [])
        inside = [*own, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    else:
        inside = list(ast.iter_child_nodes(node))
    yield node
    for one in inside:
        yield from at_import(one)


def test_all_limits_that_are_read_at_import_are_known() -> None:
    """Those whose constants are in a default, a field or another constant."""
    files = (REPOSITORY / "sidecar").rglob("*.py")
    sources = {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts): file.read_text("utf-8")
        for file in files
    }
    limits = {
        (module, constant): name
        for module, source in sources.items()
        for name, constant in limits_of(source).items()
    }
    assert len(limits) == sum(source.count(" = limit(") for source in sources.values()) > 10
    read = set()
    for module, source in sources.items():
        nodes = list(at_import(ast.parse(source)))
        homes = {constant: home for home, constant in limits if home == module}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                home = str(node.module)
                homes |= {one.name: home for one in node.names if (home, one.name) in limits}
        read |= {
            limits[homes[node.id], node.id]
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in homes
        }
    assert read == READ_AT_IMPORT
