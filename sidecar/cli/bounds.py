"""What must not be: `final_p95>0.8`, or `final_p95>1.2x` of the other side. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar import errors
from sidecar.cli.figures import NAMES, Figures

_SAID = re.compile(r"\s*(\w+)\s*([<>])\s*(\d+(?:\.\d+)?|\.\d+)\s*+(x?)\s*")


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure that fails above, or below, a limit; ``times``: of the other side's."""

    figure: str
    above: bool
    limit: float
    times: bool

    def broken(self, figures: Figures, other: Figures | None) -> str | None:
        """In words how it is broken; None if it is kept. What cannot be told keeps no bound."""
        value = figures[self.figure]
        against = other[self.figure] if self.times and other is not None else None
        if value is None or (self.times and against is None):
            return f"{self} cannot be told"
        limit = self.limit * (against if against is not None else 1.0)
        if not (value > limit if self.above else value < limit):
            return None
        beside = f", {against:.3f} on the other side" if against is not None else ""
        return f"{self}: {value:.3f}{beside}"

    def __str__(self) -> str:
        return f"{self.figure}{'>' if self.above else '<'}{self.limit:g}{'x' * self.times}"


def bound_of(text: str, *, compared: bool) -> Bound:
    """The bound that ``text`` says; ``compared``: whether there is another side.

    Raises:
        errors.FieldInvalid: it says none, names a figure that there is not, or the other side of
            none.
    """
    said = _SAID.fullmatch(text)
    if said is None:
        raise errors.FieldInvalid(
            f"'{text}' is no bound.", hint="Such as 'final_p95>0.8' (seconds) or 'final_p95>1.2x'."
        )
    figure, sign, limit, times = said.groups()
    if figure not in NAMES:
        raise errors.FieldInvalid(
            f"There is no figure '{figure}'.", hint=f"Use one of: {', '.join(NAMES)}."
        )
    if times and not compared:
        raise errors.FieldInvalid(
            f"'{text}' compares with another side, and there is none.",
            hint="Name it with --against, or give the limit without 'x'.",
        )
    return Bound(figure, sign == ">", float(limit), bool(times))
