"""`vibevoice-asr doctor --report`: all that a bug report needs in one file, and nothing private.

What the doctor finds, the notes of crashes, the end of the log. None of it holds audio or text of
a recording; folders of the user are named by '~'.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

from sidecar.cli.said import PROGRAM, say
from sidecar.config.settings import Settings
from sidecar.observability.crash import CrashNotes, data_folder

LOG_BYTES = 200_000
"""Of the end of each log file."""


def write(file: Path | None, findings: str, settings: Settings) -> int:
    """Write the report to ``file`` (else into this folder); the exit code."""
    target = file or Path(f"{PROGRAM}-report-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    data = data_folder(settings.data_dir)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as report:
            report.writestr("doctor.txt", _homeless(findings))
            for note in CrashNotes(data).notes():
                report.writestr(f"crash/{note.name}", _homeless(note.read_text("utf-8")))
            for log in sorted((data / "log").glob("*.log")) if data else ():
                report.writestr(f"log/{log.name}", _homeless(_end_of(log)))
    except OSError as error:
        say(f"{target}: cannot be written: {error.strerror}.")
        return 1
    print(target)
    return 0


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def _homeless(text: str) -> str:
    return text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
