"""Clients of others as they are published, each in a child process of its own: `make test-clients`.

What they need is in `.venv/clients` (requirements.txt, package.json), never in the environment of
the service. A program of ``programs/`` gets its arguments and prints what came of it as its last
line, in JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_server import Obedient, obedient
from service_process import PATIENCE_S, REPOSITORY, Server

CLIENTS = Path(os.environ.get("VIBEVOICE_TEST_CLIENTS") or REPOSITORY / ".venv/clients")
PYTHON = CLIENTS / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
PROGRAMS = Path(__file__).parent / "programs"
RunClient = Callable[..., Any]


def outcome(command: list[str], arguments: tuple[object, ...], **env: str) -> Any:
    """What a program prints last, as JSON."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROGRAMS), "OPENAI_API_KEY": "sk-none", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def python_client() -> RunClient:
    """Run a program with the clients' Python: its name in ``programs/``, and its arguments."""
    if not PYTHON.is_file():
        pytest.skip(f"there are no clients in {CLIENTS}: 'make test-clients' installs them")
    return lambda name, *arguments: outcome([str(PYTHON), str(PROGRAMS / name)], arguments)


@pytest.fixture(scope="session")
def node_client() -> RunClient:
    """Run a program with node: its name in ``programs/``, and its arguments."""
    node = shutil.which("node")
    if node is None or not (CLIENTS / "node_modules").is_dir():
        pytest.skip(f"there is no node, or no package in {CLIENTS}: 'make test-clients'")
    return lambda name, *arguments: outcome(
        [node, str(PROGRAMS / name)], arguments, CLIENTS=str(CLIENTS)
    )


@pytest.fixture(scope="module")
def llm() -> Iterator[Obedient]:
    """A language model that does as it is told."""
    with obedient() as one:
        yield one


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory: pytest.TempPathFactory, llm: Obedient) -> Iterator[Server]:
    """A service that converses: scripted words and tones, and ``llm``."""
    home = tmp_path_factory.mktemp("dialogue")
    with Server(home, voice_engine="scripted", conversations=9, llm=llm.url) as one:
        yield one
