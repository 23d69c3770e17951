"""A service that tests have forked is like one that is started anew."""

import ast
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import service_process
from preloaded_service import READ_AT_IMPORT, limits_of
from service_process import PATIENCE_S, REPOSITORY, Server

from sidecar.limit_overrides import VARIABLE

pytestmark = pytest.mark.skipif(service_process.FORKER is None, reason="no service is forked here")


def is_forked(server: Server) -> bool:
    """Whether it forks its workers, as one that was forked does."""
    children = psutil.Process(server.process.pid).children()
    return "test-preloader" in {child.name() for child in children}


@pytest.mark.slow
def test_forked_service_answers_and_logs_as_started_one(tmp_path: Path, voice: bytes) -> None:
    said = []
    for fresh in (False, True):
        with Server(tmp_path / f"fresh {fresh}", log_format="json", fresh=fresh) as server:
            assert is_forked(server) != fresh
            answer = server.post(voice).json()
            own = {"pid", "instance", "worker_pid"}
            health = {key: value for key, value in server.health().items() if key not in own}
            files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            files -= not fresh  # a line to what forks its workers
            folder = server.process.cwd()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(PATIENCE_S)
            messages = [line.partition('"message": "')[2][:20] for line in server.log().split("\n")]
        for key in ("processing_time", "job_id"):
            answer["metadata"].pop(key)
        said.append((answer, health.keys(), files, folder, code, messages))
    assert said[0] == said[1]
    assert said[0][-2] == 0


def test_service_with_limits_read_at_import_is_not_forked(tmp_path: Path) -> None:
    with Server(tmp_path, limits={"llm_max_tokens": 10}) as server:
        assert not is_forked(server)
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


def test_list_of_limits_read_at_import_is_complete() -> None:
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
