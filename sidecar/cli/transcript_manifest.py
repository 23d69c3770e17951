"""Manifest of a folder of transcripts: of which recording each one is, and whether it was edited.

A transcript is written beside all other files: only an unedited one of the same recording is
replaced. A recording is known by its content, never by its name: recordings of several folders have
the same name, are moved, and are replaced by others of any date.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from sidecar import files
from sidecar.cli import output
from sidecar.cli.audio_input import STANDARD_INPUT
from sidecar.serialization import from_plain
from sidecar.transcripts.transcript_formats import file_extension

MANIFEST = ".vibevoice-asr.jsonl"
"""Hidden file of the folder: a JSON object a line, the last one of an output counts. Lines are
only appended, so that an interrupted command leaves all earlier ones as they are."""


@dataclass(frozen=True, slots=True)
class RecordingIdentity:
    """Recording by its content.

    ``path``, ``state`` (`file_state`): as long as they are the same, the content is not read again.
    """

    path: str
    state: tuple[int, ...]
    sha256: str

    @property
    def is_unchanged(self) -> bool:
        """Return whether the path still has this content."""
        return file_state(self.path) == self.state


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """Transcript of a recording, as it was written. ``sha256``: of the transcript."""

    output: str
    recording: RecordingIdentity
    sha256: str


def file_state(path: Path | str) -> tuple[int, ...]:
    """Return `files.size_and_dates` of a regular file, which change with its content; nothing if
    there is none."""
    try:
        status = os.stat(path)
        return files.size_and_dates(path, status) if stat.S_ISREG(status.st_mode) else ()
    except (OSError, ValueError):
        return ()


def identify(path: Path) -> RecordingIdentity | None:
    """Return the identity of a recording, which is read for it; `None` if it cannot be read, or is
    standard input: its path says nothing."""
    state = file_state(path)  # before the content: a change meanwhile is noticed the next time
    if not state or path == STANDARD_INPUT:
        return None
    where = os.path.abspath(path)
    try:
        return RecordingIdentity(where, state, _sha256_of(where, state))
    except OSError:
        return None


@cache
def _sha256_of(path: str, state: tuple[int, ...]) -> str:
    with open(files.open_to_read(path), "rb") as file:  # others may rename it meanwhile
        return hashlib.file_digest(file, "sha256").hexdigest()


class TranscriptManifest:
    """Manifest of the transcripts of one format in a folder.

    It is read once: what other commands write meanwhile is kept, as it is not noted here.
    """

    def __init__(self, folder: Path, fmt: str) -> None:
        self._folder, self._ending = folder, f".{file_extension(fmt)}"
        self._entries: dict[str, ManifestEntry] = {}
        self._of_path: dict[str, ManifestEntry] = {}
        """Entries of this format by the paths of their recordings."""
        self._reserved: dict[str, Path] = {}
        """Recordings by names of outputs, without case."""
        with suppress(FileNotFoundError):
            for entry in _entries((folder / MANIFEST).read_bytes()):
                self._keep(entry)

    def is_current(self, path: Path) -> bool:
        """Return whether the transcript of a recording exists, without reading either."""
        entry = self._of_path.get(os.path.abspath(path))
        return entry is not None and entry.recording.is_unchanged and self._is_there(entry)

    def has_transcript(self, path: Path) -> bool:
        """Return whether the transcript of a recording exists, also if the recording was moved; it
        is read only if one of its size may be the same. A copy of another recording has none."""
        if self.is_current(path):
            return True
        where, size = os.path.abspath(path), file_state(path)[:1]
        found = [
            entry
            for entry in self._entries.values()
            if entry.recording.state[:1] == size
            and entry.output.endswith(self._ending)
            and (entry.recording.path == where or not entry.recording.is_unchanged)
            and self._is_there(entry)
        ]
        recording = identify(path) if found else None
        for entry in found:
            if recording is not None and entry.recording.sha256 == recording.sha256:
                self._append(replace(entry, recording=recording))
                return True
        return False

    def check_writable(self) -> None:
        """Check that transcripts can be written, before long work for one.

        Raises:
            OSError: the folder cannot be written.
        """
        output.check_writable(self._folder / MANIFEST)

    def reserve_names(self, recordings: Sequence[Path]) -> list[tuple[Path, str]]:
        """Return each recording with a name for its transcript that none of the others gets."""
        pairs = []
        for path in recordings:
            names = output.numbered_names(self._folder, path.stem + self._ending)
            name = next(one for one in names if output.name_key(one) not in self._reserved)
            self._reserved[output.name_key(name)] = path
            pairs.append((path, name))
        return pairs

    def write(self, path: Path, name: str, text: str, recording: RecordingIdentity | None) -> str:
        """Write the transcript of a recording, which is noted with it unless it is not known.
        Return its name: with a number if there is a file that must be kept, and with other
        characters if the disk does not take them; both is told.

        Raises:
            OSError: it cannot be written.
        """
        data = output.encode_text(text)
        with output.written_beside(self._folder / name, data) as half:
            try:
                free = self._free_name(path, name, recording)
            except OSError as error:
                if not output.is_name_error(error):
                    raise
                free = self._free_name(path, output.portable_name(name), recording)
            target = self._folder / free
            try:
                if recording is not None:
                    digest = hashlib.sha256(data).hexdigest()
                    self._append(ManifestEntry(free, recording, digest))
            except OSError:
                if not target.stat().st_size:
                    files.remove(target)
                raise
            files.replace(half, target)
        if free != (usual := next(output.numbered_names(self._folder, name))):
            exists = os.path.lexists(self._folder / usual)
            why = "exists and is kept" if exists else "is no name here"
            output.print_error_line(f"{path}: {usual} {why}; the output is {free}.")
        return free

    def _free_name(self, path: Path, name: str, recording: RecordingIdentity | None) -> str:
        """Return the first name in which the transcript of a recording may be written.

        Raises:
            OSError: there is none.
        """
        return next(
            one
            for one in output.numbered_names(self._folder, name)
            if self._reserved.get(output.name_key(one), path) == path
            and (self._may_replace(one, recording) or output.create_file(self._folder / one))
        )

    def _may_replace(self, name: str, recording: RecordingIdentity | None) -> bool:
        """Return whether a file is the transcript of a recording, and was not edited."""
        entry = self._entries.get(name)
        if entry is None or recording is None or entry.recording.sha256 != recording.sha256:
            return False
        try:
            text = (self._folder / name).read_bytes()
        except OSError:
            return False
        return not text or hashlib.sha256(text).hexdigest() == entry.sha256

    def _is_there(self, entry: ManifestEntry) -> bool:
        """Return whether a transcript exists. An empty file is what a crash or a full disk leaves
        of one, unless nothing was said."""
        try:
            status = os.stat(self._folder / entry.output)
        except OSError:
            return False
        return status.st_size > 0 or entry.sha256 == hashlib.sha256().hexdigest()

    def _append(self, entry: ManifestEntry) -> None:
        # One write, so that no line of another command is in between; it begins with the end of a
        # line that was not written to its end.
        with open(self._folder / MANIFEST, "ab") as file:
            file.write(b"\n" + json.dumps(asdict(entry)).encode() + b"\n")
        self._keep(entry)

    def _keep(self, entry: ManifestEntry) -> None:
        self._entries[entry.output] = entry
        if entry.output.endswith(self._ending):
            self._of_path[entry.recording.path] = entry


def _entries(lines: bytes) -> Iterator[ManifestEntry]:
    """Yield the entries of a manifest; a line that cannot be understood is left out."""
    for line in lines.splitlines():
        try:
            yield from_plain(ManifestEntry, json.loads(line), lenient=True)
        except (ValueError, TypeError, KeyError):
            continue  # the process was killed while it wrote
