"""When sound goes to a client, and how much of it was heard by now. Pure: times come in.

Some clients queue whatever arrives and cannot be told to drop it: to them nothing is sent more than
`LEAD_S` ahead of the ear, so that a hush is one. Others have a message that clears what they have:
they get it as fast as they like, and what was heard is told by time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sidecar.speech.voice import Sound

LEAD_S = 0.15
"""So far ahead of the ear a client may be that cannot be told to be quiet."""
SHORTEST_S = 0.12
LONGEST_S = 0.25
"""Of a frame. Where one ends a browser's page may make a gap or lose a hundredth of a second, so
that it ends between two words if there is such a place."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Sound to be sent now; ``start`` is where it lies in the turn's sound."""

    turn: int
    pcm: bytes
    rate: int
    start: float


@dataclass(slots=True)
class _Stretch:
    """Sound that was not sent, and where words begin in it, in bytes."""

    sound: Sound
    at: int = 0
    borders: list[int] = field(default_factory=list)


class Pacer:
    """The sound of one turn after the other. ``clears``: the client can drop what it has."""

    def __init__(self, *, clears: bool = False) -> None:
        self._clears = clears
        self._turn = 0
        self._waiting: deque[_Stretch] = deque()
        self._piece, self._piece_start = -1, 0.0
        self._made = self._sent = 0.0
        self._heard, self._since = 0.0, 0.0
        self._paused = False

    @property
    def turn(self) -> int:
        """Whose sound it is."""
        return self._turn

    def begin(self, turn: int, now: float) -> None:
        """Another turn: what there was of the one before is gone."""
        self.__init__(clears=self._clears)  # type: ignore[misc]
        self._turn, self._since = turn, now

    def add(self, turn: int, piece: int, sound: Sound, now: float) -> None:
        """More sound behind all there is; dropped if it is of a turn that is over."""
        if turn != self._turn:
            return
        if piece != self._piece:
            self._piece, self._piece_start = piece, self._made
        self._settle(now)
        begin = self._made - self._piece_start
        marks = (mark.start - begin for mark in sound.marks)
        borders = [2 * round(start * sound.rate) for start in marks if start > 0]
        self._waiting.append(_Stretch(sound, borders=borders))
        self._made += sound.seconds

    def due(self, now: float) -> list[Frame]:
        """What is to be sent now, in order."""
        self._settle(now)
        found: list[Frame] = []
        while self._waiting and not self._paused:
            room = LONGEST_S if self._clears else self._heard + LEAD_S - self._sent
            frame = self._frame(room)
            if frame is None:
                break
            found.append(frame)
            self._sent += len(frame.pcm) / (2 * frame.rate)
        return found

    def wake_at(self, now: float) -> float | None:
        """When `due` has something again, if nothing happens before."""
        if self._paused or not self._waiting:
            return None
        ahead = self._sent - self.heard(now)
        least = min(SHORTEST_S, self._made - self._sent)
        return now if self._clears else now + max(0.0, ahead + least - LEAD_S)

    def heard(self, now: float) -> float:
        """So many seconds of the turn were heard by now."""
        if self._paused:
            return self._heard
        return min(self._sent, self._heard + max(0.0, now - self._since))

    @property
    def sent(self) -> float:
        """So many seconds of the turn have been sent: where a client can drop nothing, all that
        will be heard of it after a hush."""
        return self._sent

    def pause(self, now: float) -> None:
        """Nothing is sent, and nothing is lost. A client that cannot be told hears what it has."""
        self._settle(now)
        if not self._paused:
            self._paused = True
            if not self._clears:
                self._heard = self._sent

    def resume(self, now: float) -> None:
        """Go on where it was."""
        if self._paused:
            self._paused, self._since = False, now

    def hush(self, now: float) -> float:
        """Drop what was not sent; how much of the turn was heard, or will have been."""
        self._settle(now)
        self._waiting.clear()
        heard = self._heard if self._clears else self._sent
        self._turn, self._sent, self._heard = 0, heard, heard
        return heard

    def _settle(self, now: float) -> None:
        """What was heard up to now is so whatever comes."""
        self._heard, self._since = self.heard(now), max(now, self._since)

    def _frame(self, room: float) -> Frame | None:
        """The next frame, of at most ``room`` seconds; None while that is too little."""
        head = self._waiting[0]
        rate = head.sound.rate
        left = len(head.sound.pcm) - head.at
        longest = min(left, _bytes(min(LONGEST_S, room), rate))
        shortest = min(left, _bytes(SHORTEST_S, rate))
        if longest < shortest:
            return None
        within = [one for one in head.borders if shortest <= one - head.at <= longest]
        size = within[-1] - head.at if within else longest
        start = self._sent
        pcm = head.sound.pcm[head.at : head.at + size]
        head.at += size
        if head.at >= len(head.sound.pcm):
            self._waiting.popleft()
        return Frame(self._turn, pcm, rate, start)


def _bytes(seconds: float, rate: int) -> int:
    return 2 * max(0, int(seconds * rate + 1e-6))
