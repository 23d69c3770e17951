"""Segments of one channel, cut where another channel begins to speak. Pure.

A channel is transcribed alone, so that a segment of it may last over what the other person says
meanwhile. Cut there, the segments of all channels are a dialogue in the order of their starts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from sidecar.transcripts.sentence_ends import ends_sentence
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.word_timing import cut_at_words, estimate_word_times

PAUSE_S = 0.5
"""Pause after which somebody begins to speak anew, in seconds."""
CONTINUED_S = 0.5
"""Least speech of a segment after somebody else begins: who ends meanwhile is interrupted, and not
cut. As far a cut moves to a pause, or to the end of a sentence: somebody finishes it."""
_GAP_S = 0.2
"""Least pause between two words at which a cut is better than at the end of a sentence."""


def cut_as_dialogue(channels: Sequence[Transcript]) -> list[Transcript]:
    """Return the transcripts of channels, with their segments cut where another channel begins to
    speak."""
    begins = [SpeechBeginnings(one.segments).times for one in channels]
    found: list[Transcript] = []
    for number, channel in enumerate(channels):
        others = [time_s for other in (*begins[:number], *begins[number + 1 :]) for time_s in other]
        pieces = [cut_at_beginnings(segment, others) for segment in channel.segments]
        prints = [
            each
            for one, cut in zip(channel.prints, pieces, strict=False)
            for each in [one] * len(cut)
        ]
        segments = tuple(piece for cut in pieces for piece in cut)
        found.append(replace(channel, segments=segments, prints=tuple(prints)))
    return found


class SpeechBeginnings:
    """Times at which a channel begins to speak, in seconds; its segments are added in order."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.times: list[float] = []
        self._silent_from_s = -inf
        for segment in sorted(segments, key=lambda one: one.start):
            self.add(segment)

    def add(self, segment: Segment) -> list[float]:
        """Add a segment of the channel. Return the times at which it begins to speak."""
        if not segment.is_speech:
            return []
        words = estimate_word_times(segment).words or (segment,)
        found: list[float] = []
        for one in words:
            if one.start - self._silent_from_s >= PAUSE_S:
                found.append(one.start)
            self._silent_from_s = max(self._silent_from_s, one.end)
        self.times += found
        return found


def cut_at_beginnings(segment: Segment, times_s: Iterable[float]) -> list[Segment]:
    """Return the segment in pieces, cut where others begin to speak meanwhile. A piece after a cut
    begins after they do."""
    *found, rest = [segment]
    for time_s in sorted(times_s):
        timed = estimate_word_times(rest)
        cut = _cut(timed, time_s) if segment.is_speech else None
        if cut is not None:
            pieces = cut_at_words(timed, [cut])
            one, rest = pieces if rest.words else map(without_words, pieces)
            found.append(one)
    return [*found, rest]


def without_words(piece: Segment) -> Segment:
    """Return a segment without word times."""
    return replace(piece, words=(), words_by="")


def _cut(segment: Segment, time_s: float) -> int | None:
    """Return the first word after the cut of a segment for a time; None if it is not cut there."""
    words = segment.words
    if not words or words[0].start >= time_s or words[-1].end - time_s < CONTINUED_S:
        return None
    later = [at for at, word in enumerate(words) if word.start >= time_s]
    near = [at for at in later if words[at].start <= time_s + CONTINUED_S]
    near += later[len(near) : len(near) + 1]

    def cost(at: int) -> tuple[int, int]:
        before, after = words[at - 1], words[at]
        if after.start - before.end >= _GAP_S:
            return 0, at
        return 2 - ends_sentence(before.text, after.text, segment.language), at

    return min(near, key=cost, default=None)
