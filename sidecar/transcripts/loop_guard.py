"""Whether the model is stuck: the same words, or the same times, over and over. Pure.

On music and long noise the model may repeat itself until its token limit. The guard sees each
token and each segment as it comes and says when it is stuck, and how many of the last segments
belong to the loop. People repeat themselves too, so repeated words alone are never enough: the
words must be more than the time claimed for them can hold, or the times must stand still.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sidecar.transcripts.output import OpenContent
from sidecar.transcripts.repetition import (
    CHARACTERS_PER_S,
    COPIES,
    FEW_TOKENS,
    MIN_REPEATED_TOKENS,
    RepeatedTokens,
    overfull,
)
from sidecar.transcripts.transcript import NON_SPEECH, Segment

LONGEST_SPAN_S = 30.0
"""A claimed span beyond this is not taken at its word; segments last seconds, seldom half of it."""

STRAY_TOKENS = 256
"""Tokens in a row outside any text without a segment; a segment's own frame takes about 24."""

LONGEST_CYCLE = 12
"""Segments in a repeated verse, at most."""

STILL_SEGMENTS = 6
"""Segments in a row without a later start or a second not heard before: time stands still."""

LONGEST_LOOPED_S = 60.0
"""The first copy in a loop is not kept if it is longer: its end would hide the rest of the audio.
Also the seconds of a segment, at most, that count as heard by it."""

MIN_STEP_S = 0.05
"""What a repeated segment must move on at least, however short its text."""


class Why(StrEnum):
    """What gave a loop away."""

    REPEATED_TOKENS = "repeated_tokens"
    FEW_WORDS = "few_words"
    TOO_MUCH_TEXT = "too_much_text"
    NO_SEGMENT = "no_segment"
    REPEATED_SEGMENTS = "repeated_segments"
    SEEN_BEFORE = "seen_before"
    NO_NEW_TIME = "no_new_time"


@dataclass(frozen=True, slots=True)
class Loop:
    """The model is stuck: why, and how many of the last segments are to be cut.

    What is left of the segments is sound; a segment that was still open is never part of it.
    """

    why: Why
    cut: int = 0


class LoopGuard:
    """Watches one stream. After a cut, a new one is told of the segments that were kept.

    ``duration_s`` is where the audio ends, on the clock of the segments; None where unknown.
    """

    def __init__(self, duration_s: float | None, kept: Iterable[Segment] = ()) -> None:
        self._duration = duration_s
        self._segments: list[Segment] = []
        self._texts: list[tuple[str, int | None]] = []
        self._sound: list[bool] = []
        self._seen: set[Segment] = set()
        self._latest_start = -1.0
        self._latest_end = 0.0
        self._heard: set[int] = set()
        self._still = 0
        self._again = 0
        self._tokens = RepeatedTokens()
        self._stray = 0
        for segment in kept:
            self.segment(segment)

    def token(self, token_id: int, content: OpenContent | None) -> Loop | None:
        """Take one token; ``content`` is the text that is open after it, as the parser has it.

        The parser reads a token first, then this sees it, then `segment` what the token closed.
        """
        self._tokens.add(token_id)
        if content is None:
            self._stray += 1
            if self._tokens.repeated >= MIN_REPEATED_TOKENS:
                return Loop(Why.REPEATED_TOKENS)
            return Loop(Why.NO_SEGMENT) if self._stray > STRAY_TOKENS else None
        left = self._left_s(content)
        if content.characters > CHARACTERS_PER_S * (left + LONGEST_SPAN_S):
            return Loop(Why.TOO_MUCH_TEXT)
        if not overfull(content.characters, self._claimed_s(content, left)):
            return None
        if self._tokens.repeated >= MIN_REPEATED_TOKENS:
            return Loop(Why.REPEATED_TOKENS)
        return Loop(Why.FEW_WORDS) if self._tokens.different <= FEW_TOKENS else None

    def segment(self, segment: Segment) -> Loop | None:
        """Take one closed segment."""
        length = segment.end - segment.start
        first = int(segment.start)
        seconds = set(range(first, first + math.ceil(min(length, LONGEST_LOOPED_S))))
        moves = segment.start > self._latest_start or not seconds <= self._heard
        self._still = 0 if moves else self._still + 1
        self._again = self._again + 1 if segment in self._seen else 0
        self._latest_start = max(self._latest_start, segment.start)
        self._latest_end = max(self._latest_end, segment.end)
        self._heard |= seconds
        self._seen.add(segment)
        self._segments.append(segment)
        self._texts.append((" ".join(segment.text.casefold().split()), segment.speaker))
        self._sound.append(moves and 0 < length <= LONGEST_LOOPED_S)
        self._tokens = RepeatedTokens()
        self._stray = 0
        if cycle := self._stuck_cycle():
            sound = self._sound[-COPIES * cycle :][:cycle]
            kept = sound.index(False) if False in sound else cycle
            return Loop(Why.REPEATED_SEGMENTS, COPIES * cycle - kept)
        if self._again >= COPIES:
            return Loop(Why.SEEN_BEFORE, self._again)
        if self._still >= STILL_SEGMENTS:
            return Loop(Why.NO_NEW_TIME, self._still)
        return None

    def _stuck_cycle(self) -> int:
        """How many segments the last ones repeat, in too little time for it; 0 if they do not."""
        for cycle in range(1, min(LONGEST_CYCLE, len(self._segments) // COPIES) + 1):
            texts = self._texts[-COPIES * cycle :]
            if texts[cycle:] == texts[:-cycle] and self._moved_s(cycle) < (COPIES - 1) * max(
                _shortest_s(segment) for segment in self._segments[-cycle:]
            ):
                return cycle
        return 0

    def _moved_s(self, cycle: int) -> float:
        """Seconds from the first copy of the last segment to its last, by start or by end."""
        last, first = self._segments[-1], self._segments[-1 - (COPIES - 1) * cycle]
        return min(last.start - first.start, last.end - first.end)

    def _left_s(self, content: OpenContent) -> float:
        """Seconds of audio from where a text begins, or may begin at the earliest."""
        if self._duration is None:
            return float("inf")
        begins = self._latest_end if content.start is None else content.start
        return max(0.0, self._duration - begins)

    def _claimed_s(self, content: OpenContent, left_s: float) -> float:
        """Seconds that a text claims for itself, as far as that can be believed."""
        claimed = left_s
        if content.start is not None and content.end is not None:
            claimed = content.end - content.start
        return min(claimed, LONGEST_SPAN_S)


def _shortest_s(segment: Segment) -> float:
    """Seconds that a segment takes at least; half of what speech takes, for times are rounded."""
    if NON_SPEECH in segment.flags:
        return MIN_STEP_S
    return max(MIN_STEP_S, len(segment.text) / CHARACTERS_PER_S / 2)
