"""How far recordings are, on a terminal; nothing at all in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sidecar.cli.backends import Told

Bar = Callable[[str], AbstractContextManager[Told]]
"""A bar of this name, as long as it is open."""


@contextmanager
def bars() -> Iterator[Bar]:
    """Bars with the time left, one below the other, while somebody looks on."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda label: nullcontext(lambda stage, done, total: None)
        return
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # What goes to the same terminal goes above the bars; what goes elsewhere, there.
        redirect_stdout=sys.stdout.isatty(),
    ) as shown:

        @contextmanager
        def bar(label: str) -> Iterator[Told]:
            task, stage_shown = shown.add_task(label, total=None), ""

            def told(stage: str, done: float, total: float | None) -> None:
                nonlocal stage_shown
                if stage != stage_shown:
                    stage_shown = stage
                    said = label if stage == "running" else f"{label} ({stage})"
                    shown.reset(task, total=total, description=said)
                shown.update(task, completed=done, total=total)

            try:
                yield told
            finally:
                shown.remove_task(task)

        yield bar
