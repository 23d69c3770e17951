"""Which build this is, and how it runs another of itself."""

import sys

import pytest

from sidecar.installation import is_frozen, own_command
from sidecar.workers.worker_process import worker_command


def test_command_of_own_process_is_module_or_frozen_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not is_frozen()
    assert own_command("sidecar.main") == [sys.executable, "-m", "sidecar.main"]
    assert worker_command() == [sys.executable, "-P", "-m", "sidecar.workers.worker_main"]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert is_frozen()
    assert own_command("sidecar.main") == [sys.executable]
    assert worker_command() == [sys.executable, "worker"]
