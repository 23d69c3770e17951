"""Spans of time, speaker turns, and speaker labels across windows.

Pure functions over spans and turns. A turn's label is set by the diarizer and is valid in one
window only. A speaker is a number that stands for the same person throughout a recording.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from sidecar.transcripts.transcript import Segment

Span = tuple[float, float]
"""Start and end, in seconds."""


def merged_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the time that the spans cover, in order, as spans that do not meet."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def uncovered_spans(start: float, end: float, spans: Iterable[Span]) -> list[Span]:
    """Return the parts of the time from ``start`` to ``end`` that no span covers, in order."""
    found: list[Span] = []
    for begin, stop in (*sorted(spans), (end, end)):
        if min(begin, end) > start:
            found.append((start, min(begin, end)))
        start = max(start, stop)
    return found


def clipped_spans(spans: Iterable[Span], start: float, end: float = inf) -> list[Span]:
    """Return the parts of spans between ``start`` and ``end``."""
    parts = [(max(begin, start), min(stop, end)) for begin, stop in spans]
    return [(begin, stop) for begin, stop in parts if stop > begin]


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """One voice from ``start`` to ``end`` (seconds)."""

    start: float
    end: float
    label: int

    def overlap(self, start: float, end: float) -> float:
        """Return the seconds that this turn shares with a span."""
        return max(0.0, min(self.end, end) - max(self.start, start))


def speaker_turns_of(segments: Iterable[Segment], start_s: float = 0.0) -> list[SpeakerTurn]:
    """Return the speaker turns of segments, in seconds from ``start_s``, without segments that have
    no speaker."""
    return [
        SpeakerTurn(one.start - start_s, one.end - start_s, one.speaker)
        for one in segments
        if one.speaker is not None
    ]


def overlapped_spans(turns: Iterable[SpeakerTurn]) -> list[Span]:
    """Return the time in which at least two labels speak, in order, as spans that do not meet."""
    found: list[Span] = []
    open_turns: list[SpeakerTurn] = []
    for turn in sorted(turns, key=lambda turn: turn.start):
        open_turns = [one for one in open_turns if one.end > turn.start]
        found += (
            (turn.start, min(one.end, turn.end)) for one in open_turns if one.label != turn.label
        )
        open_turns.append(turn)
    return merged_spans(found)


def solo_spans(turns: Sequence[SpeakerTurn], label: int) -> list[Span]:
    """Return the spans in which ``label`` speaks alone; the longest first."""
    others = [(turn.start, turn.end) for turn in turns if turn.label != label]
    others = sorted((start, end) for start, end in others if end > start)
    longest = max((end - start for start, end in others), default=0.0)
    found: list[Span] = []
    for turn in turns:
        if turn.label == label:
            first, last = (bisect_left(others, (at,)) for at in (turn.start - longest, turn.end))
            found += uncovered_spans(turn.start, turn.end, others[first:last])
    return sorted(found, key=lambda piece: piece[0] - piece[1])


def longest_solo_spans(
    turns: Sequence[SpeakerTurn], label: int, most_s: float, least_s: float
) -> list[Span]:
    """Return the spans in which ``label`` speaks alone, cut into spans of at most ``most_s``
    seconds; spans shorter than ``least_s`` are left out.

    Order: the first part of each uncut span, the longest span first, then all second parts, and so
    on.
    """
    found: list[tuple[int, Span]] = []
    for start, end in solo_spans(turns, label):
        part = 0
        while end - start >= least_s:
            found.append((part, (start, min(end, start + most_s))))
            start, part = start + most_s, part + 1
    return [span for _, span in sorted(found, key=lambda one: one[0])]


def speaking_seconds(turns: Iterable[SpeakerTurn], start: float, end: float) -> dict[int, float]:
    """Return the seconds that each label speaks between ``start`` and ``end``."""
    found: dict[int, float] = {}
    for turn in turns:
        if shared := turn.overlap(start, end):
            found[turn.label] = found.get(turn.label, 0.0) + shared
    return found


def turns_within(turns: Iterable[SpeakerTurn], start: float, end: float) -> list[SpeakerTurn]:
    """Return the turns cut to the time between ``start`` and ``end``."""
    inside = [turn for turn in turns if turn.overlap(start, end)]
    return [replace(one, start=max(one.start, start), end=min(one.end, end)) for one in inside]


def turn_agreement(
    old_turns: Sequence[SpeakerTurn], new_turns: Sequence[SpeakerTurn], min_s: float
) -> dict[tuple[int, int], float]:
    """Return the agreement of two diarizations of the same audio, from 0 to 1.

    Keys are (label in ``old_turns``, label in ``new_turns``). A value is the time that both share,
    divided by the time that either has. Pairs that share less than ``min_s`` are left out.
    """
    found: dict[tuple[int, int], float] = {}
    for first in {turn.label for turn in old_turns}:
        for second in {turn.label for turn in new_turns}:
            ones = [turn for turn in old_turns if turn.label == first]
            others = [turn for turn in new_turns if turn.label == second]
            shared = sum(one.overlap(other.start, other.end) for one in ones for other in others)
            either = sum(turn.end - turn.start for turn in (*ones, *others)) - shared
            if shared and shared >= min_s:
                found[first, second] = min(1.0, shared / either) if either > 0 else 1.0
    return found


def match_speakers(likenesses: Mapping[tuple[int, int], float], least: float) -> dict[int, int]:
    """Match new speakers to known ones by the likeness of each (known, new) pair.

    The most similar pairs come first, each speaker in one pair only; pairs below ``least`` are not
    matched. Of equally similar pairs the lower numbers win.
    """
    found: dict[int, int] = {}
    pairs = sorted(likenesses, key=lambda pair: (-likenesses[pair], pair))
    for known, new in pairs:
        likely = likenesses[known, new] >= least
        if likely and new not in found and known not in found.values():
            found[new] = known
    return found


def number_speakers_by_appearance(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments with speakers numbered from 0 in the order of their first speech."""
    speakers = dict.fromkeys(one.speaker for one in segments if one.speaker is not None)
    numbers: dict[int | None, int] = {who: number for number, who in enumerate(speakers)}
    return [replace(one, speaker=numbers.get(one.speaker)) for one in segments]
