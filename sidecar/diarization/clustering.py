"""Clustering of speaker embeddings into speaker turns, speech regions, splitting of one speaker.

The mean cosine between the members of two clusters is the product of their sums over the product of
their sizes. So a cluster is its sum and its size, and clusters of clusters cost what single vectors
do: many vectors are clustered in parts first, and then the parts' clusters, without any loss but
that of the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.speaker_identification import vector_of
from sidecar.diarization.speaker_models import RATE, Models
from sidecar.diarization.window_embeddings import (
    FRAMES,
    LEAD_S,
    STEP_S,
    VOICES,
    WINDOW,
    Activity,
    segmentation,
)
from sidecar.transcripts.speaker_embeddings import VoicePrint
from sidecar.transcripts.speaker_turns import Turn

SAME_VOICE = 0.55
"""The mean distance (one less the cosine) up to which two clusters are one person. Anything from
0.45 to 0.65 does the same; 0.40 splits a voice, 0.70 takes two for one."""
CLOSEST, FARTHEST = 0.45, 0.7
"""How far a known number of speakers may move it."""
AT_ONCE = 480
"""More vectors than that are clustered in parts of `PART`."""
PART = 240

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Merge:
    """Two clusters become one, which keeps the lower number."""

    kept: int
    gone: int
    distance: float


def clustered(
    vectors: Matrix, seconds: npt.NDArray[np.float32], num_speakers: int | None = None
) -> Labels:
    """The cluster of each vector, numbered from 0 in the order of their first members.

    ``vectors``: shape (count, size), of length 1. ``seconds``: shape (count,), how much each was
    heard. ``num_speakers`` is a hint: it moves the border between one voice and two within
    `CLOSEST` and `FARTHEST`, and only for clusters that are heard enough to be somebody.
    """
    sums, labels = vectors, np.arange(len(vectors))
    sizes = np.ones(len(vectors), np.float32)
    while len(sums) > AT_ONCE:
        found = np.empty(len(sums), np.int64)
        first = 0
        for begin in range(0, len(sums), PART):
            part = slice(begin, begin + PART)
            within = cut(merges(sums[part], sizes[part]), len(sums[part]), SAME_VOICE)
            found[part] = first + within
            first += int(within.max()) + 1
        if first == len(sums):
            break
        labels = found[labels]
        sums, sizes = _gathered(sums, found, first), _gathered(sizes, found, first)
    tree = merges(sums, sizes)
    border = SAME_VOICE
    if num_speakers is not None:
        heard = np.bincount(labels, seconds, len(sums)).astype(np.float32)
        border = hinted(tree, heard, num_speakers)
    return cut(tree, len(sums), border)[labels]


def directions(vectors: Matrix, labels: Labels) -> Matrix:
    """The direction of each cluster: shape (clusters, size), of length 1."""
    means = np.stack([vectors[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    found: Matrix = means / np.linalg.norm(means, axis=1, keepdims=True)
    return found


def merges(sums: Matrix, sizes: npt.NDArray[np.float32]) -> list[Merge]:
    """The whole tree of average linkage, nearest pairs first, by chains of nearest neighbours.

    ``sums``: shape (count, size), each the sum of ``sizes`` vectors of length 1.
    """
    count = len(sums)
    sizes = sizes.copy()
    apart = 1 - (sums @ sums.T) / np.outer(sizes, sizes)
    np.fill_diagonal(apart, np.inf)
    alive = np.ones(count, np.bool_)
    tree: list[Merge] = []
    chain: list[int] = []
    while len(tree) < count - 1:
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            here = chain[-1]
            row = apart[here]
            near = int(row.argmin())
            if len(chain) > 1 and row[chain[-2]] <= row[near]:
                near = chain[-2]
                break
            chain.append(near)
        kept, gone = sorted(chain[-2:])
        del chain[-2:]
        tree.append(Merge(kept, gone, float(apart[kept, gone])))
        both = sizes[kept] + sizes[gone]
        mean = (sizes[kept] * apart[kept] + sizes[gone] * apart[gone]) / both
        apart[kept], apart[:, kept] = mean, mean
        apart[kept, kept] = np.inf
        apart[gone], apart[:, gone] = np.inf, np.inf
        sizes[kept] = both
        alive[gone] = False
    return sorted(tree, key=lambda merge: merge.distance)


def hinted(tree: list[Merge], seconds: npt.NDArray[np.float32], num_speakers: int) -> float:
    """The border that gives the number of speakers hoped for, or comes nearest to it.

    A cluster counts that has at least a tenth of an equal share of what is heard: an outlier is
    no speaker, however far off it is. Where nothing within the bounds is nearer to the number than
    `SAME_VOICE` is, that stands.
    """
    least_s = 0.1 * float(seconds.sum()) / num_speakers
    best, misses = SAME_VOICE, None
    for border in _borders(tree):
        labels = cut(tree, len(seconds), border)
        heard = np.bincount(labels, seconds)
        missed = abs(int((heard >= least_s).sum()) - num_speakers)
        if misses is None or (missed, abs(border - SAME_VOICE)) < (misses, abs(best - SAME_VOICE)):
            best, misses = border, missed
    return best


def _borders(tree: list[Merge]) -> Iterator[float]:
    """`SAME_VOICE`, and each border within the bounds that cuts the tree in another way."""
    inside = [merge.distance for merge in tree if CLOSEST <= merge.distance <= FARTHEST]
    yield SAME_VOICE
    for before, after in zip([CLOSEST, *inside], [*inside, FARTHEST], strict=True):
        yield (before + after) / 2


def cut(tree: list[Merge], count: int, border: float) -> Labels:
    """The cluster of each, when what is nearer than ``border`` is one; numbered as they appear."""
    into = np.arange(count)
    for merge in tree:
        if merge.distance < border:
            into[into == into[merge.gone]] = into[merge.kept]
    _, first, labels = np.unique(into, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _gathered(values: Matrix, labels: Labels, count: int) -> Matrix:
    """The sum of the values of each label."""
    found = np.zeros((count, *values.shape[1:]), values.dtype)
    np.add.at(found, labels, values)
    return found


FOUNDS_S = 1.5
"""A segment of which less is heard founds no group, unless none is heard longer."""
SHARE = 0.1
"""A group that has less than this of an equal share is nobody: its segments go to the nearest."""
TREE = 480
"""So many segments say how many groups there are, those that are heard longest."""
ROUNDS = 5
"""How often segments go to the nearest group, and groups become the mean of theirs."""


@dataclass(frozen=True, slots=True)
class Parted:
    """The group of each segment, 0 being the one that is heard most, and the cosine between the
    two groups that are most alike."""

    groups: list[int]
    likeness: float


def parted(prints: Sequence[VoicePrint | None], into: int | None = None) -> Parted | None:
    """Segments of one speaker, in order, as those of ``into`` people: at least two, and as many as
    there seem to be where nobody says. None where fewer segments have a vector.

    A segment without one goes with the one before it that has one, or else the one after.
    """
    known = [at for at, one in enumerate(prints) if one is not None]
    if len(known) < (into or 2):
        return None
    vectors = np.stack([vector_of(one) for one in prints if one is not None])
    seconds = np.array([one.seconds for one in prints if one is not None], np.float32)
    centres = _centres(vectors, seconds, into)
    if centres is None:
        return None
    labels = _nearest(vectors, seconds, centres)
    if len(np.unique(labels)) < len(centres):
        return None
    heard = np.bincount(labels, seconds, len(centres))
    order = np.argsort(np.argsort(-heard, kind="stable"))
    whose = dict(zip(known, order[labels].tolist(), strict=True))
    groups, last = [], whose[known[0]]
    for at in range(len(prints)):
        last = whose.get(at, last)
        groups.append(last)
    return Parted(groups, _likeness(vectors, seconds, labels))


def _centres(vectors: Matrix, seconds: npt.NDArray[np.float32], into: int | None) -> Matrix | None:
    """What the groups sound like; None where the segments cannot be so many people."""
    founding = seconds >= min(FOUNDS_S, float(seconds.max()))
    if founding.sum() < (into or 2):
        founding[:] = True
    if into is None:
        labels = clustered(vectors[founding], seconds[founding])
        groups = _solid(labels, seconds[founding])
        if len(groups) > 1:
            return _means(vectors[founding], seconds[founding], labels, groups)
    chosen = np.flatnonzero(founding)
    chosen = chosen[np.argsort(-seconds[chosen], kind="stable")[:TREE]]
    some, heard = vectors[chosen], seconds[chosen]
    tree = merges(some, np.ones(len(some), np.float32))
    for undone in range((into or 2) - 1, len(tree) + 1):
        labels = cut(tree[: len(tree) - undone], len(some), np.inf)
        groups = _solid(labels, heard)
        if len(groups) >= (into or 2) or undone == len(tree):
            most = sorted(groups, key=lambda one: -float(heard[labels == one].sum()))
            found = sorted(most[: into or 2])
            return _means(some, heard, labels, found) if len(found) == (into or 2) else None
    return None


def _solid(labels: Labels, seconds: npt.NDArray[np.float32]) -> list[int]:
    """The groups that are heard enough to be somebody."""
    heard = np.bincount(labels, seconds)
    groups = np.flatnonzero(heard)
    while len(groups) > 1:
        least = SHARE * float(heard[groups].sum()) / len(groups)
        enough = groups[heard[groups] >= least]
        if len(enough) == len(groups):
            break
        groups = enough
    return [int(one) for one in groups]


def _means(
    vectors: Matrix, seconds: npt.NDArray[np.float32], labels: Labels, groups: Sequence[int]
) -> Matrix:
    """The direction of each of those groups, each second weighing the same."""
    sums = np.stack([seconds[labels == one] @ vectors[labels == one] for one in groups])
    found: Matrix = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return found


def _nearest(vectors: Matrix, seconds: npt.NDArray[np.float32], centres: Matrix) -> Labels:
    """The group of each segment. A group that would lose its last segment keeps what it sounds
    like, and its last segment."""
    labels: Labels = (vectors @ centres.T).argmax(axis=1)
    for _ in range(ROUNDS):
        if len(np.unique(labels)) < len(centres):
            break
        centres = _means(vectors, seconds, labels, range(len(centres)))
        anew: Labels = (vectors @ centres.T).argmax(axis=1)
        if len(np.unique(anew)) < len(centres) or (anew == labels).all():
            break
        labels = anew
    return labels


def _likeness(vectors: Matrix, seconds: npt.NDArray[np.float32], labels: Labels) -> float:
    means = _means(vectors, seconds, labels, np.unique(labels).tolist())
    alike = means @ means.T
    np.fill_diagonal(alike, -1.0)
    return round(float(alike.max()), 3)


NOBODY = -1
TWICE = 0.3
"""So much nearer another person has to be, in cosine, for two voices of a window to be one."""
LEAST_GAP_S = 0.5
"""A shorter silence within one voice is none: people breathe."""
LEAST_TURN_S = 0.1
"""A shorter turn is none."""


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


LOOK_S = 5.0
"""From one window to the next."""


def speech(models: Models, samples: Block) -> list[tuple[float, float]]:
    """The stretches with speech, (start, end) in seconds, in order; every pause is one.

    ``samples``: shape (samples,), at 16 kHz. Costs 7 ms of CPU for each second.
    """
    last = max(0, len(samples) - WINDOW)
    votes, looks = np.zeros((2, round(last / RATE / STEP_S) + FRAMES), np.int64)
    for begin in [*range(0, last, round(LOOK_S * RATE)), last]:
        sound = samples[begin : begin + WINDOW]
        active = segmentation(models, np.pad(sound, (0, WINDOW - len(sound))))
        at = round(begin / RATE / STEP_S)
        votes[at : at + FRAMES] += active.any(axis=1)
        looks[at : at + FRAMES] += 1
    return stretches(2 * votes >= np.maximum(looks, 1), 0, len(samples) / RATE, least_gap_s=0.0)
