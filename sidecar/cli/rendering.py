"""Rows as jsonl, csv, tsv, or a table of markdown. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sidecar import errors
from sidecar.cli.visit import Value

FORMATS = ("jsonl", "csv", "tsv", "markdown")
ENDINGS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".md": "markdown"}
DIGITS = 3


def format_of(given: str | None, path: Path | None) -> str:
    """The format that was named, or else the one that a file's ending means; `jsonl` of others.

    Raises:
        errors.FieldInvalid: there is none of that name.
    """
    if given is None:
        return ENDINGS.get(path.suffix.lower(), FORMATS[0]) if path is not None else FORMATS[0]
    if given not in FORMATS:
        raise errors.FieldInvalid(
            f"There is no format '{given}'.", hint=f"Use one of: {', '.join(FORMATS)}."
        )
    return given


def render(rows: Sequence[Mapping[str, Value]], format: str) -> str:
    """``rows``, which all have the same columns, with a line feed behind the last."""
    if format == "jsonl":
        return "".join(f"{json.dumps(_rounded(row))}\n" for row in rows)
    if not rows:
        return ""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    if format == "markdown":
        return _markdown(lines)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if format == "tsv" else ",", lineterminator="\n")
    writer.writerows(lines)
    return text.getvalue()


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        _line(cell.ljust(width) for cell, width in zip(one, widths, strict=True)) for one in lines
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|\n"
    return "".join([drawn[0], rule, *drawn[1:]])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    return str(value)


def _rounded(row: Mapping[str, Value]) -> dict[str, object]:
    """As JSON has it: success is no text there, and a number has as many digits as elsewhere."""
    said = {"true": True, "false": False}
    return {
        name: round(value, DIGITS)
        if isinstance(value, float)
        else said.get(value, value)
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }
