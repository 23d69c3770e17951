"""What happens in one live session, for the tally."""

from __future__ import annotations

from sidecar import errors
from sidecar.interfaces.live_events import (
    UNHEARD,
    UTTERANCE_DROPPED,
    Final,
    LiveEvent,
    Noticed,
    Partial,
    SpeechStarted,
    Summary,
    TurnDropped,
    TurnEnded,
)
from sidecar.observability.outcomes import Outcome, outcome_of
from sidecar.observability.tally import LiveTally

DONE, LEFT = "done", "left"


class Counted:
    """Of one session; ``wire``: by which way its client came, ``patience_s``: how long a stretch
    of speech may take to be recognised."""

    def __init__(self, tally: LiveTally, wire: str, patience_s: float) -> None:
        self.wire = wire
        self._tally, self._patience_s = tally, patience_s
        self._turn = -1
        """The last that began."""
        self._speaking = False
        self._summed = False
        tally.opened.add(wire)

    def sound(self, seconds: float) -> None:
        """So much came."""
        self._tally.audio.add(self.wire, by=seconds)

    def waited(self, seconds: float) -> None:
        """So long it had to wait."""
        self._tally.full.see(seconds)

    def emitted(self, seconds: float) -> None:
        """So long the client took to read a final."""
        self._tally.emitted.see(seconds)

    def said(self, event: LiveEvent) -> None:
        """Something was told."""
        match event:
            case SpeechStarted(turn) if turn > self._turn:
                self._turn = turn
                self._tally.turns.add(self.wire)
                self._speaks(True)
            case Partial():
                self._tally.partials.add(self.wire)
            case Final():
                self._final(event)
            case Noticed(notice) if notice.code == UTTERANCE_DROPPED:
                self._tally.shed.add(self.wire)
            case TurnEnded():
                self._speaks(False)
            case TurnDropped():
                self._tally.dropped.add()
                self._speaks(False)
            case Summary():
                self._summed = True

    def ended(self, wrong: errors.SidecarError | None, *, finished: bool) -> None:
        """Nothing more is said. ``finished``: the client wanted that."""
        if self._speaking:
            self._tally.orphaned.add()
        self._speaks(False)
        reason = DONE if finished or self._summed else LEFT
        if wrong is not None:
            reason = wrong.code
            if isinstance(wrong, errors.LiveFull):
                self._tally.refused.add(self.wire, wrong.code)
            if (outcome := outcome_of(wrong)) is not None:
                self._tally.came(outcome)
        self._tally.ended.add(self.wire, reason)

    def _final(self, final: Final) -> None:
        segment = final.segment
        self._tally.told(self.wire, segment.end - segment.start, final.wait_s, final.work_s)
        outcome = Outcome.DONE
        if UNHEARD in segment.flags:
            late = final.work_s >= self._patience_s
            outcome = Outcome.TIMED_OUT if late else Outcome.FAILED
        self._tally.came(outcome)

    def _speaks(self, speaking: bool) -> None:
        self._tally.speaking += speaking - self._speaking
        self._speaking = speaking
