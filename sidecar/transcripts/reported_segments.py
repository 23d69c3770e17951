"""Reported segments of a recording, and which of a later transcription are not among them. Pure.

Another attempt and the final transcript contain the reported segments again, perhaps with other
speakers, borders or words. Beside them they may contain speech that was not reported, such as that
of a second speaker at the same time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sidecar.transcripts.transcript import Segment
from sidecar.transcripts.word_timing import split_atoms


class ReportedSegments:
    """Segments that were reported. Each of their words stands for one word of a later segment."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.start)
        self._starts = [segment.start for segment in self._segments]
        self._longest_s = max((one.end - one.start for one in self._segments), default=0.0)
        self._words: dict[int, Counter[str]] = {}
        """Words of a segment that stand for none of a later one yet."""
        self._found: set[int] = set()
        """Segments that were found again."""

    def contain(self, segment: Segment) -> bool:
        """Return whether a segment of another attempt was reported, as far as can be told before
        its end."""
        if self._has_same(segment) or self._has_words(segment):
            return True
        overlaps = [seconds for seconds, _ in self._overlaps(segment)]
        return bool(overlaps) and sum(overlaps) >= (segment.end - segment.start) / 2

    def missing_from(self, segments: Sequence[Segment]) -> list[int]:
        """Return the indexes of the segments of a final transcript that were not reported.

        A segment was reported if there is one with its text at its time, if half of its words were
        reported at its time, or if half of its time was, with words that are not found again: that
        is a revision.
        """
        missing = [at for at, one in enumerate(segments) if not self._has_same(one)]
        missing = [at for at in missing if not self._has_words(segments[at])]
        return [at for at in missing if not self._has_revised(segments[at])]

    def _near(self, segment: Segment) -> Iterator[int]:
        """Yield the reported segments that overlap with a segment."""
        for at in range(
            bisect_left(self._starts, segment.start - self._longest_s), len(self._segments)
        ):
            one = self._segments[at]
            if one.start >= max(segment.end, segment.start + 1e-6):
                return
            if one.end > segment.start or one.start == segment.start:
                yield at

    def _has_same(self, segment: Segment) -> bool:
        for at in self._near(segment):
            if at not in self._found and self._segments[at].text == segment.text:
                self._found.add(at)
                self._words[at] = Counter()
                return True
        return False

    def _has_words(self, segment: Segment) -> bool:
        words = text_words(segment.text)
        missing, found = words.copy(), {}
        for at in self._near(segment):
            left = self._words.setdefault(at, text_words(self._segments[at].text))
            if common := left & missing:
                found[at] = common
                missing -= common
        if not words or 2 * missing.total() > words.total():
            return False
        for at, common in found.items():
            self._words[at] -= common
            self._found.add(at)
        return True

    def _has_revised(self, segment: Segment) -> bool:
        """Return whether it is a revision, of as few segments as cover half of its time."""
        missing_s, revised = (segment.end - segment.start) / 2, []
        for overlap_s, at in sorted(self._overlaps(segment), reverse=True):
            revised.append(at)
            missing_s -= overlap_s
            if missing_s <= 0:
                self._found.update(revised)
                return True
        return False

    def _overlaps(self, segment: Segment) -> Iterator[tuple[float, int]]:
        """Yield the segments near it that were not found again, with the seconds of overlap."""
        for at in self._near(segment):
            if at not in self._found:
                one = self._segments[at]
                yield min(segment.end, one.end) - max(segment.start, one.start), at


def text_words(text: str) -> Counter[str]:
    """Return how often each word is in a text, without marks and capitals."""
    plain = ("".join(filter(str.isalnum, atom.casefold())) for atom in split_atoms(text))
    return Counter(filter(None, plain))
