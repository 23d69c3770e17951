"""A recording that comes on standard input: `-`, or by one of the paths it has."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar import errors
from sidecar.audio.source import AudioSource, Spool
from sidecar.cli import recordings

STANDARD_INPUT = Path("/dev/stdin")
"""What it is called, whatever it was named by, on every system."""
NAMES = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
CHUNK = 1 << 20
MB = 1 << 20


def named(files: Sequence[Path]) -> list[Path]:
    """The same files, with one name for standard input.

    Raises:
        errors.SettingsInvalid: it is named twice; it can be read once.
    """
    files = [STANDARD_INPUT if path.as_posix() in NAMES else path for path in files]
    if files.count(STANDARD_INPUT) > 1:
        raise errors.SettingsInvalid(
            "Standard input is named twice.", hint="It is one recording: name it once."
        )
    return files


@contextlib.contextmanager
def kept(files: Sequence[Path]) -> Iterator[recordings.Opens]:
    """What opens ``files``. If standard input is among them it is read to its end here, into a file
    without a name: a recording is looked at before it is heard, and a pipe can be read once.

    Raises:
        errors.BadRequest: it is a terminal, a folder, or larger than an upload may be.
        errors.DiskFull, errors.SpoolUnwritable: there is no room for it.
    """
    if STANDARD_INPUT not in files:
        yield recordings.open_file
        return
    with spooled() as source:

        def opens(path: Path) -> AudioSource:
            if path != STANDARD_INPUT:
                return recordings.open_file(path)
            return AudioSource(os.dup(source.fd), spooled=True)

        yield opens


def spooled() -> AudioSource:
    """All of standard input."""
    from sidecar.config.settings import load_settings

    if sys.stdin is None or sys.stdin.isatty():
        raise errors.AudioPathNotAFile(
            "There is no recording on standard input.",
            hint="Send one through a pipe, or name a file.",
        )
    settings = load_settings()
    spool = Spool(settings.spool_dir)
    try:
        while data := _more():
            spool.add(data)
            if spool.size > settings.max_upload_mb * MB:
                raise errors.UploadTooLarge("What comes on standard input is beyond the limit.")
            if spool.pending >= Spool.MEMORY_BYTES:
                spool.spill()
        return spool.finish()
    except BaseException:
        spool.close()
        raise


def _more() -> bytes:
    try:
        return os.read(sys.stdin.fileno(), CHUNK)
    except OSError as error:
        raise errors.AudioPathNotAFile(
            f"Standard input cannot be read: {error.strerror}.",
            hint="Send a recording through a pipe, or name a file.",
        ) from None
