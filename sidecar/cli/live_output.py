"""Output of the command `live`; a file has what was said so far whenever the command dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar import files
from sidecar.cli import output
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.transcript import Transcript

EVENTS = "jsonl"
"""Format of every event as it comes; all others are formats of transcripts."""


class LiveOutput:
    """Output in a format: standard output, or the file ``path``. ``name``: of the recording.

    A file gets lines of text as they are said, and is replaced by the transcript at the end: a
    transcript of hours takes a second to render.
    """

    def __init__(self, path: Path | None, fmt: str, name: str) -> None:
        self._path, self._fmt, self._name = path, fmt, name
        self._grows = path is not None and not output.is_device(path)
        self._lines: list[str] = []
        self._written = bytearray()
        """What is in the file, unless somebody else writes to it."""
        self.line_format = EVENTS if fmt == EVENTS else "text" if path is not None else fmt
        """Format of the lines that `add` gets."""

    def add(self, line: str) -> None:
        """Write a line of `text` or `jsonl`."""
        if self._path is None:
            output.print_text(line)
            return
        self._lines.append(line)
        if self._grows:
            data = output.encode_text(line)
            with suppress(OSError), open(self._path, "ab", buffering=0) as file:  # `finish` says it
                self._written += data[: file.write(data)]

    def finish(self, transcript: Transcript) -> None:
        """Write the transcript, to another file if somebody has written to this one, or print it
        if its file cannot be written: nobody says it again.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is None and self._fmt in ("text", EVENTS):
            return
        text = "".join(self._lines)
        if self._fmt != EVENTS:
            text = transcript_formats.render_transcript(transcript, self._fmt, self._name)
        if self._path is None:
            output.print_text(text)
            return
        grows, self._grows = self._grows, False
        try:
            edited = grows and self._path.exists() and self._path.read_bytes() != self._written
            path = output.new_file(self._path) if edited else self._path
            output.write_atomically(path, text)
        except OSError:
            output.print_text(text)
            raise

    def leave(self) -> None:
        """Delete the file of a session that failed before a word; not what somebody wrote to it."""
        if self._path is not None and self._grows and not self._lines:
            with suppress(OSError):
                if not self._path.stat().st_size:
                    files.remove(self._path)


@contextmanager
def open_output(path: Path | None, fmt: str, name: str) -> Iterator[LiveOutput]:
    """Open the output; a file is a new one (`output.new_file`).

    Raises:
        OSError: the file cannot be written.
    """
    opened = LiveOutput(None if path is None else output.new_file(path), fmt, name)
    try:
        yield opened
    finally:
        opened.leave()
