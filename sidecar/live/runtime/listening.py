"""Which of one session's pieces is recognised, and which would be next. Pure.

A piece that has ended is heard to its end, one that pauses up to the pause, and one that goes on
every now and then: by that `live.runtime.schedule` knows how urgent it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.interfaces.live import LIVE_RATE, LiveOptions
from sidecar.live.runtime.endpointing import FRAME
from sidecar.live.runtime.piece import Listen, Manner, Piece
from sidecar.live.runtime.schedule import Urgency


class Listening:
    """What an engine is at of one session. ``manner``: how it hears what goes on."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._going: list[Listen] = []

    def wish(
        self, ended: Iterable[Piece], going_on: Piece | None, looked: int, options: LiveOptions
    ) -> Listen | None:
        """What would be next: the first of the pieces that have ``ended`` and do not stand yet,
        else the one that goes on, of which ``looked`` is known so far."""
        for piece in ended:
            if piece.final is None:
                if self._busy(piece) or self._growing(piece):
                    return None
                assert piece.end is not None
                return Listen(piece, piece.end, Urgency.FINAL, piece.since)
        if going_on is None or going_on.shed:
            return None
        if going_on.paused is not None:
            return self._in_pause(going_on, going_on.paused)
        return self._partial(going_on, looked, options)

    def began(self, listen: Listen) -> None:
        """It is being recognised."""
        self._going.append(listen)
        if listen.urgency is not Urgency.FINAL:
            listen.piece.asked = listen.to

    def over(self, listen: Listen) -> None:
        """It is not any more, whatever came of it."""
        self._going.remove(listen)

    def _in_pause(self, piece: Piece, pause: int) -> Listen | None:
        if self._manner.grows or piece.early is not None or self._busy(piece):
            return None
        return Listen(piece, pause, Urgency.SPECULATIVE, 0.0, pause)

    def _partial(self, piece: Piece, looked: int, options: LiveOptions) -> Listen | None:
        manner = self._manner
        after_s = manner.step_s if piece.asked > piece.start else manner.first_s
        due = piece.asked + round(after_s * LIVE_RATE)
        to = looked - self._held_back(options)
        if self._going or to < due or not (options.partials or manner.grows):
            return None
        return Listen(piece, to, Urgency.PARTIAL, max(due, piece.opened) / LIVE_RATE)

    def _held_back(self, options: LiveOptions) -> int:
        """Samples that may turn out to lie behind the end of what is open: who goes on from there
        cannot unhear them."""
        ends = options.endpointing
        if not self._manner.grows:
            return 0
        return round(max(0.0, ends.pause_s - ends.post_roll_s) * LIVE_RATE) + FRAME

    def _growing(self, piece: Piece) -> bool:
        """Whether a draft is being gone on with, which a final waits for."""
        return self._manner.grows and any(one.piece is piece for one in self._going)

    def _busy(self, piece: Piece) -> bool:
        """Whether a piece is being heard to the end that it has, or may have, already."""
        return any(
            one.piece is piece
            and (
                one.urgency is Urgency.FINAL
                or (one.pause is not None and one.pause == piece.paused)
            )
            for one in self._going
        )
