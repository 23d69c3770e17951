"""Manifest of a folder of transcripts: of which recording each one is, and whether it was edited.

A recording is known by its path and its content, never by its name alone: recordings of several
folders have the same name, are moved, and are replaced by others of any date.
"""

import hashlib
import json
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sidecar.cli import output
from sidecar.cli.audio_input import STANDARD_INPUT
from sidecar.serialization import from_plain

MANIFEST = ".vibevoice-asr.jsonl"
"""Hidden file of the folder: a JSON object a line, the last one of an output counts. Lines are
only appended, so that an interrupted command leaves all earlier ones as they are."""


@dataclass(frozen=True, slots=True)
class RecordingIdentity:
    """Recording by its path and content.

    ``state``: `file_state`; as long as it is the same, so is the content, which is not read again.
    """

    path: str
    state: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """Transcript of a recording, as it was written. ``sha256``: of the transcript."""

    output: str
    format: str
    recording: RecordingIdentity
    sha256: str


def file_state(path: Path | str) -> tuple[int, ...]:
    """Return size and dates of a regular file, which change with its content; nothing if there is
    none. A program can set the date of a file to any value, but not that of this change (POSIX).
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def identify(path: Path) -> RecordingIdentity | None:
    """Return the identity of a recording, which is read for it; `None` if it cannot be read, or is
    standard input: its path says nothing."""
    state = file_state(path)  # before the content: a change meanwhile is noticed the next time
    if not state or path == STANDARD_INPUT:
        return None
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return RecordingIdentity(os.path.abspath(path), state, content)


class TranscriptManifest:
    """Manifest of the transcripts of one format in a folder."""

    def __init__(self, folder: Path, fmt: str) -> None:
        self._folder, self._format = folder, fmt
        self._by_output: dict[str, ManifestEntry] = {}
        self._by_path: dict[str, ManifestEntry] = {}
        self._inode = self._read = 0
        self._last_line = b""
        """File of the manifest, how many of its bytes are read, and the last line of them."""
        self._load()
        self._replaced: dict[str, ManifestEntry | None] = {}
        """Files that existed when their names, here without case, were chosen for outputs."""
        with suppress(OSError):  # the folder is made later
            for name in os.listdir(folder):
                self._chosen(name)

    def is_current(self, path: Path) -> bool:
        """Return whether the transcript of a recording exists, without reading either."""
        entry = self._by_path.get(os.path.abspath(path))
        if entry is None or entry.recording.state != file_state(path):
            return False
        return self._is_there(entry)

    def pending(
        self, recordings: Sequence[Path], preferred: Sequence[str]
    ) -> list[tuple[Path, str]]:
        """Return the recordings without a transcript, each with the name of its output: the
        ``preferred`` one, with a number if it belongs to another recording, or was edited.

        A recording that was moved has its transcript. A copy of another has none. In a folder
        without a manifest, which an earlier version or another program wrote, a transcript counts
        if it is no older than the only recording that prefers its name.
        """
        if not self.has(MANIFEST):
            self._adopt(recordings, preferred)
        found = {path: self._of_recording(path) for path in recordings}
        used = {entry.output for entry in found.values() if entry is not None}
        of_size: dict[tuple[int, ...], list[ManifestEntry]] = defaultdict(list)
        for known in self._by_path.values():
            if known.output not in used:
                of_size[known.recording.state[:1]].append(known)
        for path in [path for path, entry in found.items() if entry is None]:
            found[path] = self._moved_here(path, of_size[file_state(path)[:1]])
        taken = {output.name_key(entry.output) for entry in found.values() if entry is not None}
        taken |= self._names()
        pairs = []
        for path, name in zip(recordings, preferred, strict=True):
            entry = found[path]
            if entry is None:
                target = self._free_name(path, name, taken)
            elif self._is_there(entry):
                continue
            else:
                target = self._chosen(entry.output)
            taken.add(output.name_key(target))
            pairs.append((path, target))
        return pairs

    def output_name(self, recording: RecordingIdentity, name: str) -> str | None:
        """Return the name of the output of one recording, as `pending`, but ``name`` is no other
        recording's; `None` if its transcript exists."""
        entry = self._by_path.get(recording.path)
        path = Path(recording.path)
        if (
            entry is None
            and _composed(name) in self._listed()
            and output.is_written(self._folder / name, path)
        ):
            # Another program, or an earlier version, wrote it: it may be edited.
            entry = ManifestEntry(name, self._format, recording, sha256="")
            self._append(entry)
        if entry is not None and entry.recording.sha256 == recording.sha256:
            if entry.recording != recording:
                self._append(replace(entry, recording=recording))
            return None if self._is_there(entry) else self._chosen(entry.output)
        return self._free_name(recording.path, name, self._names())

    def has(self, name: str) -> bool:
        """Return whether the folder has a file of that name."""
        return os.path.lexists(self._folder / name)

    def write(self, name: str, text: str, recording: RecordingIdentity | None) -> str:
        """Write a transcript, and note of which recording it is, unless that is not known. Return
        its name: the next free one if another command wrote a file of that name meanwhile.

        Raises:
            OSError: it cannot be written.
        """
        self._load()
        entry, key = self._by_output.get(name), output.name_key(name)
        if (entry is not None and _is_same(entry.recording, recording)) or (
            key in self._replaced and self._replaced[key] == entry
        ):
            output.write_atomically(self._folder / name, text)
        else:
            for free in output.numbered_names(name):
                with suppress(FileExistsError):
                    output.write_new(self._folder / free, text)
                    name = free
                    break
        if recording is not None:
            digest = hashlib.sha256(output.encode_text(text)).hexdigest()
            self._append(ManifestEntry(name, self._format, recording, digest))
        return self._chosen(name)

    def _adopt(self, recordings: Sequence[Path], names: Sequence[str]) -> None:
        """Note the transcripts that exist; they may be edited."""
        wanted, there = Counter(map(output.name_key, names)), self._listed()
        found = [
            ManifestEntry(name, self._format, recording, sha256="")
            for path, name in zip(recordings, names, strict=True)
            if wanted[output.name_key(name)] == 1
            and _composed(name) in there
            and output.is_written(self._folder / name, path)
            and (recording := identify(path)) is not None
        ]
        for entry in found:
            self._append(entry)

    def _of_recording(self, path: Path) -> ManifestEntry | None:
        """Return the entry of that path, if it is of the same content."""
        entry = self._by_path.get(os.path.abspath(path))
        if entry is None or entry.recording.state == file_state(path):
            return entry
        return self._of_content(path, [entry])

    def _moved_here(
        self, path: Path, candidate_entries: list[ManifestEntry]
    ) -> ManifestEntry | None:
        """Remove and return an entry of the same content, whose path no longer has it."""
        gone = [
            one
            for one in candidate_entries
            if file_state(one.recording.path) != one.recording.state
        ]
        found = self._of_content(path, gone)
        if found is not None:
            candidate_entries[:] = [one for one in candidate_entries if one.output != found.output]
        return found

    def _of_content(self, path: Path, entries: Sequence[ManifestEntry]) -> ManifestEntry | None:
        """Return the first entry that is of the content of ``path``, and note that path."""
        recording = identify(path) if entries else None
        for entry in entries:
            if recording is not None and entry.recording.sha256 == recording.sha256:
                self._append(found := replace(entry, recording=recording))
                return found
        return None

    def _free_name(self, path: str | Path, name: str, taken: Container[str]) -> str:
        """Return ``name``, or the first numbered one, that is not in ``taken`` or that of an
        unedited transcript of other content of ``path``."""
        outdated = self._by_path.get(os.path.abspath(path))
        reused = "" if outdated is None or self._was_edited(outdated) else outdated.output
        names = output.numbered_names(name)
        free = next(one for one in names if one == reused or output.name_key(one) not in taken)
        return self._chosen(free)

    def _chosen(self, name: str) -> str:
        """Return the name for an output, and note whether it replaces a file."""
        if self.has(name):
            self._replaced[output.name_key(name)] = self._by_output.get(name)
        else:
            self._replaced.pop(output.name_key(name), None)
        return name

    def _names(self) -> set[str]:
        return {output.name_key(name) for name in os.listdir(self._folder)}

    def _listed(self) -> set[str]:
        """Return the names in the folder. A file found by a name may have another: a namesake's on
        a disk that ignores case."""
        return {_composed(name) for name in os.listdir(self._folder)}

    def _is_there(self, entry: ManifestEntry) -> bool:
        """Return whether a transcript exists. An empty file is what a crash or a full disk leaves
        of one, unless nothing was said."""
        try:
            status = os.stat(self._folder / entry.output)
        except OSError:
            return False
        return status.st_size > 0 or entry.sha256 == hashlib.sha256().hexdigest()

    def _was_edited(self, entry: ManifestEntry) -> bool:
        try:
            text = (self._folder / entry.output).read_bytes()
        except OSError:
            return True
        return hashlib.sha256(text).hexdigest() != entry.sha256

    def _append(self, entry: ManifestEntry) -> None:
        # One write, so that no line of another command is in between; it begins with the end of a
        # line that was not written to its end.
        with open(self._folder / MANIFEST, "ab") as file:
            file.write(b"\n" + json.dumps(asdict(entry)).encode() + b"\n")
        self._keep(entry)

    def _load(self) -> None:
        """Read what was appended to the manifest, also by other commands, since it was last read;
        all of it if it is another file."""
        try:
            with open(self._folder / MANIFEST, "rb") as file:
                status = os.fstat(file.fileno())
                file.seek(self._read - len(self._last_line))
                # A file that is made anew can have the same inode.
                known = file.read(len(self._last_line)) == self._last_line
                if status.st_ino != self._inode or not known:
                    self._forget(status.st_ino)
                    file.seek(0)
                lines, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            self._forget()
            return
        if end:
            self._read += len(lines + end)
            self._last_line = lines.rpartition(b"\n")[2] + end
        for entry in _entries(lines):
            self._keep(entry)

    def _forget(self, inode: int = 0) -> None:
        self._inode, self._read, self._last_line = inode, 0, b""
        self._by_output.clear()
        self._by_path.clear()

    def _keep(self, entry: ManifestEntry) -> None:
        before = self._by_output.get(entry.output)
        self._by_output[entry.output] = entry
        if before is not None and self._by_path.get(before.recording.path) is before:
            del self._by_path[before.recording.path]
        if entry.format == self._format:
            self._by_path[entry.recording.path] = entry


def _composed(name: str) -> str:
    """Return a name as it is typed: macOS decomposes accents."""
    return unicodedata.normalize("NFC", name)


def _is_same(identity: RecordingIdentity, other_identity: RecordingIdentity | None) -> bool:
    return other_identity is not None and (identity.path, identity.sha256) == (
        other_identity.path,
        other_identity.sha256,
    )


def _entries(lines: bytes) -> Iterator[ManifestEntry]:
    """Yield the entries of a manifest; a line that cannot be understood is left out."""
    for line in lines.splitlines():
        try:
            yield from_plain(ManifestEntry, json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue  # the process was killed while it wrote
