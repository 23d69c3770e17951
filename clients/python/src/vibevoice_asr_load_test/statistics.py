"""Load test statistics, bounds and tables. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from vibevoice_asr_load_test import LoadTestInvalid

Value: TypeAlias = str | float | None
"""Value of a cell: text, a number, or `None` if it is unknown."""
SUCCESS = "OK"
DECODE = ("buffer_wait", "queue_wait", "inference", "response_emit", "total")
"""Times that the service reports, as far as a protocol has them: gRPC in its trailing metadata."""


@dataclass(slots=True)
class LoadTestUtterance:
    """One utterance, with the times when it was sent and answered, in seconds of a monotonic clock.

    ``at_s`` and ``end_s``: its position in the session's audio, in seconds.
    """

    at_s: float
    began: float
    end_s: float = 0.0
    ended: float | None = None
    first: float | None = None
    final: float | None = None


@dataclass(slots=True)
class LoadTestSession:
    """One session; times in seconds of a monotonic clock."""

    session_id: str
    error_code: str = ""
    """Stable code of an error, or what the protocol sends instead; "" if the session succeeded."""
    begun: float = 0.0
    sent: float | None = None
    """Time when the last audio was sent."""
    ended: float = 0.0
    responses: int = 0
    finals: int = 0
    turns: list[LoadTestUtterance] = field(default_factory=list)
    decode: dict[str, float] = field(default_factory=dict)
    """By the names of `DECODE`."""
    pace: list[float] = field(default_factory=list)
    """Seconds that it took per second of audio: of the session, or of each recording."""
    sound_s: float = 0.0
    """Seconds of audio that were sent and answered."""
    late_s: float = 0.0
    """Delay behind the schedule in seconds, for which this machine is the cause and not the
    service."""

    @property
    def first_s(self) -> list[float]:
        """Return the seconds from the start of each utterance to its first text."""
        return [one.first - one.began for one in self.turns if one.first is not None]

    @property
    def final_s(self) -> list[float]:
        """Return the seconds from the end of each utterance to its last final.

        A final that came while the utterance was still being sent counts 0.
        """
        return [
            max(0.0, one.final - one.ended)
            for one in self.turns
            if one.final is not None and one.ended is not None
        ]

    @property
    def lost(self) -> int:
        """Return the number of utterances without a final."""
        return sum(one.final is None for one in self.turns)

    def turn_at(self, position_s: float) -> LoadTestUtterance | None:
        """Return the utterance at a position of the session's audio: the last that begins before
        it."""
        found = None
        for one in self.turns:
            if found is None or one.at_s <= position_s:
                found = one
        return found

    def heard(self, turn: LoadTestUtterance | None, now: float, *, final: bool) -> None:
        """Record that text of an utterance was received."""
        self.responses += 1
        self.finals += final
        if turn is None:
            return
        if turn.first is None:
            turn.first = now
        if final:
            turn.final = now

    def row(self, side: str, sessions: int) -> Mapping[str, Value]:
        """Return the session as a line of a log; the first thirteen columns are those of a load
        test that operators of gRPC servers know."""
        sent = self.sent if self.sent is not None else self.ended
        firsts = [one.first for one in self.turns if one.first is not None]
        finals = self.final_s
        decode = {f"decode_{name}_seconds": self.decode.get(name) for name in DECODE}
        return {
            "session_id": self.session_id,
            "responses": self.responses,
            "success": "false" if self.error_code else "true",
            "error_code": self.error_code or SUCCESS,
            "send_duration_seconds": sent - self.begun,
            "first_response_seconds": min(firsts) - self.begun if firsts else None,
            "tail_duration_seconds": self.ended - sent,
            "total_duration_seconds": self.ended - self.begun,
            **decode,
            "side": side,
            "sessions": sessions,
            "turns": len(self.turns),
            "lost": self.lost,
            "slowest_final_seconds": max(finals) if finals else None,
        }


Figures: TypeAlias = Mapping[str, float | None]
"""Figures by name, in the order of `NAMES`; `None` if unknown."""
CENTILES = (50, 95, 99)
SPREAD = ("first", "final", "rtf")
"""Figures with percentiles. `first`: seconds to the first text. `final`: seconds to the final text,
from the end of an utterance or the start of a recording. `rtf`: seconds that it took per second of
audio."""
NAMES = (
    "sessions",
    "held",
    "errors",
    "turns",
    "lost",
    *(f"{name}_p{centile}" for name in SPREAD for centile in CENTILES),
    "audio_per_s",
    "service_cpu",
    "engine_cpu",
    "other_cpu",
    "late_p95",
)
WHAT = {
    "sessions": "concurrent sessions, or clients",
    "held": "sessions that succeeded",
    "errors": "sessions that failed",
    "turns": "utterances, or recordings",
    "lost": "utterances without a final",
    "first": "seconds from the beginning of an utterance to its first words",
    "final": "seconds from its end to its final words; of a recording, from its sending",
    "rtf": "processing seconds per second of audio",
    "audio_per_s": "seconds of audio processed per second",
    "service_cpu": "share of a core used by the service process",
    "engine_cpu": "share of a core used by worker processes",
    "other_cpu": "cores used by other programs of this machine",
    "late": "seconds that this machine sent too late, which is not the service's fault",
}


def percentile(values: Sequence[float], which: int) -> float | None:
    """Return the value below which ``which`` percent of ``values`` lie; `None` if there are no
    values."""
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[which - 1]


def figures_of(
    visits: Sequence[LoadTestSession], lasted_s: float, cpu: tuple[float, float, float] | None
) -> Figures:
    """Return the figures of ``visits``, which took ``lasted_s`` together.

    ``cpu``: shares of a core that the service, its engines and other programs used; `None` if the
    service is on another machine.
    """
    kinds = {
        "first": [value for one in visits for value in one.first_s],
        "final": [value for one in visits for value in one.final_s],
        "rtf": [value for one in visits for value in one.pace],
    }
    spread = {
        f"{name}_p{which}": percentile(values, which)
        for name, values in kinds.items()
        for which in CENTILES
    }
    sound_s = sum(one.sound_s for one in visits)
    failed = sum(bool(one.error_code) for one in visits)
    return {
        "sessions": len(visits),
        "held": len(visits) - failed,
        "errors": failed,
        "turns": sum(len(one.turns) for one in visits),
        "lost": sum(one.lost for one in visits),
        **spread,
        "audio_per_s": sound_s / lasted_s if lasted_s else None,
        "service_cpu": cpu[0] if cpu else None,
        "engine_cpu": cpu[1] if cpu else None,
        "other_cpu": cpu[2] if cpu else None,
        "late_p95": percentile([one.late_s for one in visits], 95),
    }


def ratios(these: Figures, those: Figures) -> Figures:
    """Return the ratio of each figure of ``these`` to that of ``those``; `None` if it is
    undefined."""
    found: dict[str, float | None] = {}
    for name, value in these.items():
        other = those.get(name)
        found[name] = value / other if value is not None and other else None
    return found


_SAID = re.compile(r"\s*(\w+)\s*([<>])\s*(\d+(?:\.\d+)?|\.\d+)\s*+(x?)\s*")


@dataclass(frozen=True, slots=True)
class LoadTestBound:
    """Bound of a figure, which fails above or below ``limit``; ``times``: a multiple of the other
    target's figure."""

    figure: str
    above: bool
    limit: float
    times: bool

    def broken(self, figures: Figures, other: Figures | None) -> str | None:
        """Return how the bound is exceeded, or `None` if it holds. An unknown figure exceeds any
        bound."""
        value = figures[self.figure]
        against = other[self.figure] if self.times and other is not None else None
        if value is None or (self.times and against is None):
            return f"{self} cannot be computed"
        limit = self.limit * (against if against is not None else 1.0)
        if not (value > limit if self.above else value < limit):
            return None
        beside = f", {against:.3f} on the other side" if against is not None else ""
        return f"{self}: {value:.3f}{beside}"

    def __str__(self) -> str:
        return f"{self.figure}{'>' if self.above else '<'}{self.limit:g}{'x' * self.times}"


