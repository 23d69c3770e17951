"""What is said live, as it is shown: lines that stay, and one that changes, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sidecar.interfaces.live_events import Final, Heard, Noticed, Partial
from sidecar.live.sessions.told import Numbered
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.people import SpeakerVoice
from sidecar.transcripts.transcript import Segment, Transcript

if TYPE_CHECKING:
    from rich.live import Live

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Of speakers, in the order in which they come."""
METER = 10
"""Characters of the level meter."""


class Show(Protocol):
    """Somewhere to look."""

    def event(self, numbered: Numbered) -> None:
        """Something was said."""

    def level(self, loud: float) -> None:
        """How loud it is now, 0 to 1."""


def line_of(segment: Segment, name: str | None = None) -> str:
    """A line of text, as the format `text` has it; ``name``: who its speaker is."""
    speaker = segment.speaker
    one = Transcript((segment,), "", segment.end, "", "", diarized=speaker is not None)
    if speaker is not None and name is not None:
        one = replace(one, voices=(SpeakerVoice(speaker, 0.0, name=name),))
    return transcript_formats.render(one, "text")


@contextmanager
def captions(fmt: str, write: Callable[[str], None], *, shown: bool) -> Iterator[Show]:
    """Tell ``write`` what a program reads as it comes: lines of `text`, events of `jsonl`.

    On a terminal people see it there, in colours, and not twice.
    """
    as_text = fmt == "text"
    terminal = sys.stdout if as_text and shown else sys.stderr
    lines = _Lines(fmt, write)
    if terminal is None or not terminal.isatty():
        yield lines
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=terminal)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Screen(live, None if as_text and shown else lines)


class _Lines:
    """For programs: whole lines, each when it stands."""

    def __init__(self, fmt: str, write: Callable[[str], None]) -> None:
        self._fmt, self._write = fmt, write

    def event(self, numbered: Numbered) -> None:
        from sidecar.api.live_dialect import event_message

        event = numbered.event
        if self._fmt == "jsonl" and not isinstance(event, Heard):
            self._write(event_message(numbered) + "\n")
        elif self._fmt == "text" and isinstance(event, Final):
            self._write(line_of(event.segment, event.name))

    def level(self, loud: float) -> None:
        pass


class _Screen:
    """For people: lines that stay, below them how loud it is and what seems to be said."""

    def __init__(self, live: Live, lines: _Lines | None) -> None:
        self._live, self._lines = live, lines
        self._partial = ""
        self._loud = 0.0

    def event(self, numbered: Numbered) -> None:
        from rich.text import Text

        match numbered.event:
            case Partial() as partial:
                self._partial = f"{partial.text} {partial.tail}".strip()
            case Final(segment=segment, name=name):
                self._partial = ""
                colour = COLOURS[(segment.speaker or 0) % len(COLOURS)]
                style = colour if segment.speaker is not None else ""
                self._live.console.print(Text(line_of(segment, name).rstrip("\n"), style=style))
            case Noticed(notice):
                self._live.console.print(Text(notice.message, style="dim italic"))
        if self._lines is not None:
            self._lines.event(numbered)
        self._draw()

    def level(self, loud: float) -> None:
        self._loud = max(loud, self._loud * 0.7)
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        filled = round(min(1.0, self._loud**0.5) * METER)
        room = max(0, self._live.console.width - METER - 2)
        seen = self._partial[-room:] if room else ""
        meter = Text("█" * filled + "·" * (METER - filled), style="green")
        self._live.update(Text.assemble(meter, " ", (seen, "dim")), refresh=True)
