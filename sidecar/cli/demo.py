"""Command `demo`: one transcription of a sample by a service that it starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sidecar import errors
from sidecar.cli import transcribe
from sidecar.cli.backends import ServiceTarget, settings_for_person, start_child_service
from sidecar.cli.common_options import argument, setting_option
from sidecar.cli.output import PROGRAM, print_error_line

HELP = f"""
Start the service, transcribe a recording through it, and keep serving.

Without FILE, the included sample is transcribed.

Example: `{PROGRAM} demo meeting.m4a`
"""
SAMPLE = "assets/endgame_nagg_nell.wav"
"""Two speakers, 28 seconds, in the wheel of the embedded engine."""


def demo(
    audio: Path | None = argument(
        None, "A recording. Default: the included sample.", metavar="FILE"
    ),
    port: str | None = setting_option("port"),
) -> int:
    """Transcribe one recording, then serve until Ctrl-C; return the exit code."""
    given = settings_for_person({"port": port} if port else {})
    audio = audio or sample()
    print_error_line("Starting the service.")  # the first start compiles: seconds without output
    with start_child_service(given) as (service, ready):
        if ready is None:  # it has printed the reason
            return service.wait()
        there = ServiceTarget().answering(ready)
        print_error_line(f"The service runs at {there.server}. Sending it {audio.name}:")
        code = transcribe.run(transcribe.TranscribeCommandOptions([audio], where=there))
        if code or ready.get("reused"):
            return code
        curl = f"curl -F audio=@recording.m4a {there.server}/transcribe"
        print_error_line(f"Still serving. Open {there.server} in a browser, or: {curl}")
        print_error_line("Ctrl-C stops it.")
        return service.wait()


def sample() -> Path:
    """Return the recording that is installed with the embedded engine.

    Raises:
        errors.AudioPathNotFound: it is missing.
    """
    library = find_spec("moonshine_voice")
    for folder in (library and library.submodule_search_locations) or []:
        path = Path(folder) / SAMPLE
        if path.is_file():
            return path
    raise errors.AudioPathNotFound(
        "The sample recording is missing.", hint="Name a recording: vibevoice-asr demo FILE"
    )
