"""Clients of others as they are published, each in a child process of its own: `make test-clients`.

What they need is in `.venv/clients` (requirements.txt, package.json), never in the environment of
the service. A program of ``programs/`` gets its arguments and prints what came of it as its last
line, in JSON.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from module_services import mind as mind
from module_services import thoughtful as thoughtful
from recordings import wav
from service_process import PATIENCE_S, REPOSITORY

CLIENTS = Path(os.environ.get("VIBEVOICE_TEST_CLIENTS") or REPOSITORY / ".venv/clients")
PYTHON = CLIENTS / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
PROGRAMS = Path(__file__).parent / "programs"


class Programs:
    """Programs of one runtime, by their names in ``programs/``."""

    packages = CLIENTS

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime

    def __call__(self, name: str, *arguments: object) -> Any:
        """Run one; return what it prints last, as JSON."""
        with self.start(name, *arguments) as process:
            out, err = process.communicate()
        assert process.returncode == 0, f"{out[-4000:]}\n{err[-8000:]}"
        return json.loads(out.splitlines()[-1])

    @contextlib.contextmanager
    def start(self, name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Start one, and end it at last, or if it takes too long."""
        known = {"PYTHONPATH": str(PROGRAMS), "OPENAI_API_KEY": "sk-none", "CLIENTS": str(CLIENTS)}
        process = subprocess.Popen(
            [self._runtime, PROGRAMS / name, *map(str, arguments)],
            env={**os.environ, **known},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        late = threading.Timer(PATIENCE_S, process.kill)
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def python_client() -> Programs:
    """Programs for the clients' Python."""
    if not PYTHON.is_file():
        pytest.skip(f"there are no clients in {CLIENTS}: 'make test-clients' installs them")
    return Programs(str(PYTHON))


@pytest.fixture(scope="session")
def older_client() -> Programs:
    """Programs for the Python of clients that need older packages than the others."""
    python = CLIENTS / "older" / PYTHON.relative_to(CLIENTS)
    if not python.is_file():
        pytest.skip(f"there are no clients in {CLIENTS}/older: 'make test-clients' installs them")
    return Programs(str(python))


@pytest.fixture(scope="session")
def node_client() -> Programs:
    """Programs for node."""
    node = shutil.which("node")
    if node is None or not (CLIENTS / "node_modules").is_dir():
        pytest.skip(f"there is no node, or no package in {CLIENTS}: 'make test-clients'")
    return Programs(node)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    path.write_bytes(wav(b"\1\0" * 48_000))
    return path
