"""What to do once the model is stuck: try again less strictly, then leave the stretch out. Pure.

The ladder: cut back to the last sound segment and decode on with a little chance in it, three
times; then write a segment that says so over the stretch, and go on behind it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sidecar.transcripts.transcript import LOOP, NON_SPEECH, UNINTELLIGIBLE, Segment


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen: ``temperature`` above 0, among the likeliest that make ``top_p``."""

    temperature: float
    top_p: float


RETRIES = (Sampling(0.2, 0.95), Sampling(0.3, 0.95), Sampling(0.4, 0.95))
"""What upstream's own recovery test tries, in its order (protocols: the model, known fault)."""

SHORTEST_SKIP_S = 5.0
FIRST_SKIP_S = 15.0
LONGEST_SKIP_S = 60.0
"""Four first skips are a minute: a bad minute costs that minute. Longer stretches take longer
strides, a quarter of what was already lost, so that what is lost behind the end stays small."""

WORTH_DECODING_S = 1.0
"""A rest of the audio shorter than this is not worth another attempt."""


def next_attempt(tried: int, lost_s: float = 0.0) -> Sampling | None:
    """How to decode after ``tried`` retries at this place; None: skip.

    ``lost_s``: seconds skipped directly before this place. Where the stretch before was already
    given up, its rest is not tried again: a long song costs one attempt a skip.
    """
    return RETRIES[tried] if tried < len(RETRIES) and not lost_s else None


@dataclass(frozen=True, slots=True)
class Skip:
    """A stretch that is given up, in seconds of the audio that the model hears."""

    start: float
    end: float

    @property
    def text(self) -> str:
        """The item to write into the answer, as the model would write it, in centiseconds."""
        start, end = (_number(seconds) for seconds in (self.start, self.end))
        return json.dumps(
            {"Start": start, "End": end, "Content": UNINTELLIGIBLE},
            separators=(",", ":"),
        )

    def segment(self, offset_s: float = 0.0) -> Segment:
        """The same as a segment of the recording, flagged."""
        start, end = self.start + offset_s, self.end + offset_s
        return Segment(start, end, UNINTELLIGIBLE, flags=(NON_SPEECH, LOOP))


def next_skip(
    stuck_s: float, duration_s: float, lost_s: float = 0.0, claimed_end_s: float | None = None
) -> Skip | None:
    """The stretch to leave out from ``stuck_s``, the end of the last sound segment.

    ``lost_s``: seconds skipped directly before. ``claimed_end_s``: where the stuck segment said
    that it ends, if it did; the first skip believes it. None: too little audio is left to go on.
    """
    if duration_s - stuck_s < WORTH_DECODING_S:
        return None
    length = FIRST_SKIP_S
    if lost_s:
        length = min(max(FIRST_SKIP_S, lost_s / 4), LONGEST_SKIP_S)
    elif claimed_end_s is not None and claimed_end_s > stuck_s:
        length = min(max(SHORTEST_SKIP_S, claimed_end_s - stuck_s), LONGEST_SKIP_S)
    return Skip(stuck_s, min(stuck_s + length, duration_s))


def _number(seconds: float) -> int | float:
    rounded = round(seconds, 2)
    return int(rounded) if rounded.is_integer() else rounded
