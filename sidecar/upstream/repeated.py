"""A whole answer that repeats itself: its copies go, what is sound stays. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.transcripts.loop_guard import LoopGuard
from sidecar.transcripts.recovery import Skip
from sidecar.transcripts.transcript import Segment


def without_loops(segments: Iterable[Segment], duration_s: float) -> tuple[list[Segment], float]:
    """The segments without those that `LoopGuard` calls a loop, and the seconds that were lost.

    Each stretch that is left out is a segment with the flag 'loop'.
    """
    kept: list[Segment] = []
    lost: list[Segment] = []
    guard = LoopGuard(duration_s)
    for segment in segments:
        kept.append(segment)
        loop = guard.segment(segment)
        if loop is None:
            continue
        first = len(kept) - loop.cut
        start, end = kept[first].start, max(one.end for one in kept[first:])
        del kept[first:]
        lost.append(Skip(start, end).segment())
        guard = LoopGuard(duration_s, kept)
    if not lost:
        return kept, 0.0
    merged: list[Segment] = []
    for one in sorted(lost, key=lambda one: one.start):
        if merged and one.start <= merged[-1].end:
            merged[-1] = Skip(merged[-1].start, max(merged[-1].end, one.end)).segment()
        else:
            merged.append(one)
    found = sorted([*kept, *merged], key=lambda one: (one.start, one.end))
    return found, sum(one.end - one.start for one in merged)
