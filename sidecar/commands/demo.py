"""`vibevoice-asr demo`: start the service, send it a recording, show the transcript, go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.commands import INTERRUPTED, complain, say, transcribe
from sidecar.neighbour import address
from sidecar.settings import load_settings

START_S = 60.0
SAMPLE = "assets/endgame_nagg_nell.wav"
"""Two people, 28 seconds, inside the embedded engine's wheel."""


def run(audio: Path | None, given: dict[str, Any]) -> int:
    """Serve until Ctrl-C, after one transcription; the exit code."""
    try:
        settings = load_settings(**given)
        audio = audio or sample()
    except errors.SidecarError as error:
        return complain(error)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    service = subprocess.Popen(
        [
            *_own_command(),
            "serve",
            "--log-level=warning",
            f"--parent-pid={os.getpid()}",  # whatever ends this command ends the service
            *flags,
        ],
        stdout=subprocess.DEVNULL,
    )
    url = address(settings.host, settings.port)
    try:
        if not _wait_until_up(service, url):
            return service.wait()
        say(f"The service runs at {url}. Sending it {audio.name}:")
        code = transcribe.run(transcribe.Order(files=[audio], format="text", server=url))
        if code:
            return code
        say(f"Still serving. Try {url}/docs, or: curl -F audio=@recording.m4a {url}/transcribe")
        say("Ctrl-C stops it.")
        return service.wait()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        service.terminate()
        service.wait()


def sample() -> Path:
    """The recording that came with the embedded engine.

    Raises:
        errors.AudioPathNotFound: it is not there.
    """
    library = find_spec("moonshine_voice")
    for folder in (library and library.submodule_search_locations) or []:
        path = Path(folder) / SAMPLE
        if path.is_file():
            return path
    raise errors.AudioPathNotFound(
        "The sample recording is not there.", hint="Name one: vibevoice-asr demo FILE"
    )


def _own_command() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable]
    return [sys.executable, "-m", "sidecar.main"]


def _wait_until_up(service: subprocess.Popen[bytes], url: str) -> bool:
    """Whether this very service answers; False when it ended instead."""
    deadline = time.monotonic() + START_S
    while service.poll() is None and time.monotonic() < deadline:
        try:
            if asyncio.run(_health(url)).get("pid") == service.pid:
                return True
        except errors.SidecarError:
            pass
        time.sleep(0.1)
    return False


async def _health(url: str) -> dict[str, Any]:
    from sidecar.client import ServiceClient

    async with ServiceClient(url) as client:
        return await client.health()
