"""The application for Ray, on a cluster of this machine with two replicas."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
from serving import PATIENCE_S

from bench.serving import ROOT


@pytest.mark.skipif(
    find_spec("ray") is None, reason="no Ray here: pip install 'ray[serve]' (500 MB) to run this"
)
def test_two_replicas_are_two_places_and_one_that_is_killed_costs_its_job_one_attempt() -> None:
    command = [sys.executable, "-m", "bench.replicas", "--replicas", "2"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=5 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
