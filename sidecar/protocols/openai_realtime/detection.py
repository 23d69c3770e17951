"""When a person's turn is over, as a client of a conversation may wish it. Pure.

By a model that listens for the end of a thought there, by the words here: `conversation.patience`
is what ``semantic_vad`` comes to, and a pause of so many milliseconds what ``server_vad`` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.conversation.ear import LISTENS
from sidecar.conversation.options import Patience, TalkOptions
from sidecar.interfaces.live import Endpointing
from sidecar.interfaces.options import parse_choice, parse_flag, parse_whole
from sidecar.protocols.openai_realtime.configuration import Detection
from sidecar.protocols.openai_realtime.updates import (
    LONGEST_PADDING_MS,
    LONGEST_SILENCE_MS,
    Eagerness,
    object_of,
    threshold_of,
)

AT = "session.audio.input.turn_detection"
SHORTEST_SILENCE_MS = round(1000 * LISTENS.silence_s)
"""Less than this is no pause to the ear."""
_SCALE = {Eagerness.LOW: 2.0, Eagerness.HIGH: 0.7}
"""Of the patience, for who is to be given more time, or less."""


@dataclass(frozen=True, slots=True)
class Turning:
    """What ends a turn, and what then is done. ``answers``: it is answered at once;
    ``interrupts``: who speaks over an answer ends it. The rest is for its ``kind`` alone."""

    kind: Detection = Detection.SEMANTIC
    eagerness: Eagerness = Eagerness.AUTO
    threshold: float = 0.5
    padding_ms: int = 300
    silence_ms: int = 500
    answers: bool = True
    interrupts: bool = True

    @property
    def patience(self) -> Patience:
        """How long a pause ends a turn."""
        if self.kind is Detection.SEMANTIC:
            return Patience(scale=_SCALE.get(self.eagerness, 1.0))
        pause_s = self.silence_ms / 1000
        return Patience(pause_s, pause_s, pause_s)

    @property
    def endpointing(self) -> Endpointing:
        """What counts as speech."""
        if self.kind is Detection.SEMANTIC:
            return LISTENS
        below = LISTENS.threshold - LISTENS.neg_threshold
        return dataclasses.replace(
            LISTENS,
            threshold=self.threshold,
            neg_threshold=max(0.0, self.threshold - below),
            sure_threshold=max(LISTENS.sure_threshold, self.threshold),
            pre_roll_s=self.padding_ms / 1000,
        )

    def view(self) -> dict[str, Any]:
        """As clients read it."""
        then = {"create_response": self.answers, "interrupt_response": self.interrupts}
        if self.kind is Detection.SEMANTIC:
            return {"type": self.kind.value, "eagerness": self.eagerness.value, **then}
        return {
            "type": self.kind.value,
            "threshold": self.threshold,
            "prefix_padding_ms": self.padding_ms,
            "silence_duration_ms": self.silence_ms,
            "idle_timeout_ms": None,
            **then,
        }


def turned(before: Turning | None, given: object) -> Turning | None:
    """What ends turns by what a client says, None where it does itself.

    Raises:
        errors.FieldInvalid: it means nothing.
    """
    if given is None:
        return None
    fields = object_of(AT, given)
    known = before or Turning()
    kind = parse_choice(f"{AT}.type", fields.get("type"), Detection.SERVER)
    threshold = threshold_of(f"{AT}.threshold", fields)
    return dataclasses.replace(
        known,
        kind=kind,
        eagerness=parse_choice(f"{AT}.eagerness", fields.get("eagerness"), known.eagerness),
        threshold=known.threshold if threshold is None else threshold,
        padding_ms=_whole(fields, "prefix_padding_ms", LONGEST_PADDING_MS, known.padding_ms),
        silence_ms=max(
            SHORTEST_SILENCE_MS,
            _whole(fields, "silence_duration_ms", LONGEST_SILENCE_MS, known.silence_ms),
        ),
        answers=_flag(fields, "create_response", known.answers),
        interrupts=_flag(fields, "interrupt_response", known.interrupts),
    )


def options(before: TalkOptions, turning: Turning | None) -> TalkOptions:
    """A conversation's manners by what ends its turns."""
    return dataclasses.replace(
        before,
        patience=turning.patience if turning is not None else Patience(),
        ends_turns=turning is not None,
        answers=turning is not None and turning.answers,
        interruptible=turning is not None and turning.interrupts,
    )


def _whole(fields: Mapping[str, Any], name: str, most: int, usual: int) -> int:
    found = parse_whole(f"{AT}.{name}", fields.get(name), 0, most)
    return usual if found is None else found


def _flag(fields: Mapping[str, Any], name: str, usual: bool) -> bool:
    given = fields.get(name)
    return usual if given is None else parse_flag(f"{AT}.{name}", given, default=usual)
