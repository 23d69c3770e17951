"""Attribution of words to speaker turns. Pure.

attribute_words(segments, diarizer.turns)

Each word gets the dominant speaker at its middle. A cut between two speakers moves to the end of a
sentence or to a pause close by. The reason: word times are a few tenths of a second off, as they
are read from a model's attention. A segment without words gets the speaker who talks most in it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from sidecar.transcripts.sentence_ends import ends_sentence, needs_more
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    clipped_spans,
    overlapped_spans,
    speaking_seconds,
)
from sidecar.transcripts.transcript import OVERLAP_FLAG, Segment, Word
from sidecar.transcripts.word_timing import cut_at_words

MAX_JOINED_PAUSE_S = 0.7
"""Pause below which two turns of a speaker are joined, if no other speaker talks meanwhile. From
0.6 to 0.8 the errors are the same; shorter turns lose words
(docs/decisions/diarization-parameters.md)."""
MIN_FLOOR_S = 0.5
"""Minimum speech after the end of another's turn for a speaker to take the turn."""
MIN_BACKCHANNEL_S = 1.0
"""Minimum speech during another's turn for a segment of its own; less cannot be understood."""
MIN_OVERLAP_S = 1.0
"""Minimum overlap of two speakers for which both segments are extended to their turns."""
MIN_FLAGGED_S = 0.5
"""Minimum overlap in a segment that is flagged: turns are a tenth of a second off at each end."""
OWN_SHARE = 0.95
"""Minimum share of a segment in which its speaker talks, so that it has no other; pauses are short.
"""
CONTEXT_S = 0.3
"""Maximum silence around a turn that is recognized with it; never audio of a neighbouring turn."""

WORD_TIME_ERROR_S = 0.5
"""Maximum error of a word's start; within it a cut moves to a sentence's end or a pause."""
PAUSE_S = 0.2
"""Minimum pause between two words."""


def merge_turns(turns: Iterable[SpeakerTurn]) -> list[SpeakerTurn]:
    """Return turns joined over short pauses, in order of their start.

    A speaker who talks longer than the dominant one takes the turn, in the middle of the overlap;
    those turns do not overlap. A speaker who talks while the dominant one continues has a separate
    turn beside it.
    """
    floor, asides = _split_overlaps(turns)
    return sorted([*floor, *asides], key=lambda line: (line.start, line.end))


def dominant_turns(turns: Iterable[SpeakerTurn]) -> list[SpeakerTurn]:
    """Return the turns of the dominant speakers: at most one at any time."""
    return _split_overlaps(turns)[0]


def overlapped_turns(turns: Iterable[SpeakerTurn]) -> list[SpeakerTurn]:
    """Return the turns, of at least `MIN_BACKCHANNEL_S`, of those who speak while the dominant
    speaker continues."""
    return _split_overlaps(turns)[1]


def _split_overlaps(turns: Iterable[SpeakerTurn]) -> tuple[list[SpeakerTurn], list[SpeakerTurn]]:
    """Split turns into those of the dominant speaker, and those beside that can be understood."""
    floor: list[SpeakerTurn] = []
    asides: list[SpeakerTurn] = []
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        last = floor[-1] if floor else None
        if last is None or turn.start >= last.end:
            floor.append(turn)
        elif turn.label == last.label:
            floor[-1] = replace(last, end=max(last.end, turn.end))
        elif turn.end - last.end < MIN_FLOOR_S:
            asides.append(turn)
        else:
            middle = (turn.start + last.end) / 2
            floor[-1] = replace(last, end=middle)
            floor.append(replace(turn, start=middle))
    return _join_turns(floor), [
        turn for turn in asides if turn.end - turn.start >= MIN_BACKCHANNEL_S
    ]


def _join_turns(turns: Iterable[SpeakerTurn]) -> list[SpeakerTurn]:
    found: list[SpeakerTurn] = []
    for turn in turns:
        last = found[-1] if found and found[-1].label == turn.label else None
        if last is not None and turn.start - last.end < MAX_JOINED_PAUSE_S:
            found[-1] = replace(last, end=turn.end)
        else:
            found.append(turn)
    return found


def context_span(turns: Sequence[SpeakerTurn], index: int) -> tuple[float, float]:
    """Return start and end, in seconds, of the audio to recognize for turn ``index``.

    Of the silence between two turns each gets half, at most `CONTEXT_S`.
    """
    line = turns[index]
    before = [other.end for other in turns[:index] if other.end <= line.start]
    after = [other.start for other in turns[index + 1 :] if other.start >= line.end]
    start = max([line.start - CONTEXT_S, 0.0, *((line.start + end) / 2 for end in before)])
    end = min([line.end + CONTEXT_S, *((line.end + start) / 2 for start in after)])
    return start, end


