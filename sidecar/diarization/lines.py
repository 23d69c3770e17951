"""Who holds the floor: turns, which may overlap, into lines of speech. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sidecar.transcripts.speaker_turns import Turn, dominant, shares

JOIN_S = 0.7
"""A voice that pauses for less goes on with its line, if nobody else speaks meanwhile. From 0.6 to
0.8 the errors are the same; shorter lines lose words (docs/performance.md)."""
LEAST_FLOOR_S = 0.5
"""Who goes on for less than this behind another's words has not taken the floor."""
LEAST_ASIDE_S = 1.0
"""Who speaks for less while another goes on gets no line: there is nothing to be understood."""
CONTEXT_S = 0.3
"""Of the silence around a line is heard with it; never what belongs to a neighbour."""


def lines_of(turns: Iterable[Turn]) -> list[Turn]:
    """The lines in ``turns``, by their begin: each is what one voice says with short pauses only.

    The floor goes to who outlasts its holder, in the middle of the time that both speak: those
    lines do not overlap. Who speaks between, while another goes on, has a line of its own beside.
    """
    floor, asides = _split(turns)
    asides = [turn for turn in asides if turn.end - turn.start >= LEAST_ASIDE_S]
    return sorted([*floor, *asides], key=lambda line: (line.start, line.end))


def floor_of(turns: Iterable[Turn]) -> list[Turn]:
    """The lines in ``turns`` that have the floor: one at any time."""
    return _split(turns)[0]


def _split(turns: Iterable[Turn]) -> tuple[list[Turn], list[Turn]]:
    """Who has the floor, and what is said beside."""
    floor: list[Turn] = []
    asides: list[Turn] = []
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        last = floor[-1] if floor else None
        if last is None or turn.start >= last.end:
            floor.append(turn)
        elif turn.label == last.label:
            floor[-1] = replace(last, end=max(last.end, turn.end))
        elif turn.end - last.end < LEAST_FLOOR_S:
            asides.append(turn)
        else:
            middle = (turn.start + last.end) / 2
            floor[-1] = replace(last, end=middle)
            floor.append(replace(turn, start=middle))
    return _joined(floor), asides


def _joined(floor: Iterable[Turn]) -> list[Turn]:
    found: list[Turn] = []
    for turn in floor:
        last = found[-1] if found else None
        if last is not None and last.label == turn.label and turn.start - last.end < JOIN_S:
            found[-1] = replace(last, end=turn.end)
        else:
            found.append(turn)
    return found


def heard_with(lines: Sequence[Turn], index: int) -> tuple[float, float]:
    """From where to where line number ``index`` is listened to, in seconds.

    Half of the silence to the next line belongs to each, up to `CONTEXT_S`.
    """
    line = lines[index]
    before = [other.end for other in lines[:index] if other.end <= line.start][-1:]
    after = [other.start for other in lines[index + 1 :] if other.start >= line.end][:1]
    start = max([line.start - CONTEXT_S, 0.0, *((line.start + end) / 2 for end in before)])
    end = min([line.end + CONTEXT_S, *((line.end + start) / 2 for start in after)])
    return start, end


class Floor:
    """Whose a line is, by the turns of the whole recording."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self._turns]
        self._longest = max((turn.end - turn.start for turn in self._turns), default=0.0)

    def voice(self, start: float, end: float, label: int) -> int:
        """Who speaks from ``start`` to ``end``, where it was ``label`` when that was looked at.

        That stands as long as it is the label of half of the time: two may speak at once.
        """
        first = bisect_left(self._starts, start - self._longest)
        near = self._turns[first : bisect_left(self._starts, end)]
        if 2 * shares(near, start, end).get(label, 0.0) >= end - start:
            return label
        found = dominant(near or self._turns, start, end)
        return label if found is None else found
