"""Recordings that a command line names, also the one on standard input.

Of that there may be no other copy: if it was not transcribed, it is kept as a file.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from sidecar import errors
from sidecar.audio.audio_format import read_file_at
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.cli.audio_input import STANDARD_INPUT, open_file
from sidecar.cli.output import new_file, print_error_line

NAMES = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
"""Names of standard input."""
CHUNK = 1 << 20
"""Bytes that are read or written at once."""
KEPT_NAME = "stdin.rec"
"""Name of a recording of standard input that was not transcribed."""


def normalize_stdin_names(files: Sequence[Path]) -> list[Path]:
    """Return the files, with one name for standard input.

    Raises:
        errors.SettingsInvalid: it is named twice, but can be read only once.
    """
    files = [STANDARD_INPUT if path.as_posix() in NAMES else path for path in files]
    if files.count(STANDARD_INPUT) > 1:
        raise errors.SettingsInvalid(
            "Standard input ('-') is named twice.", hint="Name it once: it is one recording."
        )
    return files


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
        """Note that a recording is transcribed, or that it is to blame for an error."""
        if path == STANDARD_INPUT and (error is None or error.fault is errors.Fault.RECORDING):
            self._settled = True

    def close(self) -> None:
        """Close the recording of standard input; it is first kept if nothing settled it."""
        if self._stdin is not None:
            with self._stdin:
                if not self._settled:
                    keep_recording(self._stdin)


@contextmanager
def open_recordings(files: Sequence[Path]) -> Iterator[NamedRecordings]:
    """Yield the function that opens ``files``. If standard input is among them, it is first read to
    its end into an unnamed file. A recording is probed before it is transcribed, but a pipe can be
    read only once.

    Raises:
        errors.BadRequest: it is a terminal, a folder, or larger than an upload may be.
        errors.DiskFull, errors.SpoolUnwritable: there is no space for it.
    """
    with closing(NamedRecordings(spool_stdin() if STANDARD_INPUT in files else None)) as opens:
        yield opens


def keep_recording(source: AudioSource) -> None:
    """Write a recording to a new file in the current folder, or else in that for temporary files,
    and print its path."""
    for folder in (Path(), Path(tempfile.gettempdir())):
        try:
            path = new_file(folder / KEPT_NAME)
            with path.open("wb") as file:
                for at in count(0, CHUNK):
                    if not file.write(read_file_at(source.fd, at, CHUNK)):
                        break
        except OSError as error:
            print_error_line(f"The recording cannot be kept in {folder}: {error.strerror}.")
        else:
            print_error_line(f"The recording of standard input is kept: {path}.")
            return


def spool_stdin() -> AudioSource:
    """Return all of standard input as a spooled recording."""
    from sidecar.plugins import load_settings

    if sys.stdin is None or sys.stdin.isatty():
        raise errors.AudioPathNotAFile(
            "There is no recording on standard input.",
            hint="Pipe a recording into the command, or name a file.",
        )
    settings = load_settings()
    spool = UploadSpool(settings.spool_dir)
    try:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            spool.add(data)
            if spool.size > settings.max_upload_mb << 20:
                raise errors.UploadTooLarge(
                    "The recording on standard input is larger than the limit."
                )
            if spool.pending >= UploadSpool.MEMORY_BYTES:
                spool.spill()
        return spool.finish()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and spool.size:  # what records ends with it, too
            with spool.finish() as source:
                keep_recording(source)
        spool.close()
        if isinstance(error, OSError):
            raise errors.AudioPathNotAFile(
                f"Standard input cannot be read: {error.strerror}.",
                hint="Pipe a recording into the command, or name a file.",
            ) from None
        raise
