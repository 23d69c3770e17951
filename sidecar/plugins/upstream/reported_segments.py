"""Segments that were reported of a chunk before its answer was complete. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from sidecar.plugins.upstream.audio_chunks import shift_segments
from sidecar.transcripts.transcript import Segment
from sidecar.transcripts.word_timing import estimate_word_times, split_at_words

NEAR_WORDS = 2
"""Words by which the times of two servers, or times by rule, may differ."""


class ReportedSegments:
    """Segments that were reported of one chunk, from one answer or from several.

    If an answer breaks off, the next begins anew, and may cut its segments otherwise. As long as it
    repeats the reported segments these are skipped, and then what it says up to their end.
    """

    def __init__(self) -> None:
        self._answer: Sequence[Segment] | None = None
        self._reported: list[Segment] = []
        self._earlier = deque[Segment]()
        """Those of earlier answers, without those that this one repeated."""
        self._end_s, self._last_word = 0.0, [""]
        """Of these, in the recording."""

    def add(
        self, answer: Sequence[Segment], segments: Sequence[Segment], start_s: float
    ) -> list[Segment]:
        """Return what is new in the next ``segments`` of an ``answer``, known by its identity, to
        audio that starts ``start_s`` seconds into the recording."""
        if answer is not self._answer:
            earlier = [one for one in self._reported if round(one.end - start_s, 6) > 0]
            self._answer, self._earlier = answer, deque(earlier)
            if earlier:
                last = max(earlier, key=lambda one: one.end)
                self._end_s, self._last_word = last.end, _last_word(last.text)
        new: list[Segment] = []
        shifted = shift_segments([replace(one, speaker=None) for one in segments], start_s)
        for segment, known in zip(segments, shifted, strict=True):
            if self._earlier and known == self._earlier[0]:
                self._earlier.popleft()
                continue
            end_s = round(self._end_s - start_s, 6)
            if part := self._behind(segment, end_s) if self._earlier else segment:
                self._reported.append(known)
                new.append(part)
        return new

    def _behind(self, segment: Segment, end_s: float) -> Segment | None:
        """Return the part of a segment that is behind what was reported, which ends there."""
        if segment.start >= end_s:
            return segment
        words = estimate_word_times(segment).words
        count = sum((one.start + one.end) / 2 < end_s for one in words)
        near = range(max(1, count - NEAR_WORDS), min(len(words), count + NEAR_WORDS) + 1)
        same = [at for at in near if _last_word(words[at - 1].text) == self._last_word]
        count = min(same, key=lambda at: abs(at - count), default=count)
        if segment.end <= end_s or count == len(words):
            return None
        text = "".join(split_at_words(segment.text, [one.text for one in words])[count:])
        return replace(segment, start=words[count].start, text=text, words=segment.words[count:])


def _last_word(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())[-1:]