def parse_bound(text: str, *, compared: bool) -> LoadTestBound:
    """Return the bound in ``text``; ``compared``: whether there is a second target.

    Raises:
        LoadTestInvalid: it is no bound, names an unknown figure, or a second target if there is
            none.
    """
    said = _SAID.fullmatch(text)
    if said is None:
        raise LoadTestInvalid(
            f"'{text}' is not a bound.",
            hint="Use a bound such as 'final_p95>0.8' (seconds) or 'final_p95>1.2x'.",
        )
    figure, sign, limit, times = said.groups()
    if figure not in NAMES:
        raise LoadTestInvalid(
            f"There is no figure '{figure}'.", hint=f"Use one of: {', '.join(NAMES)}."
        )
    if times and not compared:
        raise LoadTestInvalid(
            f"'{text}' compares with a second service, and none is named.",
            hint="Name a second service with --against, or write the bound without 'x'.",
        )
    return LoadTestBound(figure, sign == ">", float(limit), bool(times))


FORMATS = ("jsonl", "csv", "tsv", "markdown")
ENDINGS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".md": "markdown"}
DIGITS = 3


def format_of(given: str | None, path: Path | None) -> str:
    """Return the named format, or else that of the file's suffix; `jsonl` for others.

    Raises:
        LoadTestInvalid: there is no such format.
    """
    if given is None:
        return ENDINGS.get(path.suffix.lower(), FORMATS[0]) if path is not None else FORMATS[0]
    if given not in FORMATS:
        raise LoadTestInvalid(
            f"There is no format '{given}'.", hint=f"Use one of: {', '.join(FORMATS)}."
        )
    return given


def render(rows: Sequence[Mapping[str, Value]], format: str) -> str:
    """Return ``rows``, which all have the same columns, as text that ends with a line feed."""
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
    """Return a row for JSON: success as a boolean, numbers with as many digits as in other
    formats."""
    said = {"true": True, "false": False}
    return {
        name: round(value, DIGITS)
        if isinstance(value, float)
        else said.get(value, value)
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }
