"""Stretches of speech into windows of half a minute. Pure.

The model hears thirty seconds, and padding costs as much as sound: so a window is filled with
several stretches where they are short. A silence of a second stays in, of a longer one what is
next to speech.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sidecar.transcripts.speaker_turns import Turn

WINDOW_S = 30.0
"""What the model was trained on."""
FILLED_S = 27.0
"""A window with so much in it ends before a stretch that has no room; one with less takes a part
of it."""
SEARCH_S = 4.0
"""Where a stretch has to be cut, this is in the last so many seconds that have room."""
CONTEXT_S = 0.3
"""Of the silence around speech is heard with it."""
KEPT_S = 1.0
"""A shorter silence is heard in whole."""
SETTLED_S = 0.5
"""A stretch that ended so long ago has ended."""

Span = tuple[float, float]
Cut = Callable[[float, float], float]
"""The best place to cut between two times; seconds from the start of the recording."""


@dataclass(frozen=True, slots=True)
class Window:
    """Pieces of a recording that are heard at once, one after the other; ``end_s`` is where it
    stands when they are."""

    pieces: tuple[Span, ...]
    end_s: float

    @property
    def length_s(self) -> float:
        """Of all pieces."""
        return sum(end - start for start, end in self.pieces)

    def placed(self, start: float, end: float) -> Span:
        """A span of the window on the recording's clock, inside the piece that has its middle."""
        middle, passed = (start + end) / 2, 0.0
        for number, (begin, stop) in enumerate(self.pieces):
            if middle < passed + stop - begin or number == len(self.pieces) - 1:
                shift = begin - passed
                return min(max(start + shift, begin), stop), min(max(end + shift, begin), stop)
            passed += stop - begin
        return start, end


class Packing:
    """Give it what is known of a recording, take the windows that are full."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self.done_s = 0.0
        """All before is in a window, or nobody speaks there."""
        self.needed_s = 0.0
        """No later window reaches back beyond this."""

    def take(self, turns: Iterable[Turn], heard_s: float) -> list[Window]:
        """The windows that will not change any more; of all that is left where ``heard_s`` is
        infinite. Where somebody speaks is final up to there."""
        stretches = [
            (max(start, self.done_s), min(end, heard_s))
            for start, end in stretches_of(turns)
            if end > self.done_s and start < heard_s
        ]
        found: list[Window] = []
        while (window := self._next(stretches, heard_s)) is not None:
            found.append(window)
            self.done_s = window.end_s
            stretches = [(max(start, window.end_s), end) for start, end in stretches]
            stretches = [(start, end) for start, end in stretches if end - start > 0]
        first = stretches[0][0] if stretches else heard_s
        self.needed_s = max(0.0, min(first, heard_s) - CONTEXT_S)
        return found

    def _next(self, stretches: Sequence[Span], heard_s: float) -> Window | None:
        taken: list[Span] = []
        for number, (start, end) in enumerate(stretches):
            pieces = self._pieces([*taken, (start, end)], stretches[number + 1 :])
            if _length(pieces) <= WINDOW_S:
                if end + SETTLED_S > heard_s:
                    return None
                taken.append((start, end))
                continue
            if taken and _length(self._pieces(taken, stretches[number:])) >= FILLED_S:
                break
            # What the stretch may have of the window, with the silence before it.
            room = WINDOW_S - (_length(pieces) - (end - start)) - CONTEXT_S
            if room < SEARCH_S:
                break
            cut = self._cut(start + max(room - SEARCH_S, room / 2), start + room)
            return Window(tuple(self._pieces([*taken, (start, cut)], [(cut, end)])), cut)
        else:
            if heard_s != float("inf"):
                return None
        if not taken:
            return None
        rest = stretches[len(taken) :]
        return Window(tuple(self._pieces(taken, rest)), taken[-1][1])

    def _pieces(self, taken: Sequence[Span], rest: Sequence[Span]) -> list[Span]:
        """The stretches with some silence around them; no silence belongs to two windows."""
        found: list[Span] = []
        before = self.done_s
        for number, (start, end) in enumerate(taken):
            later = [*taken[number + 1 :], *rest][:1]
            after = later[0][0] if later else end + 2 * CONTEXT_S
            begin = max(start - CONTEXT_S, 0.0, (before + start) / 2 if before else 0.0)
            if start == self.done_s:
                begin = start
            stop = min(end + CONTEXT_S, (end + after) / 2)
            if found and start - before <= KEPT_S:
                found[-1] = found[-1][0], stop
            else:
                found.append((begin, stop))
            before = end
        return found


def stretches_of(turns: Iterable[Turn]) -> list[Span]:
    """Where anybody speaks, in order."""
    found: list[Span] = []
    for turn in sorted(turns, key=lambda turn: turn.start):
        if found and turn.start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], turn.end)
        else:
            found.append((turn.start, turn.end))
    return found


def _length(pieces: Iterable[Span]) -> float:
    return sum(end - start for start, end in pieces)
