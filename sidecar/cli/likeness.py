"""What was told once and what is told now, held against each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from sidecar.interfaces.live_events import Final, LiveEvent, Partial


@dataclass(frozen=True, slots=True)
class Piece:
    """A final: seconds on the session's clock, and its text."""

    start: float
    end: float
    text: str

    def near(self, other: Piece, tolerance_s: float) -> bool:
        """Whether it was at the same time."""
        return max(abs(self.start - other.start), abs(self.end - other.end)) <= tolerance_s

    def __str__(self) -> str:
        return f"{self.start:.2f}–{self.end:.2f}  {self.text}"


@dataclass(frozen=True, slots=True)
class Likeness:
    """``lines``: both in one list, what differs marked; ``same`` of ``pieces`` finals are the same
    in text and time, and ``partials`` were so many then and now."""

    lines: Sequence[str]
    same: int
    pieces: int
    partials: tuple[int, int]

    @property
    def alike(self) -> bool:
        """Whether nothing differs; partials may."""
        return self.same == self.pieces


def pieces_of(told: Iterable[LiveEvent]) -> list[Piece]:
    """The finals, in the order of the sound."""
    finals = [event.segment for event in told if isinstance(event, Final)]
    pieces = [Piece(one.start, one.end, one.text) for one in finals]
    return sorted(pieces, key=lambda piece: (piece.start, piece.end))


def likeness(
    then: Sequence[LiveEvent],
    now: Sequence[LiveEvent],
    tolerance_s: float,
    *,
    finished: bool = True,
) -> Likeness:
    """Of what was told ``then`` and ``now``. Where the client of then had not ``finished``, it did
    not hear what was said last: what is told behind it now is no difference."""
    before, after = pieces_of(then), pieces_of(now)
    matcher = SequenceMatcher(
        None, [one.text for one in before], [one.text for one in after], autojunk=False
    )
    lines: list[str] = []
    same = pieces = 0
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pairs = list(zip(before[a:b], after[c:d], strict=True))
            same += sum(old.near(new, tolerance_s) for old, new in pairs)
            pieces += len(pairs)
            lines += [line for old, new in pairs for line in _pair(old, new, tolerance_s)]
            continue
        unheard = not finished and a == len(before)
        lines += [f"- {old}" for old in before[a:b]]
        lines += [f"{'>' if unheard else '+'} {new}" for new in after[c:d]]
        pieces += 0 if unheard else max(b - a, d - c)
    partials = [sum(isinstance(event, Partial) for event in told) for told in (then, now)]
    return Likeness(lines, same, pieces, (partials[0], partials[1]))


def _pair(old: Piece, new: Piece, tolerance_s: float) -> Iterator[str]:
    if old.near(new, tolerance_s):
        yield f"  {old}"
    else:
        yield f"~ {old.start:.2f}–{old.end:.2f} → {new}"
