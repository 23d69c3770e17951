"""Command `demo`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.cli import transcribe
from sidecar.cli.backends import started, where_of
from sidecar.cli.output import INTERRUPTED, complain, say
from sidecar.config.settings import load_settings

SAMPLE = "assets/endgame_nagg_nell.wav"
"""Two people, 28 seconds, inside the embedded engine's wheel."""


def run(audio: Path | None, given: dict[str, Any]) -> int:
    """Serve until Ctrl-C, after one transcription; the exit code."""
    try:
        load_settings(**given)
        audio = audio or sample()
    except errors.SidecarError as error:
        return complain(error)
    try:
        with started(given) as (service, ready):
            if ready is None:  # it has said why
                return service.wait()
            url = ready["url"]
            say(f"The service runs at {url}. Sending it {audio.name}:")
            code = transcribe.run(transcribe.Order([audio], where=where_of(ready)))
            if code or ready.get("reused"):
                return code
            curl = f"curl -F audio=@recording.m4a {url}/transcribe"
            say(f"Still serving. Open {url} in a browser, or: {curl}")
            say("Ctrl-C stops it.")
            return service.wait()
    except KeyboardInterrupt:
        return INTERRUPTED


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
