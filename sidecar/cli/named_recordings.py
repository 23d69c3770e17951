"""Recordings that a command line names, also the one on standard input.

Of that there may be no other copy: if it was not transcribed, it is kept as a file.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sidecar import errors, files
from sidecar.audio.audio_source import AudioSource, read_chunks
from sidecar.audio.upload_spool import UploadSpool
from sidecar.cli.audio_input import STANDARD_INPUT, open_file, read_stdin
from sidecar.cli.output import cancelled_by, handle_interrupts, numbered_names, print_error_line

NAMES = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
"""Names of standard input."""
CHUNK = 1 << 20
"""Maximum of bytes that are read at once."""
KEPT_NAME = "stdin.rec"
"""Name of a recording of standard input that was not transcribed."""
NO_RECORDING = errors.AudioEmpty, errors.AudioFormatUnsupported, errors.AudioUndecodable
"""Errors of bytes that are no recording, or none that can be decoded."""


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
    """What opens the recordings that the user named, as `open_file` does. ``stdin``: the one of
    standard input, of which there may be no other copy: it is kept unless it was ``settled``."""

    def __init__(self, stdin: AudioSource | None) -> None:
        self._stdin = stdin
        self._settled = stdin is None

    def __call__(self, path: Path) -> AudioSource:
        """Return an open recording.

        Raises:
            errors.BadRequest: as `open_file`, or it is a folder without recordings.
        """
        if self._stdin is not None and path == STANDARD_INPUT:
            return AudioSource(os.dup(self._stdin.fd), spooled=True)
        if path.is_dir():  # `expand_folders` leaves only those without recordings
            raise errors.AudioPathNotAFile(
                "There are no recordings in this folder.",
                hint="In folders only endings such as .wav count; name other files themselves.",
            )
        return open_file(path)

    def settle(self, path: Path, error: errors.SidecarError | None = None) -> None:
        """Note that a recording is transcribed, or that its ``error`` is that it is none."""
        if path == STANDARD_INPUT and (error is None or isinstance(error, NO_RECORDING)):
            self._settled = True

    def close(self) -> None:
        """Close the recording of standard input; it is first kept if nothing settled it."""
        if self._stdin is not None:
            with self._stdin as source:
                if not self._settled:
                    keep_recording(partial(read_chunks, source.fd))


@asynccontextmanager
async def open_recordings(named: Sequence[Path]) -> AsyncIterator[NamedRecordings]:
    """Yield the function that opens the ``named`` recordings. If standard input is among them, it
    is first read to its end into an unnamed file: a recording is probed before it is transcribed,
    but a pipe can be read only once. Ctrl-C, SIGTERM and the end of the terminal then cancel the
    block.

    Raises:
        errors.BadRequest: it is a terminal, a folder, or larger than an upload may be.
        errors.DiskFull, errors.SpoolUnwritable: there is no space for it.
    """
    if STANDARD_INPUT not in named:
        yield NamedRecordings(None)
        return
    ended = asyncio.Event()
    with handle_interrupts(ended), closing(NamedRecordings(await spool_stdin(ended))) as opens:
        async with cancelled_by(ended):
            yield opens


def keep_recording(pieces: Callable[[], Iterable[bytes]]) -> Path | None:
    """Write ``pieces``, anew for each try, to a new file that only its owner may read, in the
    current folder, or else in that for temporary files. Print its path, and return it; `None` if
    neither takes it."""
    for find in (Path, tempfile.gettempdir):
        folder, path = Path("the folder for temporary files"), None
        try:
            path, file = _open_new(folder := Path(find()))
            with file:
                file.writelines(pieces())
        except OSError as error:
            if path is not None:
                with suppress(OSError):
                    files.remove(path)
            print_error_line(f"The recording cannot be kept in {folder}: {error.strerror}.")
        else:
            print_error_line(f"The recording of standard input is kept: {path}.")
            return path
    return None


def _open_new(folder: Path) -> tuple[Path, BinaryIO]:
    """Create and open a private file; what has its name already, of whatever kind, stays."""
    names = numbered_names(folder, KEPT_NAME)
    while True:
        path = folder / next(names)
        with suppress(FileExistsError):
            return path, files.open_new(path)


async def spool_stdin(ended: asyncio.Event) -> AudioSource:
    """Return all of standard input as a spooled recording. If that fails, or ``ended`` is set
    meanwhile, the recording is kept, with what comes yet, and after ``ended`` in the last moment:
    what records may end with the same Ctrl-C."""
    from sidecar.plugins import load_settings

    if sys.stdin is None or sys.stdin.isatty():
        raise errors.AudioPathNotAFile(
            "There is no recording on standard input.",
            hint="Pipe a recording into the command, or name a file.",
        )
    settings = load_settings()
    spool = UploadSpool(settings.spool_dir)
    async with aclosing(read_stdin(CHUNK, ended, sys.maxsize)) as pieces:
        try:
            async for data in pieces:
                spool.add(data)
                if spool.size > settings.max_upload_mb << 20:
                    raise errors.UploadTooLarge(
                        "The recording on standard input is larger than the limit."
                    )
                if spool.pending >= UploadSpool.MEMORY_BYTES:
                    spool.spill()
            if ended.is_set():
                raise asyncio.CancelledError
            return spool.finish()
        except BaseException as error:
            if spool.size and (path := keep_recording(spool.held)):
                await _append(path, pieces)
            if isinstance(error, OSError):
                raise errors.AudioPathNotAFile(
                    f"Standard input cannot be read: {error.strerror}.",
                    hint="Pipe a recording into the command, or name a file.",
                ) from None
            raise
        finally:
            spool.close()


async def _append(path: Path, pieces: AsyncIterable[bytes]) -> None:
    try:
        with path.open("ab") as file:
            async for piece in pieces:
                file.write(piece)
    except OSError as error:
        print_error_line(f"The rest of the recording cannot be kept: {error.strerror}.")
