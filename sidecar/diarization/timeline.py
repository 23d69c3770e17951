"""Windows into turns: whose each local voice is, and who speaks when over all of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from sidecar.diarization.segmentation import FRAMES, LEAD_S, STEP_S, VOICES, Activity
from sidecar.transcripts.speaker_turns import Turn

NOBODY = -1
TWICE = 0.3
"""So much nearer another person has to be, in cosine, for two voices of a window to be one."""
LEAST_GAP_S = 0.5
"""A shorter silence within one voice is none: people breathe."""
LEAST_TURN_S = 0.1
"""A shorter turn is none."""

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def persons_of(alike: Matrix, heard: npt.NDArray[np.bool_]) -> Labels:
    """Who each voice of each window is: shape (windows, 3), `NOBODY` where there is none.

    ``alike``: the cosine of each voice to each person, shape (windows, 3, persons). ``heard``:
    shape (windows, 3), whether there is such a voice. Two voices of a window are two persons,
    unless each is so much nearer to the same one (`TWICE`).
    """
    windows, _, persons = alike.shape
    if not persons or not windows:
        return np.full((windows, VOICES), NOBODY)
    nearest = np.argsort(-alike, axis=2, kind="stable")[:, :, :VOICES]
    each, own = np.arange(windows), np.arange(VOICES)
    best, found = np.full(windows, -np.inf), np.zeros((windows, VOICES), np.int64)
    for choice in product(range(nearest.shape[2]), repeat=VOICES):
        chosen = nearest[:, own, choice]
        value = np.where(heard, alike[each[:, None], own, chosen], 0.0).sum(axis=1)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            twice = (chosen[:, one] == chosen[:, other]) & heard[:, one] & heard[:, other]
            value -= TWICE * twice
        better = value > best + 1e-9
        best[better], found[better] = value[better], chosen[better]
    return np.where(heard, found, NOBODY)


def renumbered(before: Labels, after: Labels, count: int) -> Labels:
    """The number of each new person: that of the old one who had most of the same voices.

    ``before``, ``after``: who each voice was and is, of the same shape. ``count``: how many are
    new. Who was nobody before gets the next number that is free.
    """
    old = int(before.max(initial=NOBODY)) + 1
    shared = np.zeros((old, count), np.int64)
    both = (before != NOBODY) & (after != NOBODY)
    np.add.at(shared, (before[both], after[both]), 1)
    numbers = np.full(count, NOBODY)
    while shared.any():
        was, now = np.unravel_index(int(shared.argmax()), shared.shape)
        numbers[now] = was
        shared[was], shared[:, now] = 0, 0
    fresh = numbers == NOBODY
    numbers[fresh] = old + np.arange(int(fresh.sum()))
    return numbers


def activity(
    starts: Sequence[int], windows: Sequence[Activity], persons: Labels
) -> npt.NDArray[np.bool_]:
    """Who speaks in each frame: shape (frames, persons), from the first window's first frame on.

    ``starts``: the first frame of each window, in order. As many persons speak as the windows have
    voices for it in the mean; who they are, each window says the louder the nearer a frame is to
    its middle.
    """
    count = int(persons.max(initial=NOBODY)) + 1
    origin = starts[0]
    votes = np.zeros((starts[-1] - origin + FRAMES, count), np.float32)
    looks, voices = np.zeros((2, len(votes)), np.int64)
    taper = np.hamming(FRAMES).astype(np.float32)
    for start, window, who in zip(starts, windows, persons, strict=True):
        at = slice(start - origin, start - origin + FRAMES)
        looks[at] += 1
        voices[at] += window.sum(axis=1)
        for person in set(who[who != NOBODY].tolist()):
            votes[at, person] += taper * window[:, who == person].any(axis=1)
    speaking = (2 * voices + looks) // np.maximum(2 * looks, 1)  # rounded, a half upwards
    rank = np.argsort(np.argsort(-votes, axis=1, kind="stable"), axis=1)
    active: npt.NDArray[np.bool_] = (rank < speaking[:, None]) & (votes > 0)
    return active


def turns_of(active: npt.NDArray[np.bool_], first: int, end_s: float) -> list[Turn]:
    """The turns in what `activity` says, in order; those of two persons may overlap.

    ``first``: the first frame. No turn goes beyond ``end_s``.
    """
    turns = [
        Turn(start, end, person)
        for person in range(active.shape[1])
        for start, end in stretches(active[:, person], first, end_s)
    ]
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def stretches(
    speaking: npt.NDArray[np.bool_], first: int, end_s: float, least_gap_s: float = LEAST_GAP_S
) -> list[tuple[float, float]]:
    """Where somebody speaks: short gaps closed, then short stretches left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speaking, [False]]).astype(np.int8)))
    found: list[tuple[float, float]] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        start = 0.0 if first + begin == 0 else (first + begin) * STEP_S + LEAD_S
        stop = min(end_s, (first + end) * STEP_S + LEAD_S)
        if found and start - found[-1][1] < least_gap_s:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return [(start, end) for start, end in found if end - start >= LEAST_TURN_S]
