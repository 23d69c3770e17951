"""What a measurement comes to, as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.cli.bounds import Bound
from sidecar.cli.figures import NAMES, ratios
from sidecar.cli.rendering import render
from sidecar.cli.sweep import Row
from sidecar.cli.visit import Value


def results(found: Sequence[Sequence[Row]], format: str) -> str:
    """Of each number of sessions the rows of its sides.

    As ``markdown`` a table for each number, with a line for each figure; else a line for each side.
    """
    if format == "markdown":
        return "\n".join(_table(rows) for rows in found)
    lines: list[Mapping[str, Value]] = [
        {"side": row.side.name, **row.figures} for rows in found for row in rows
    ]
    return render(lines, format)


def logs(found: Sequence[Sequence[Row]], most: int, format: str) -> str:
    """A line for each session, of at most ``most`` in each row (0: of all)."""
    lines = [
        visit.row(row.side.name, row.sessions)
        for rows in found
        for row in rows
        for visit in row.visits[: most or None]
    ]
    return render(lines, format)


def broken(found: Sequence[Sequence[Row]], bounds: Sequence[Bound]) -> list[str]:
    """Which bounds do not hold for the first side, and where."""
    said = []
    for first, *others in found:
        other = others[0].figures if others else None
        for bound in bounds:
            how = bound.broken(first.figures, other)
            if how is not None:
                said.append(f"with {first.sessions} at once {how}")
    return said


def summed_up(row: Row) -> str:
    """A row in a line, for who waits for the rest."""
    figures = row.figures
    spread = ", ".join(
        f"{name} {figures[f'{name}_p50']:.3f}/{figures[f'{name}_p95']:.3f} s"
        for name in ("first", "final")
        if figures[f"{name}_p50"] is not None
    )
    codes = sorted({one.error_code for one in row.visits if one.error_code})
    wrong = f"; {figures['errors']:g} failed ({', '.join(codes)})" if codes else ""
    said = f"{spread} (p50/p95)" if spread else f"{figures['held']:g} held"
    return f"{row.sessions} x {row.side.name}: {said}{wrong}"


def _table(rows: Sequence[Row]) -> str:
    lines: list[dict[str, Value]] = []
    compared = ratios(rows[0].figures, rows[1].figures) if len(rows) > 1 else {}
    for name in NAMES:
        line: dict[str, Value] = {"figure": name}
        for row in rows:
            line[row.side.name] = row.figures[name]
        if compared:
            line["ratio"] = compared[name]
        lines.append(line)
    return render(lines, "markdown")
