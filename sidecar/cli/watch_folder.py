"""Folder watch of `transcribe --watch`: recordings as they arrive.

Only files record what is done and what failed, so the watch resumes after a restart.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar import errors
from sidecar.cli.audio_input import list_recordings
from sidecar.cli.backends import TranscribeRecording
from sidecar.cli.output import (
    check_name,
    is_written,
    print_error_line,
    report_error,
    write_atomically,
)
from sidecar.transcripts.transcript_formats import file_extension, render_transcript

POLL_S = 1.0
SETTLED_S = 3.0
"""Seconds without a change after which a recording counts as complete."""
RETRY_S = 30.0
FAILED = "failed"
"""Folder beside the recordings for those that cannot be transcribed, each with its reason."""
RETRYABLE_KINDS = frozenset(
    {
        errors.ErrorKind.BUSY,
        errors.ErrorKind.LIMITED,
        errors.ErrorKind.CANCELLED,
        errors.ErrorKind.TIMEOUT,
        errors.ErrorKind.STORAGE_FULL,
    }
)
"""Kinds of errors after which the recording stays where it is, and is retried."""
OPTION_ERRORS = (
    errors.FieldInvalid,
    errors.FieldMissing,
    errors.FieldTooLong,
    errors.LanguageInvalid,
    errors.LanguageUnsupported,
    errors.PrecisionUnavailable,
    errors.PrecisionUnknown,
)


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """State of a file at one time."""

    size: int
    mtime_ns: int


class FileSettling:
    """Detection of files that have not changed for long enough. Pure; times are of any clock."""

    def __init__(self, settled_s: float) -> None:
        self._settled_s = settled_s
        self._since: dict[Path, tuple[FileSnapshot, float]] = {}

    def settled(self, looks: Mapping[Path, FileSnapshot], now: float) -> list[Path]:
        """Return those of ``looks`` that have not changed for long enough; empty files never
        count."""
        self._since = {
            path: self._since[path] if self._since.get(path, (None,))[0] == look else (look, now)
            for path, look in looks.items()
        }
        return [
            path
            for path, (look, since) in self._since.items()
            if look.size and now - since >= self._settled_s
        ]


def output_of(recording: Path, to: Path, fmt: str) -> Path:
    """Return the path of a transcript: by the recording's whole name, which is unique in its
    folder."""
    return to / f"{recording.name}.{file_extension(fmt)}"


class FolderWatch:
    """Watch of a folder; the transcripts, in the format ``fmt``, go to the folder ``to``."""

    def __init__(
        self, folder: Path, to: Path, fmt: str, transcribe: TranscribeRecording, at_once: int
    ) -> None:
        self._folder, self._to, self._fmt = folder, to, fmt
        self._transcribe = transcribe
        self._at_once = at_once
        self._settling = FileSettling(SETTLED_S)
        self._running: dict[Path, asyncio.Task[None]] = {}
        self._not_before: dict[Path, float] = {}

    async def run(self) -> int:
        """Watch the folder until cancelled.

        Raises:
            errors.SidecarError: no recording can be transcribed: the client lacks the right, or the
                options are invalid.
        """
        print_error_line(f"watching {self._folder}; transcripts go to {self._to}")
        try:
            while True:
                for path in [path for path, task in self._running.items() if task.done()]:
                    self._running.pop(path).result()
                for path in self._due(time.monotonic()):
                    task = asyncio.get_running_loop().create_task(self._one(path))
                    self._running[path] = task
                await asyncio.sleep(POLL_S)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _due(self, now: float) -> list[Path]:
        looks = {}
        for path in list_recordings(self._folder, below=False):
            try:
                status = path.stat()
            except OSError:  # gone again
                continue
            looks[path] = FileSnapshot(status.st_size, status.st_mtime_ns)
        return [
            path
            for path in self._settling.settled(looks, now)
            if path not in self._running
            and self._not_before.get(path, now) <= now
            and not is_written(output_of(path, self._to, self._fmt), path)
        ][: max(0, self._at_once - len(self._running))]

    async def _one(self, path: Path) -> None:
        output = output_of(path, self._to, self._fmt)
        try:
            check_name(output)
        except OSError as error:
            print_error_line(f"{path}: its output cannot be written: {error.strerror}.")
            self._not_before[path] = math.inf  # until it is renamed
            return
        try:
            transcript = await self._transcribe(path, lambda stage, done, total: None)
        except errors.AudioPathNotFound:
            return  # it was removed meanwhile
        except errors.SidecarError as error:
            if _applies_to_all(error):
                raise
            report_error(error, about=str(path))
            if error.kind in RETRYABLE_KINDS or isinstance(error, errors.JobNotFound):
                self._not_before[path] = time.monotonic() + (error.retry_after or RETRY_S)
            else:
                _set_aside(path, error)
            return
        for notice in transcript.notices:
            print_error_line(f"{path}: {notice.message}")
        try:
            write_atomically(output, render_transcript(transcript, self._fmt, path.stem))
        except OSError as error:  # a full disk, say
            print_error_line(f"{path}: {output} was not written: {error.strerror}.")
            self._not_before[path] = time.monotonic() + RETRY_S
            return
        print_error_line(f"{path.name}: {output}")


def _applies_to_all(error: errors.SidecarError) -> bool:
    """Return whether no other recording would fare better: the client has no right, or the options
    are wrong."""
    if isinstance(error, errors.AudioPathForbidden):
        return False
    return error.kind in (errors.ErrorKind.UNAUTHORIZED, errors.ErrorKind.FORBIDDEN) or isinstance(
        error, OPTION_ERRORS
    )


def _set_aside(path: Path, error: errors.SidecarError) -> None:
    folder = path.parent / FAILED
    folder.mkdir(exist_ok=True)
    to, number = folder / path.name, 2
    while to.exists():
        to, number = folder / f"{path.stem}-{number}{path.suffix}", number + 1
    path.rename(to)
    write_atomically(
        to.with_name(f"{to.name}.reason.txt"), f"{error.detail} {error.hint} ({error.code})\n"
    )
