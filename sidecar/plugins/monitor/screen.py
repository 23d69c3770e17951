"""Textual application of `monitor`. Imports textual."""

from collections import deque
from typing import ClassVar

from rich.table import Table
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, ItemGrid, VerticalScroll
from textual.widgets import Footer, Header, Sparkline, Static

from sidecar.plugins.monitor.sections import (
    MonitorClient,
    MonitorSection,
    MonitorSnapshot,
    sections,
)

REMEMBERED = 120
"""Number of snapshots in a sparkline."""
TRENDS = {"sessions": ("live", "sessions"), "waiting": ("jobs", "waiting")}
"""Sparklines, and their paths in the metrics."""


class MonitorApp(App[None]):
    """Sections side by side, refreshed every ``interval_s`` seconds."""

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
        ("r", "fetch", "Look now"),
    ]

    def __init__(self, client: MonitorClient, interval_s: float) -> None:
        super().__init__()
        self._client, self._interval_s = client, interval_s
        self._snapshot: MonitorSnapshot | None = None
        self._paused = self.fetching = False
        self._grid = ItemGrid(min_column_width=44, id="sections")
        self._lines = {name: Sparkline([], classes="trend") for name in TRENDS}
        self._trends = {name: deque[float](maxlen=REMEMBERED) for name in TRENDS}

    def compose(self) -> ComposeResult:
        """Yield the first widgets; sections come with the first snapshot."""
        yield Header()
        with Horizontal(id="trends"):
            yield from self._lines.values()
        with VerticalScroll():
            yield self._grid
        yield Footer()

    def on_mount(self) -> None:
        """Refresh at once, and then at intervals."""
        self.action_fetch()
        self.set_interval(self._interval_s, self.refresh_unless_paused)

    def action_fetch(self) -> None:
        """Refresh now, even if paused. It runs in the background, and ends with the application."""
        if not self.fetching:
            self.fetching = True
            self.run_worker(self._fetch())

    def action_pause(self) -> None:
        """Pause or resume the display."""
        self._paused = not self._paused
        if self._snapshot is not None:
            self._show_state(self._snapshot)

    def refresh_unless_paused(self) -> None:
        """Refresh at the end of an interval."""
        if not self._paused:
            self.action_fetch()

    async def _fetch(self) -> None:
        try:
            snapshot = await self._client.fetch_snapshot()
            if self._grid.is_attached:  # the application may have ended meanwhile
                previous, self._snapshot = self._snapshot, snapshot
                self._show_state(snapshot)
                self._draw_trends(snapshot)
                await self._draw(sections(snapshot, previous))
        finally:
            self.fetching = False

    def _show_state(self, snapshot: MonitorSnapshot) -> None:
        state = snapshot.address if snapshot.answers else f"{snapshot.address} does not answer"
        self.sub_title = f"{state}{', paused' if self._paused else ''}"

    def _draw_trends(self, snapshot: MonitorSnapshot) -> None:
        own = snapshot.metrics.get("vibevoice")
        for name, (part, value) in TRENDS.items():
            value_now = own.get(part, {}).get(value, 0) if isinstance(own, dict) else 0
            self._trends[name].append(float(value_now))
            line = self._lines[name]
            line.data = list(self._trends[name])
            line.border_title = f"{name}: {value_now:g}"

    async def _draw(self, shown_sections: list[MonitorSection]) -> None:
        """Update the panels; each keeps its position as long as its section exists."""
        panels = {str(panel.name): panel for panel in self._grid.query(Static)}
        for gone in set(panels) - {section.title for section in shown_sections}:
            await panels.pop(gone).remove()
        for section in shown_sections:
            panel = panels.get(section.title) or Static(name=section.title, classes="section")
            panel.border_title = section.title
            panel.set_class(section.warns, "warns")
            panel.update(_drawn(section))
            if not panel.is_attached:
                await self._grid.mount(panel)


def _drawn(section: MonitorSection) -> Table:
    drawn = Table.grid(padding=(0, 2))
    for name, value in section.rows:
        drawn.add_row(name, value)
    return drawn
