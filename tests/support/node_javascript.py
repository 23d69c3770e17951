"""The JavaScript client under the Node that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from service_process import PATIENCE_S

PACKAGE = Path(__file__).parents[2] / "clients/js"
WEBSOCKET = ("--experimental-websocket",)
"""What node 20 wants to be told; from 22 on it changes nothing."""


def node_here() -> str:
    """Node 20 or newer: of 18 the flag for WebSockets is not known. The test is skipped, loudly,
    where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("THE JAVASCRIPT CLIENT IS NOT TESTED: there is no node here")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"THE JAVASCRIPT CLIENT IS NOT TESTED: node is {version}, and 20 is needed")
    return found


def check_websockets(node: str) -> None:
    """Skip the test, loudly, where node has none, not even behind a flag (20)."""
    found = subprocess.run(
        [node, *WEBSOCKET, "--eval", "new WebSocket"], capture_output=True, text=True
    )
    if "WebSocket is not defined" in found.stderr:
        pytest.skip("LIVE AUDIO IN JAVASCRIPT IS NOT TESTED: this node has no WebSocket")


def run(node: str, *arguments: str, **environment: str) -> str:
    """What it writes."""
    result = subprocess.run(
        [node, *arguments],
        cwd=PACKAGE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
