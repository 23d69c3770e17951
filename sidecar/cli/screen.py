"""Both sides of a conversation as they are shown: lines that stay, and what is still being said.

The latter on a terminal only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sidecar.cli import said

if TYPE_CHECKING:
    from rich.live import Live

YOU, MACHINE = "You", "Machine"
METER = 10
"""Characters of the level meter."""


class Show(Protocol):
    """Somewhere to look."""

    def ready(self) -> None:
        """It is the person's turn."""

    def level(self, loud: float) -> None:
        """How loud the person is, 0 to 1."""

    def saying(self, text: str) -> None:
        """What the person seems to have said so far."""

    def said(self, text: str, *, typed: bool) -> None:
        """What the person said."""

    def writing(self, text: str) -> None:
        """More of the answer."""

    def answered(self, text: str) -> None:
        """The answer as it was heard."""

    def close(self) -> None:
        """Nothing more is shown."""


@contextmanager
def shown(*, spoken: bool) -> Iterator[Show]:
    """On standard output; ``spoken``: there is a level to be seen, else people type."""
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(), auto_refresh=False, transient=True)
    screen = _Screen(live, spoken=spoken)
    try:
        yield screen
    finally:
        screen.close()


class _Lines:
    """For programs: whole lines, each when it stands."""

    def ready(self) -> None:
        pass

    def level(self, loud: float) -> None:
        pass

    def saying(self, text: str) -> None:
        pass

    def said(self, text: str, *, typed: bool) -> None:
        self._write(YOU, text)

    def writing(self, text: str) -> None:
        pass

    def answered(self, text: str) -> None:
        self._write(MACHINE, text)

    def close(self) -> None:
        pass

    def _write(self, who: str, text: str) -> None:
        said.print_text(f"{who}: {said.shown(' '.join(text.split()))}\n")


class _Screen:
    """For people: below the lines what either side is saying, and how loud it is."""

    def __init__(self, live: Live, *, spoken: bool) -> None:
        self._live, self._spoken = live, spoken
        self._loud, self._saying, self._writing = 0.0, "", ""

    def ready(self) -> None:
        if not self._spoken:
            self.close()
            self._live.console.print("> ", end="")

    def level(self, loud: float) -> None:
        self._loud = max(loud, self._loud * 0.7)
        self._draw()

    def saying(self, text: str) -> None:
        self._saying = text
        self._draw()

    def said(self, text: str, *, typed: bool) -> None:
        self._saying = ""
        if not typed:  # that stands there already
            self._print(YOU, text, "cyan")

    def writing(self, text: str) -> None:
        self._writing += text
        self._draw()

    def answered(self, text: str) -> None:
        self._writing = ""
        self._print(MACHINE, text, "magenta")

    def close(self) -> None:
        self._live.stop()

    def _print(self, who: str, text: str, style: str) -> None:
        from rich.text import Text

        self._draw()  # what was still being said is gone before it stands
        self._live.console.print(Text.assemble((f"{who}: ", "bold"), (said.shown(text), style)))

    def _draw(self) -> None:
        from rich.text import Text

        if not self._live.is_started:
            self._live.start()
        parts = []
        if self._spoken:
            filled = round(min(1.0, self._loud**0.5) * METER)
            parts.append(Text("█" * filled + "·" * (METER - filled) + " ", style="green"))
        parts.append(Text(said.shown(self._writing or self._saying), style="dim"))
        self._live.update(Text.assemble(*parts), refresh=True)
