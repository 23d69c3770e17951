"""Recordings that a command line names, also the one on standard input.

Of that there may be no other copy: it is a file from its first byte on, which is kept unless it is
transcribed.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import BinaryIO

from sidecar import errors, files
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import storage_error
from sidecar.cli.audio_input import STANDARD_INPUT, open_file, read_stdin
from sidecar.cli.output import cancelled_by, handle_interrupts, numbered_names, print_error_line
from sidecar.transcripts.transcript import Transcript

NAMES = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
"""Names of standard input."""
CHUNK = 1 << 20
"""Maximum of bytes that are read at once."""
KEPT_NAME = "stdin.rec"
"""Name of the recording of standard input."""


def normalize_stdin_names(named: Sequence[Path]) -> list[Path]:
    """Return the ``named`` files, with one name for standard input.

    Raises:
        errors.SettingsInvalid: it is named twice, but can be read only once.
    """
    named = [STANDARD_INPUT if path.as_posix() in NAMES else path for path in named]
    if named.count(STANDARD_INPUT) > 1:
        raise errors.SettingsInvalid(
            "Standard input ('-') is named twice.", hint="Name it once: it is one recording."
        )
    return named


class NamedRecordings:
    """What opens the recordings that the user named, as `open_file` does. ``stdin``: the file with
    the one of standard input, which is deleted only once that is transcribed."""

    def __init__(self, stdin: Path | None) -> None:
        self._stdin, self._transcribed = stdin, False

    def __call__(self, path: Path) -> AudioSource:
        """Return an open recording.

        Raises:
            errors.BadRequest: as `open_file`, or it is a folder without recordings.
        """
        if self._stdin is not None and path == STANDARD_INPUT:
            return AudioSource(files.open_to_read(self._stdin), spooled=True)
        if path.is_dir():  # `expand_folders` leaves only those without recordings
            raise errors.AudioPathNotAFile(
                "There are no recordings in this folder.",
                hint="In folders only endings such as .wav count; name other files themselves.",
            )
        return open_file(path)

    def settle(self, path: Path, transcript: Transcript) -> None:
        """Note that the user has the transcript of a recording."""
        self._transcribed |= path == STANDARD_INPUT and not transcript.lacks_words

    def close(self) -> None:
        """Delete the recording of standard input if it is transcribed, or else say where it is."""
        if self._stdin is None:
            return
        with suppress(FileNotFoundError):  # somebody has moved it
            if not self._transcribed and self._stdin.stat().st_size:
                print_error_line(f"The recording of standard input is kept: {self._stdin}.")
                return
        try:
            files.remove(self._stdin)
        except OSError as error:
            print_error_line(f"The file {self._stdin} cannot be deleted: {error.strerror}.")


@asynccontextmanager
async def open_recordings(named: Sequence[Path]) -> AsyncIterator[NamedRecordings]:
    """Yield the function that opens the ``named`` recordings. If standard input is among them, it
    is first read to its end into a file: a recording is probed before it is transcribed, but a pipe
    can be read only once. Ctrl-C, SIGTERM and the end of the terminal then cancel the block.

    Raises:
        errors.BadRequest: it is a terminal, a folder, or larger than an upload may be.
        errors.DiskFull, errors.SpoolUnwritable: there is no space for it.
    """
    from sidecar.plugins import load_settings

    if STANDARD_INPUT not in named:
        yield NamedRecordings(None)
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise errors.AudioPathNotAFile(
            "There is no recording on standard input.",
            hint="Pipe a recording into the command, or name a file.",
        )
    settings = load_settings()
    ended = asyncio.Event()
    path, file = new_recording_file(settings.spool_dir)
    with handle_interrupts(ended), closing(NamedRecordings(path)) as opens:
        with file:
            await record_stdin(file, settings.max_upload_mb << 20, ended)
        async with cancelled_by(ended):
            yield opens


def new_recording_file(folder: Path | None) -> tuple[Path, BinaryIO]:
    """Create and open a file that only its owner may read: in ``folder``, if that is set, else in
    the current folder or that for temporary files. What has its name already, of whatever kind,
    stays.

    Raises:
        errors.DiskFull, errors.SpoolUnwritable: none of them takes a file.
    """
    wrong: errors.SidecarError = errors.SpoolUnwritable()
    for find in (lambda: folder or Path(), Path, tempfile.gettempdir):
        try:
            names = numbered_names(place := Path(find()), KEPT_NAME)
            while True:
                path = place / next(names)
                with suppress(FileExistsError):
                    return path, files.open_new(path)
        except OSError as error:
            wrong = storage_error(error)
    raise wrong


async def record_stdin(file: BinaryIO, most: int, ended: asyncio.Event) -> None:
    """Write all of standard input to ``file``, until ``ended`` as `read_stdin`: what records may
    end with the same Ctrl-C.

    Raises:
        asyncio.CancelledError: it is ``ended``.
        errors.UploadTooLarge: it has more than ``most`` bytes, which are all written.
        errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        errors.AudioPathNotAFile: it cannot be read.
    """
    size = 0
    try:
        async with aclosing(read_stdin(CHUNK, ended, sys.maxsize)) as pieces:
            async for piece in pieces:
                _write(file, piece)
                size += len(piece)
    except OSError as error:
        raise errors.AudioPathNotAFile(
            f"Standard input cannot be read: {error.strerror}.",
            hint="Pipe a recording into the command, or name a file.",
        ) from None
    if ended.is_set():
        raise asyncio.CancelledError
    if size > most:
        raise errors.UploadTooLarge("The recording on standard input is larger than the limit.")


def _write(file: BinaryIO, piece: bytes) -> None:
    """Write a piece, or what the disk takes of it: nothing waits in memory.

    Raises:
        errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
    """
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(file.fileno(), rest) :]
    except OSError as error:
        raise storage_error(error) from None
