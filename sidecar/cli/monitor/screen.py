"""The monitor as an application on the terminal, by textual."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from rich.table import Table
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, ItemGrid, VerticalScroll
from textual.widgets import Footer, Header, Sparkline, Static

from sidecar.cli.monitor.picture import Camera, Picture
from sidecar.cli.monitor.view import Section, sections

REMEMBERED = 120
"""Pictures whose sessions and jobs are drawn."""
TRENDS = {"sessions": ("live", "sessions"), "waiting": ("jobs", "waiting")}
"""What is drawn, and where it is in the metrics."""


class Monitor(App[None]):
    """Sections side by side, looked at each ``interval_s``."""

    TITLE = "vibevoice-asr"
    CSS = """
    .trend { height: 5; border: round $primary; width: 1fr; }
    #trends { height: 5; }
    ItemGrid { height: auto; min-height: 5; grid-gutter: 0; }
    .section { border: round $primary; height: auto; padding: 0 1; }
    .section.warns { border: round $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("p", "pause", "Pause"),
        ("r", "look", "Look now"),
    ]

    def __init__(self, camera: Camera, interval_s: float) -> None:
        super().__init__()
        self._camera, self._interval_s = camera, interval_s
        self._before: Picture | None = None
        self._paused = False
        self._trends = {name: deque[float](maxlen=REMEMBERED) for name in TRENDS}

    def compose(self) -> ComposeResult:
        """What is on it from the beginning; sections come with the first picture."""
        yield Header()
        with Horizontal(id="trends"):
            for name in TRENDS:
                trend = Sparkline([], id=f"trend-{name}", classes="trend")
                trend.border_title = name
                yield trend
        with VerticalScroll():
            yield ItemGrid(min_column_width=44, id="sections")
        yield Footer()

    async def on_mount(self) -> None:
        """Look at once, and then by the clock."""
        await self.action_look()
        self.set_interval(self._interval_s, self._look)

    async def action_look(self) -> None:
        """Look now, also where it pauses."""
        picture = await self._camera.picture()
        self._draw_trends(picture)
        await self._draw(sections(picture, self._before))
        self._before = picture
        self._say(picture)

    def action_pause(self) -> None:
        """Stay with what is shown, or go on."""
        self._paused = not self._paused
        if self._before is not None:
            self._say(self._before)

    async def _look(self) -> None:
        if not self._paused:
            await self.action_look()

    def _say(self, picture: Picture) -> None:
        state = picture.address if picture.answers else f"{picture.address} does not answer"
        self.sub_title = f"{state}{', paused' if self._paused else ''}"

    def _draw_trends(self, picture: Picture) -> None:
        own = picture.metrics.get("vibevoice")
        for name, (part, value) in TRENDS.items():
            here = own.get(part, {}).get(value, 0) if isinstance(own, dict) else 0
            self._trends[name].append(float(here))
            trend = self.query_one(f"#trend-{name}", Sparkline)
            trend.data = list(self._trends[name])
            trend.border_title = f"{name}: {here:g}"

    async def _draw(self, found: list[Section]) -> None:
        """Panels stay where they are as long as their sections are there."""
        grid = self.query_one("#sections", ItemGrid)
        panels = {str(panel.name): panel for panel in grid.query(Static)}
        for gone in set(panels) - {section.title for section in found}:
            await panels.pop(gone).remove()
        for section in found:
            panel = panels.get(section.title)
            if panel is None:
                panel = Static(name=section.title, classes="section")
                panel.border_title = section.title
                await grid.mount(panel)
            panel.set_class(section.warns, "warns")
            panel.update(_drawn(section))


def _drawn(section: Section) -> Table:
    drawn = Table.grid(padding=(0, 2))
    for name, value in section.rows:
        drawn.add_row(name, value)
    return drawn