class SpeakerLookup:
    """Lookup of a segment's speaker, by the turns of the whole recording."""

    def __init__(self, turns: Iterable[SpeakerTurn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self._turns]
        self._longest = max((turn.end - turn.start for turn in self._turns), default=0.0)

    def voice(self, start: float, end: float, label: int) -> int:
        """Return the speaker from ``start`` to ``end``; ``label`` is the earlier decision.

        That stays if its speaker talks for at least half of the time: two may talk at once.
        """
        near = self._near(start, end)
        if 2 * speaking_seconds(near, start, end).get(label, 0.0) >= end - start:
            return label
        found = dominant_speaker(near or self._turns, start, end)
        return label if found is None else found

    def attributed(self, segment: Segment) -> list[Segment]:
        """Return a segment, cut between words where its speaker changes; ``segment.speaker`` is the
        earlier decision.

        That stays if its speaker talks for `OWN_SHARE` of the time, or for half of it beside
        somebody who talks longer: two may talk at once.
        """
        start, end, label = segment.start, segment.end, segment.speaker or 0
        near = self._near(start, end)
        own_s = speaking_seconds(near, start, end).get(label, 0.0)
        if segment.words and near and own_s < OWN_SHARE * (end - start):
            pieces = attribute_words([segment], near)  # only dominant speakers have pieces
            if 2 * own_s < end - start or any(one.speaker == label for one in pieces):
                return pieces
        return [replace(segment, speaker=self.voice(start, end, label))]

    def _near(self, start: float, end: float) -> list[SpeakerTurn]:
        first = bisect_left(self._starts, start - self._longest)
        return self._turns[first : bisect_left(self._starts, end)]


def extend_over_overlaps(
    segments: Sequence[Segment], turns: Iterable[SpeakerTurn]
) -> list[Segment]:
    """Extend adjacent segments over an overlap of their speakers; the words stay as they are.

    The first segment then ends with its speaker's turn, the next starts with its own speaker's.
    ``segments``: in order; the label of a turn is the speaker.
    """
    of: dict[int | None, list[SpeakerTurn]] = {}
    for turn in sorted(turns, key=lambda turn: turn.start):
        of.setdefault(turn.label, []).append(turn)
    found = list(segments)
    for at, (one, other) in enumerate(pairwise(segments)):
        if None in (one.speaker, other.speaker):
            continue
        if one.speaker == other.speaker or one.end != other.start:
            continue
        _, ends = _turn_around(of.get(one.speaker, ()), one.end)
        begins, _ = _turn_around(of.get(other.speaker, ()), other.start)
        begins = max(one.start, found[at].start, begins)
        if ends - begins >= MIN_OVERLAP_S:
            found[at] = replace(found[at], end=ends)
            found[at + 1] = replace(found[at + 1], start=begins)
    return found


def flag_overlaps(segments: Iterable[Segment], turns: Iterable[SpeakerTurn]) -> list[Segment]:
    """Return the segments, those with speech of a second speaker in them with `OVERLAP_FLAG`, and
    no others."""
    spans = overlapped_spans(turns)
    ends = [end for _, end in spans]
    found: list[Segment] = []
    for one in segments:
        near = spans[bisect_right(ends, one.start) :]
        near = near[: bisect_left(near, one.end, key=lambda span: span[0])]
        both_s = sum(end - start for start, end in clipped_spans(near, one.start, one.end))
        flags = [flag for flag in one.flags if flag != OVERLAP_FLAG]
        if one.speaker is not None and one.is_speech and both_s >= MIN_FLAGGED_S:
            flags.append(OVERLAP_FLAG)
        found.append(replace(one, flags=tuple(flags)))
    return found


def fit_to_turns(segments: Sequence[Segment], turns: Iterable[SpeakerTurn]) -> list[Segment]:
    """Move the ends of segments to those of their speakers' turns, if they are nearer than
    `MAX_JOINED_PAUSE_S`; the words stay as they are, and no segment grows over its neighbours.

    For times that a model's attention says: those of the diarizer are more exact, and a turn begins
    and ends with sounds that are no words. ``segments``: in order, each with one speaker.
    """
    lines = dominant_turns(turns)
    starts, ends = [line.start for line in lines], [line.end for line in lines]
    found = list(segments)
    for at, one in enumerate(segments):
        own = [
            line
            for line in lines[bisect_right(ends, one.start) : bisect_left(starts, one.end)]
            if line.label == one.speaker
        ]
        if not own:
            continue
        start, end = own[0].start, own[-1].end
        if abs(start - one.start) >= MAX_JOINED_PAUSE_S:
            start = one.start
        if abs(end - one.end) >= MAX_JOINED_PAUSE_S:
            end = one.end
        if at:
            start = max(start, min(found[at - 1].end, one.start))
        if at + 1 < len(segments):
            end = min(end, max(segments[at + 1].start, one.end))
        found[at] = replace(one, start=start, end=max(start, end))
    return found


def by_turns(segments: Iterable[Segment], turns: Sequence[SpeakerTurn]) -> list[Segment]:
    """Return the words of a model that does not say when somebody begins: attributed to the turns,
    with the ends of these."""
    found = extend_over_overlaps(attribute_words(segments, turns), turns)
    return fit_to_turns(found, turns)


def _turn_around(turns: Sequence[SpeakerTurn], time_s: float) -> tuple[float, float]:
    """Return start and end of the turn (of sorted ``turns``) that contains the time; else the time
    for both."""
    at = bisect_left(turns, time_s, key=lambda turn: turn.start) - 1
    inside = at >= 0 and turns[at].end > time_s
    return (turns[at].start, turns[at].end) if inside else (time_s, time_s)


def attribute_words(segments: Iterable[Segment], turns: Sequence[SpeakerTurn]) -> list[Segment]:
    """Return the words as segments with one speaker each; the label of a turn is the speaker.

    ``segments``: times in seconds, in order; their speakers are overwritten. A segment without
    speech has no speaker; if there are no turns, none has.
    """
    floor = _DominantTurns(turns)
    found: list[Segment] = []
    for segment in segments:
        if not turns or not segment.is_speech:
            found.append(replace(segment, speaker=None))
        elif segment.words:
            found += _cut_at_speaker_changes(segment, floor)
        else:
            found.append(replace(segment, speaker=floor.most(segment.start, segment.end)))
    return found


class _DominantTurns:
    """Index of the dominant speakers' turns by time, with binary search."""

    def __init__(self, turns: Sequence[SpeakerTurn]) -> None:
        self._turns = turns
        self._lines = dominant_turns(turns)
        self._starts = [line.start for line in self._lines]

    def at(self, time_s: float) -> int:
        """Return the dominant speaker at a time; in a silence, the nearest."""
        after = bisect_right(self._starts, time_s)
        near = self._lines[max(0, after - 1) : after + 1]
        return min(near, key=lambda line: max(line.start - time_s, time_s - line.end, 0.0)).label

    def most(self, start_s: float, end_s: float) -> int | None:
        """Return the speaker who is dominant for most of a span."""
        first = max(0, bisect_right(self._starts, start_s) - 1)
        last = bisect_right(self._starts, end_s)
        return dominant_speaker(self._lines[first : last + 1] or self._turns, start_s, end_s)


def _cut_at_speaker_changes(segment: Segment, floor: _DominantTurns) -> list[Segment]:
    """Cut a segment with words where its speaker changes."""
    words = segment.words
    voices = [floor.at((word.start + word.end) / 2) for word in words]
    cuts = [at for at in range(1, len(words)) if voices[at] != voices[at - 1]]
    if not cuts:
        return [replace(segment, speaker=voices[0])]
    pieces = cut_at_words(segment, _snap_cuts(cuts, words, segment.language))
    speakers = [voices[at] for at in (0, *cuts)]
    return [replace(one, speaker=who) for one, who in zip(pieces, speakers, strict=True)]


def _snap_cuts(cuts: Sequence[int], words: Sequence[Word], language: str) -> list[int]:
    """Move each cut to the likeliest word nearby, with at least one word between two cuts."""
    found: list[int] = []
    for number, cut in enumerate(cuts):
        least = found[-1] + 1 if found else 1
        most = cuts[number + 1] - 1 if number + 1 < len(cuts) else len(words) - 1
        near = [
            at
            for at in range(least, max(most, least) + 1)
            if at == cut or abs(words[at].start - words[cut].start) <= WORD_TIME_ERROR_S
        ]
        found.append(min(near, key=lambda at: _cut_cost(words, at, cut, language)))
    return found


def _cut_cost(words: Sequence[Word], at: int, cut: int, language: str) -> tuple[int, float]:
    """Return the cost of a speaker change at word ``at``; a lower one is likelier."""
    before, after = words[at - 1], words[at]
    if needs_more(before.text, after.text, language):
        cost = 3
    elif ends_sentence(before.text, after.text, language):
        cost = 0
    else:
        cost = 1 if after.start - before.end >= PAUSE_S else 2
    return cost, abs(after.start - words[cut].start)


def dominant_speaker(turns: Iterable[SpeakerTurn], start: float, end: float) -> int | None:
    """Return the label with most speech between ``start`` and ``end``, else the nearest one."""
    turns = list(turns)
    if found := speaking_seconds(turns, start, end):
        return max(found, key=lambda label: found[label])
    nearest = min(
        turns, key=lambda turn: max(turn.start - end, start - turn.end, 0.0), default=None
    )
    return nearest.label if nearest else None
