"""The recordings that somebody named, files and folders, and the names of what is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sidecar import errors
from sidecar.audio.source import AudioSource, open_path

ENDINGS = (
    ".aac", ".aif", ".aiff", ".amr", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp3",
    ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma",
)  # fmt: skip
"""What a recording in a folder is known by; a file that is named is judged by its content."""
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL, errno.EILSEQ})
Opens = Callable[[Path], AudioSource]
"""Opens a recording that somebody named, as `open_file` does."""


def spread(named: Iterable[Path]) -> list[Path]:
    """Files as they were named; for a folder the recordings in it and below, by name. One that has
    none stays as it is, to be complained of like any other that is no recording."""
    files: list[Path] = []
    for path in named:
        files += (path.is_dir() and in_folder(path)) or [path]
    return files


def in_folder(folder: Path, *, below: bool = True) -> list[Path]:
    """The recordings in a folder, hidden ones left out."""
    found = folder.rglob("*") if below else folder.glob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def open_file(path: Path) -> AudioSource:
    """Open a recording that somebody named.

    The errors of a path speak of the wire's field; here they speak of a file.

    Raises:
        errors.BadRequest: it is not there, not readable, or no regular file.
    """
    try:
        return open_path(os.path.abspath(path))
    except errors.AudioPathNotFound:
        raise errors.AudioPathNotFound("There is no such file.", hint="Check the path.") from None
    except errors.AudioPathNotAFile:
        raise errors.AudioPathNotAFile(
            "This is not a regular file.", hint="Give recordings, or folders that have some."
        ) from None
    except errors.AudioPathForbidden:
        raise errors.AudioPathForbidden(
            "This file may not be read.", hint="Check its permissions."
        ) from None
    except errors.AudioPathInvalid:
        raise errors.AudioPathInvalid(
            "This is not the path of a file.", hint="Check the path."
        ) from None


def key_of(path: Path, source: AudioSource, options: Mapping[str, str]) -> str:
    """By what a service knows that this was sent before: same file, same size and date, same
    options. Who knows it learns nothing of the path."""
    status = os.fstat(source.fd)
    said = [os.path.abspath(path), status.st_size, status.st_mtime_ns, sorted(options.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def output_names(files: Sequence[Path], ending: str) -> list[str]:
    """A file name for each input: its stem and ``ending``; a number where that would be a second.

    Case does not tell names apart: on some disks it does not either.
    """
    taken: set[str] = set()
    names = []
    for path in files:
        name, number = f"{path.stem}.{ending}", 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}.{ending}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def is_written(output: Path, recording: Path) -> bool:
    """Whether an output is there that is no older than its recording."""
    try:
        return output.stat().st_mtime_ns >= recording.stat().st_mtime_ns
    except OSError:
        return False


def check_name(path: Path) -> None:
    """Whether a file can have this name, before work is done for it.

    Raises:
        OSError: it cannot (`is_of_its_name`).
    """
    try:
        path.lstat()
    except OSError as error:
        if is_of_its_name(error):
            raise


def is_of_its_name(error: OSError) -> bool:
    """Whether a file could not be written for its name alone: another can be."""
    return error.errno in _OF_NAMES


def write(path: Path, text: str) -> None:
    """All of it or nothing: a file that is there is whole.

    Raises:
        OSError: it cannot be written.
    """
    half = path.with_name(f".{secrets.token_hex(4)}.part")  # a name that is long has no room left
    try:
        with half.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise
