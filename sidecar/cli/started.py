"""A service of a command's own: started for it, and gone with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from sidecar.version import own_command


@contextmanager
def started(
    given: Mapping[str, Any],
) -> Generator[tuple[subprocess.Popen[bytes], dict[str, Any] | None], None, None]:
    """A service with the settings ``given``, and its ready line; None where it could not start,
    which it has said why. It ends with the block, and with this process."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    service = subprocess.Popen(
        [
            *own_command("sidecar.main"),
            "serve",
            "--log-level=warning",
            f"--parent-pid={os.getpid()}",  # whatever ends this command ends the service
            *flags,
        ],
        stdout=subprocess.PIPE,
        **_apart(),
    )
    try:
        yield service, _ready_line(service)
    finally:
        service.terminate()
        service.wait()


def _apart() -> dict[str, Any]:
    """Ctrl-C at a terminal is the command's alone: the service ends by the command, behind it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def _ready_line(service: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """What the service says once it can serve, which a download may come before; None when it
    cannot."""
    assert service.stdout is not None
    line = service.stdout.readline()
    ready: dict[str, Any] = json.loads(line) if line else {}
    return ready if ready.get("event") == "ready" else None
