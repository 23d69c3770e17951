"""Short pieces for a server that does not say when something was said: the lines of each voice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.diarization.lines import heard_with, lines_of
from sidecar.transcripts.speaker_turns import Turn, within
from sidecar.upstream.pieces import Piece, quiet_cut

LONGEST_S = 28.0
"""Whisper hears thirty seconds at once, and some servers leave out what is beyond."""
CUT_S = 7.0
"""A longer line is cut where it is quietest in the last so many seconds."""
SHORTEST_S = 0.2
"""Less has no word in it."""


def stretches_of(piece: Piece, turns: Sequence[Turn], heard_s: float) -> Iterator[Piece]:
    """The lines in a piece, each a piece; behind ``heard_s``, up to where ``turns`` are known, all
    of it, cut where it is quiet. Times of the recording, in seconds."""
    known_s = min(heard_s, piece.end_s)
    lines = lines_of(within(turns, piece.start_s, known_s))
    for index in range(len(lines)):
        start_s, end_s = heard_with(lines, index)
        yield from _short(piece, start_s, min(end_s, known_s))
    yield from _short(piece, max(known_s, piece.start_s), piece.end_s)


def _short(piece: Piece, start_s: float, end_s: float) -> Iterator[Piece]:
    while end_s - start_s > LONGEST_S:
        latest_s = start_s + LONGEST_S
        cut_s = quiet_cut(piece, latest_s - CUT_S, latest_s)
        yield piece.part(start_s, cut_s)
        start_s = cut_s
    if end_s - start_s >= SHORTEST_S:
        yield piece.part(start_s, end_s)
