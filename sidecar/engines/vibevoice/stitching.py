"""Windows back into one recording: nothing lost, nothing said twice, one number for one person.

Each window's segments come with the model's own speakers, which mean nothing in the next window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sidecar.audio import Block
from sidecar.engines.vibevoice.windows import Window
from sidecar.transcripts.speaker_turns import Turn, matched, together, within
from sidecar.transcripts.transcript import NON_SPEECH, Segment

SAME_VOICE = 0.4
"""What two voices need to be one: the cosine between them, and what they share in an overlap.

Of 153480 pairs of LibriSpeech readers (`bench.windows --voices`) one in 250 reaches it with 3 s of
each voice; of 810 pairs of one reader one in 60 falls short. With 5 s: one in 175, and none. In the
conversations of the benchmark no two people are as much alike with 3 s or more.
"""
SHARED, SHARED_BESIDE = 0.8, 0.2
"""What seconds count that two windows both hear and give to one person: where a voice was not heard
half of them will do; beside the voices they tip the scales for a short one, and join no two that
differ, since a window may give somebody's words to another."""
SAME_SECONDS_S = 1.0
"""Speech in the overlap that two windows must give to the same person to count as a sign."""

HALF, WHOLE = 0.5, 0.9
"""A segment of which the last window said so much is not said again; one of which the next window
says so much in a longer one gives way to it."""


class Listener(Protocol):
    """Tells voices from one another, and remembers those of persons; a voice is its own affair."""

    def hear(self, samples: Block, turns: Sequence[Turn]) -> Mapping[int, Any]:
        """The voice of each label of a window; labels of which there is too little are missing."""

    def likenesses(self, voices: Mapping[int, Any]) -> Mapping[tuple[int, int], float]:
        """From -1 to 1, for each pair of a person that is remembered and a label."""

    def remember(self, voices: Mapping[int, Any], persons: Mapping[int, int]) -> None:
        """Keep the voices of a window; ``persons``: who each label is."""


class Stitching:
    """The transcript as it grows, window by window: `begin`, `place` as they come, `end`.

    ``segments`` are settled, their speakers persons from 0. All times are the recording's.
    ``remember``: the listener is to know everybody at the end, and not only who has to be linked.
    """

    def __init__(self, listener: Listener | None, *, remember: bool = False) -> None:
        self.segments: list[Segment] = []
        self._listener = listener
        self._remember = remember
        self._heard: list[Segment] = []
        self._held: list[Segment] = []
        self._persons = 0
        self._seen: dict[int, int] = {}
        self._tail: list[Segment] = []
        self._border_s: float | None = None

    def begin(self, window: Window) -> None:
        """What comes next are segments of this window."""
        self._border_s = window.border_s
        self._seen = {}
        self._tail = [one for one in self.segments if one.end > window.start_s]

    def place(self, segment: Segment) -> Segment | None:
        """A segment as it is now, with a speaker's number that may be revised; None if it is said.

        Behind the border the next window will say it, before the window the last one did.
        """
        if not self._is_ours(segment) or self._is_said(segment):
            return None
        if segment.speaker is None:
            return segment
        person = self._seen.setdefault(segment.speaker, self._persons + len(self._seen))
        return replace(segment, speaker=person)

    def end(self, window: Window, segments: Sequence[Segment]) -> None:
        """All the segments of the window: settle who is who, and what stays."""
        persons = self._link(window, segments)
        heard = [
            one if one.speaker is None else replace(one, speaker=persons[one.speaker])
            for one in segments
        ]
        new = [one for one in heard if not self._is_said(one)]
        kept = [one for one in new if self._is_ours(one)]
        held = [one for one in new if not self._is_ours(one)]
        known = [*self._tail, *kept, *held]
        missed = [one for one in self._held if covered(one, known) < HALF]
        again = {id(one) for one in self._tail if covered(one, kept) >= WHOLE}
        self.segments = [one for one in self.segments if id(one) not in again] + missed + kept
        self._heard, self._held = heard, held

    def _is_ours(self, segment: Segment) -> bool:
        return self._border_s is None or (segment.start + segment.end) / 2 < self._border_s

    def _is_said(self, segment: Segment) -> bool:
        return covered(segment, self._tail) >= HALF

    def _link(self, window: Window, segments: Sequence[Segment]) -> dict[int, int]:
        """Which person each of the window's speakers is; the new ones in order of appearance."""
        labels = {one.speaker: None for one in segments if one.speaker is not None}
        first, last = window.start_s == 0, window.border_s is None
        voices: Mapping[int, Any] = {}
        needed = self._remember or not (first and last)
        if self._listener is not None and labels and needed:
            voices = self._listener.hear(window.samples, turns(segments, window.start_s))
        persons = {} if first else matched(self._signs(window, segments, voices), SAME_VOICE)
        for label in labels:
            if label not in persons:
                persons[label] = self._persons
                self._persons += 1
        if self._listener is not None and voices and (self._remember or not last):
            self._listener.remember(voices, persons)
        return persons

    def _signs(
        self, window: Window, segments: Sequence[Segment], voices: Mapping[int, Any]
    ) -> dict[tuple[int, int], float]:
        """By what both windows heard, and by voice."""
        both = window.start_s, max((one.end for one in self._heard), default=0.0)
        before, after = turns(self._heard), turns(segments)
        shared = together(within(before, *both), within(after, *both), SAME_SECONDS_S)
        alike: Mapping[tuple[int, int], float] = {}
        if self._listener is not None and voices:
            alike = self._listener.likenesses(voices)
        signs = dict(alike)
        for pair, share in shared.items():
            signs[pair] = alike[pair] + SHARED_BESIDE * share if pair in alike else SHARED * share
        return signs


def turns(segments: Iterable[Segment], start_s: float = 0.0) -> list[Turn]:
    """Who speaks when, in seconds from ``start_s``; segments without a speaker are left out."""
    return [
        Turn(one.start - start_s, one.end - start_s, one.speaker)
        for one in segments
        if one.speaker is not None
    ]


def covered(segment: Segment, others: Iterable[Segment]) -> float:
    """Which part of a segment's time others have, from 0 to 1; a tag does not cover words."""
    spans = sorted(
        (other.start, other.end)
        for other in others
        if NON_SPEECH not in other.flags or NON_SPEECH in segment.flags
    )
    if segment.end <= segment.start:
        return float(any(start <= segment.start <= end for start, end in spans))
    at, shared = segment.start, 0.0
    for start, end in spans:
        shared += max(0.0, min(end, segment.end) - max(start, at))
        at = max(at, end)
    return shared / (segment.end - segment.start)
