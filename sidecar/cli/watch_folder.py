"""Folder watch of `transcribe --watch`: recordings as they arrive.

Only files record what is done and what failed, so the watch resumes after a restart.
"""

import asyncio
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from sidecar import errors, files
from sidecar.cli import output
from sidecar.cli.audio_input import list_folder, report_skipped
from sidecar.cli.backends import TranscribeRecording
from sidecar.cli.transcript_manifest import TranscriptManifest, file_state, identify
from sidecar.transcripts.transcript_formats import file_extension, render_transcript

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


class FileSettling:
    """Detection of files that have not changed for long enough. Pure; times are of any clock."""

    def __init__(self, settled_s: float) -> None:
        self._settled_s = settled_s
        self._since: dict[Path, tuple[tuple[int, ...], float]] = {}

    def settled(self, states: Mapping[Path, tuple[int, ...]], now: float) -> list[Path]:
        """Return those of ``states`` (`file_state`) that have not changed for long enough; empty
        files never count."""
        self._since = {
            path: self._since[path] if self._since.get(path, (None,))[0] == state else (state, now)
            for path, state in states.items()
        }
        return [
            path
            for path, (state, since) in self._since.items()
            if any(state[:1]) and now - since >= self._settled_s
        ]


class FolderWatch:
    """Watch of a folder; the transcripts, in the format ``fmt``, go to the folder ``to``."""

    poll_s = 1.0
    settled_s = 3.0
    """Seconds without a change after which a recording counts as complete."""
    retry_s = 30.0
    """Seconds from a failure to the next attempt."""

    def __init__(
        self, folder: Path, to: Path, fmt: str, transcribe: TranscribeRecording, at_once: int
    ) -> None:
        self._folder, self._to, self._fmt = folder, to, fmt
        self._transcribe = transcribe
        self._at_once = at_once
        self._settling = FileSettling(self.settled_s)
        self._manifest = TranscriptManifest(to, fmt)
        self._skipped = set[Path]()
        self._rejected: dict[Path, tuple[str, errors.SidecarError]] = {}
        self._unread: set[Path] = set()
        """Recordings that may not be read, which was told."""
        self._running: dict[Path, asyncio.Task[None]] = {}
        self._not_before: dict[Path, float] = {}

    async def run(self) -> int:
        """Watch the folder until cancelled.

        Raises:
            errors.SidecarError: no recording can be transcribed: the client lacks the right, or the
                options are invalid.
        """
        output.print_error_line(f"watching {self._folder}; transcripts go to {self._to}")
        try:
            while True:
                for path in [path for path, task in self._running.items() if task.done()]:
                    self._running.pop(path).result()
                for path in self._due(time.monotonic()):
                    task = asyncio.get_running_loop().create_task(self._one(path))
                    self._running[path] = task
                await asyncio.sleep(self.poll_s)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _due(self, now: float) -> list[Path]:
        contents = list_folder(self._folder, below=False)
        skipped = {*contents.skipped} - ({self._folder / FAILED, self._to} - {self._folder})
        new = [sorted(paths - self._skipped) for paths in (skipped, {*contents.in_cloud})]
        report_skipped(self._folder, *new)
        self._skipped = skipped | {*contents.in_cloud}
        states = {path: file_state(path) for path in contents.recordings}
        return [
            path
            for path in self._settling.settled(states, now)
            if path not in self._running
            and self._not_before.get(path, now) <= now
            and not self._manifest.is_current(path)
        ][: max(0, self._at_once - len(self._running))]

    async def _one(self, path: Path) -> None:
        recording = await asyncio.to_thread(identify, path)
        if recording is None:  # it was removed, or may not be read
            if path not in self._unread and await asyncio.to_thread(os.path.exists, path):
                self._unread.add(path)
                output.print_error_line(f"{path}: it cannot be read yet. Check its permissions.")
            self._not_before[path] = self._retry_time()
            return
        self._unread.discard(path)
        content, rejection = self._rejected.get(path, ("", None))
        if rejection is not None and content == recording.sha256:
            self._set_aside(path, recording.sha256, rejection)
            return
        try:
            if self._manifest.has_transcript(path):
                return
            self._manifest.check_writable()
        except OSError as error:
            output.print_error_line(f"{path}: its output cannot be written: {error.strerror}.")
            self._not_before[path] = self._retry_time()
            return
        name = f"{path.name}.{file_extension(self._fmt)}"  # unique in the folder
        transcript = None
        try:
            async with self._transcribe(path, lambda stage, done, total: None) as transcript:
                text = render_transcript(transcript, self._fmt, path.stem)
                target = self._to / self._manifest.write(path, name, text, recording)
        except OSError as error:  # a full disk, say
            what = "it cannot be read now" if transcript is None else f"{name} was not written"
            output.print_error_line(f"{path}: {what}: {error.strerror or error}.")
            final = output.is_name_error(error)  # until it is renamed
            self._not_before[path] = math.inf if final else self._retry_time()
            return
        except errors.AudioPathNotFound:
            return  # it was removed meanwhile
        except errors.SidecarError as error:
            if _applies_to_all(error):
                raise
            if not recording.is_unchanged:  # it was still being written: the rest has come since
                return
            output.report_error(error, about=str(path))
            if error.kind in RETRYABLE_KINDS or isinstance(error, errors.JobNotFound):
                self._not_before[path] = self._retry_time(error.retry_after)
            else:
                self._set_aside(path, recording.sha256, error)
            return
        for notice in transcript.notices:
            output.print_error_line(f"{path}: {notice.message}")
        output.print_error_line(f"{path.name}: {target}")

    def _set_aside(self, path: Path, content: str, error: errors.SidecarError) -> None:
        """Move a recording to the folder `FAILED`. If that fails now, it is tried again: another
        program may have the file open, or a disk may be full."""
        try:
            set_aside(path, f"{error.detail} {error.hint} ({error.code})\n")
        except OSError as why:
            if path not in self._rejected:
                output.print_error_line(
                    f"{path}: it cannot be moved to '{FAILED}' yet: {why.strerror}."
                )
            if path.exists():  # else it is moved, or gone
                self._rejected[path] = content, error
            self._not_before[path] = self._retry_time()
        else:
            self._rejected.pop(path, None)

    def _retry_time(self, after_s: float | None = None) -> float:
        return time.monotonic() + (after_s or self.retry_s)


def _applies_to_all(error: errors.SidecarError) -> bool:
    """Return whether no other recording would fare better: the client has no right, or the options
    are wrong."""
    if isinstance(error, errors.AudioPathForbidden):
        return False
    denied = errors.ErrorKind.UNAUTHORIZED, errors.ErrorKind.FORBIDDEN
    return error.kind in denied or isinstance(error, OPTION_ERRORS)


def set_aside(path: Path, reason: str) -> None:
    """Move a recording to the folder `FAILED` beside it, with the reason.

    Raises:
        OSError: it cannot be moved, or the reason cannot be written.
    """
    folder = path.parent / FAILED
    folder.mkdir(exist_ok=True)
    names = output.numbered_names(folder, path.name)
    name = next(one for one in names if not os.path.lexists(folder / one))
    files.replace(path, folder / name)
    reasons = output.numbered_names(folder, f"{name}.reason.txt")
    output.write_new(folder / next(reasons), reason)
