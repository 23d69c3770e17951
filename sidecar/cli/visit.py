"""What came of one session or of one client's recordings, as it is measured and logged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | float | None
"""Of a cell: text, a number, or nothing that could be told."""
SUCCESS = "OK"
DECODE = ("buffer_wait", "queue_wait", "inference", "response_emit", "total")
"""Where the service says that time went, as far as a wire tells: the trailing metadata of gRPC."""


@dataclass(slots=True)
class Turn:
    """One utterance; when it was sent and answered, by a clock that only goes on.

    ``at_s`` and ``end_s``: where it lies in the session's sound.
    """

    at_s: float
    began: float
    end_s: float = 0.0
    ended: float | None = None
    first: float | None = None
    final: float | None = None


@dataclass(slots=True)
class Visit:
    """One session; times in seconds of one clock."""

    session_id: str
    error_code: str = ""
    """Stable code of an error, or what the wire says instead; "" where all went well."""
    begun: float = 0.0
    sent: float | None = None
    """When the last sound was sent."""
    ended: float = 0.0
    responses: int = 0
    turns: list[Turn] = field(default_factory=list)
    decode: dict[str, float] = field(default_factory=dict)
    """Of `DECODE`."""
    pace: list[float] = field(default_factory=list)
    """Seconds that it took for each second of sound: of the session, or of each recording."""
    sound_s: float = 0.0
    """Of what was sent and answered."""
    late_s: float = 0.0
    """How far behind its own clock it sent: what this machine, not the service, was slow by."""

    @property
    def first_s(self) -> list[float]:
        """From the beginning of each utterance to the first words of it."""
        return [one.first - one.began for one in self.turns if one.first is not None]

    @property
    def final_s(self) -> list[float]:
        """From the end of each utterance to the last of its final words.

        Those that came while it was still being sent count 0.
        """
        return [
            max(0.0, one.final - one.ended)
            for one in self.turns
            if one.final is not None and one.ended is not None
        ]

    @property
    def lost(self) -> int:
        """Utterances of which nothing final was told."""
        return sum(one.final is None for one in self.turns)

    def turn_at(self, position_s: float) -> Turn | None:
        """The utterance at a place of the session's sound: the last that begins before it."""
        found = None
        for one in self.turns:
            if found is None or one.at_s <= position_s:
                found = one
        return found

    def heard(self, turn: Turn | None, now: float, *, final: bool) -> None:
        """Words of an utterance have come."""
        self.responses += 1
        if turn is None:
            return
        if turn.first is None:
            turn.first = now
        if final:
            turn.final = now

    def row(self, side: str, sessions: int) -> Mapping[str, Value]:
        """It as a line of a log; the first thirteen columns are those of the load test that
        operators of gRPC servers know."""
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
