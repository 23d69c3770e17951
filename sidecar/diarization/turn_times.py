"""Times by the turns of voices, of text whose model marks turns and says no times. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from sidecar.diarization.word_attribution import dominant_turns
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment


def moved_to_turns(
    segments: Sequence[Segment], turns: Sequence[SpeakerTurn], most_s: float
) -> list[Segment]:
    """Return the segments with times by which a border between two is where the dominant speaker
    changes, if that is at most ``most_s`` seconds away. What lies between two borders moves in
    proportion.

    ``segments``: in order of time. Each change is that of one border; the borders keep their order.
    """
    lines = dominant_turns(turns)
    changes = [(one.end, other.start) for one, other in pairwise(lines) if one.label != other.label]
    times, moved, known = [0.0], [0.0], [True]
    at = 0
    for one, other in pairwise(segments):
        border = (one.end + other.start) / 2
        at = max(at, bisect_left(changes, border - most_s, key=lambda change: change[1]))
        until = bisect_right(changes, border + most_s, key=lambda change: change[0])
        near = [min(max(border, end), start) for end, start in changes[at:until]]
        to = min(near, key=lambda time_s: abs(time_s - border), default=border)
        if near:
            at += near.index(to) + 1
            while moved[-1] >= to and not known[-1]:  # a border without a change gives way
                del times[-1], moved[-1], known[-1]
        if border > times[-1] and to > moved[-1]:
            times.append(border)
            moved.append(to)
            known.append(bool(near))
    last_s = max((one.end for one in segments), default=0.0)
    times.append(max(last_s, times[-1]))
    moved.append(max(last_s, moved[-1]))

    def when(time_s: float) -> float:
        return round(float(np.interp(time_s, times, moved)), 3)

    return [
        replace(
            one,
            start=when(one.start),
            end=when(one.end),
            words=tuple(
                replace(word, start=when(word.start), end=when(word.end)) for word in one.words
            ),
        )
        for one in segments
    ]
