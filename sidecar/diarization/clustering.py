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
from sidecar.diarization.speaker_models import SAMPLE_RATE, SpeakerModels
from sidecar.diarization.window_embeddings import (
    FRAME_LEAD_S,
    FRAME_STEP_S,
    MAX_WINDOW_SPEAKERS,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    Activity,
    segment_speakers,
)
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.speaker_turns import SpeakerTurn

SAME_SPEAKER_DISTANCE = 0.55
"""The mean distance (one less the cosine) up to which two clusters are one person. Anything from
0.45 to 0.65 does the same; 0.40 splits a voice, 0.70 takes two for one."""
MIN_SPEAKER_DISTANCE, MAX_SPEAKER_DISTANCE = 0.45, 0.7
"""Limits of the distance for a known number of speakers."""
MAX_CLUSTERED_VECTORS = 480
"""More vectors than that are clustered in parts of `PARTITION_VECTORS`."""
PARTITION_VECTORS = 240

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClusterMerge:
    """Two clusters become one, which keeps the lower number."""

    kept: int
    gone: int
    distance: float


def cluster_embeddings(
    vectors: Matrix, seconds: npt.NDArray[np.float32], num_speakers: int | None = None
) -> Labels:
    """The cluster of each vector, numbered from 0 in the order of their first members.

    ``vectors``: shape (count, size), of length 1. ``seconds``: shape (count,), how much each was
    heard. ``num_speakers`` is a hint: it moves the border between one voice and two within
    `MIN_SPEAKER_DISTANCE` and `MAX_SPEAKER_DISTANCE`, and only for clusters that are heard enough
    to be somebody.
    """
    sums, labels = vectors, np.arange(len(vectors))
    sizes = np.ones(len(vectors), np.float32)
    while len(sums) > MAX_CLUSTERED_VECTORS:
        found = np.empty(len(sums), np.int64)
        first = 0
        for begin in range(0, len(sums), PARTITION_VECTORS):
            part = slice(begin, begin + PARTITION_VECTORS)
            within = cut_tree(
                linkage_tree(sums[part], sizes[part]), len(sums[part]), SAME_SPEAKER_DISTANCE
            )
            found[part] = first + within
            first += int(within.max()) + 1
        if first == len(sums):
            break
        labels = found[labels]
        sums, sizes = _sums_by_label(sums, found, first), _sums_by_label(sizes, found, first)
    tree = linkage_tree(sums, sizes)
    border = SAME_SPEAKER_DISTANCE
    if num_speakers is not None:
        heard = np.bincount(labels, seconds, len(sums)).astype(np.float32)
        border = threshold_for_speakers(tree, heard, num_speakers)
    return cut_tree(tree, len(sums), border)[labels]


def cluster_directions(vectors: Matrix, labels: Labels) -> Matrix:
    """The direction of each cluster: shape (clusters, size), of length 1."""
    means = np.stack([vectors[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    found: Matrix = means / np.linalg.norm(means, axis=1, keepdims=True)
    return found


def linkage_tree(sums: Matrix, sizes: npt.NDArray[np.float32]) -> list[ClusterMerge]:
    """The whole tree of average linkage, nearest pairs first, by chains of nearest neighbours.

    ``sums``: shape (count, size), each the sum of ``sizes`` vectors of length 1.
    """
    count = len(sums)
    sizes = sizes.copy()
    apart = 1 - (sums @ sums.T) / np.outer(sizes, sizes)
    np.fill_diagonal(apart, np.inf)
    alive = np.ones(count, np.bool_)
    tree: list[ClusterMerge] = []
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
        tree.append(ClusterMerge(kept, gone, float(apart[kept, gone])))
        both = sizes[kept] + sizes[gone]
        mean = (sizes[kept] * apart[kept] + sizes[gone] * apart[gone]) / both
        apart[kept], apart[:, kept] = mean, mean
        apart[kept, kept] = np.inf
        apart[gone], apart[:, gone] = np.inf, np.inf
        sizes[kept] = both
        alive[gone] = False
    return sorted(tree, key=lambda merge: merge.distance)


def threshold_for_speakers(
    tree: list[ClusterMerge], seconds: npt.NDArray[np.float32], num_speakers: int
) -> float:
    """The border that gives the number of speakers hoped for, or comes nearest to it.

    A cluster counts that has at least a tenth of an equal share of what is heard: an outlier is
    no speaker, however far off it is. Where nothing within the bounds is nearer to the number than
    `SAME_SPEAKER_DISTANCE` is, that stands.
    """
    least_s = 0.1 * float(seconds.sum()) / num_speakers
    best, misses = SAME_SPEAKER_DISTANCE, None
    for border in _candidate_thresholds(tree):
        labels = cut_tree(tree, len(seconds), border)
        heard = np.bincount(labels, seconds)
        missed = abs(int((heard >= least_s).sum()) - num_speakers)
        if misses is None or (missed, abs(border - SAME_SPEAKER_DISTANCE)) < (
            misses,
            abs(best - SAME_SPEAKER_DISTANCE),
        ):
            best, misses = border, missed
    return best


def _candidate_thresholds(tree: list[ClusterMerge]) -> Iterator[float]:
    """`SAME_SPEAKER_DISTANCE`, and each border within the bounds that cuts the tree in another
    way."""
    inside = [
        merge.distance
        for merge in tree
        if MIN_SPEAKER_DISTANCE <= merge.distance <= MAX_SPEAKER_DISTANCE
    ]
    yield SAME_SPEAKER_DISTANCE
    for before, after in zip(
        [MIN_SPEAKER_DISTANCE, *inside], [*inside, MAX_SPEAKER_DISTANCE], strict=True
    ):
        yield (before + after) / 2


def cut_tree(tree: list[ClusterMerge], count: int, border: float) -> Labels:
    """The cluster of each, when what is nearer than ``border`` is one; numbered as they appear."""
    into = np.arange(count)
    for merge in tree:
        if merge.distance < border:
            into[into == into[merge.gone]] = into[merge.kept]
    _, first, labels = np.unique(into, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _sums_by_label(values: Matrix, labels: Labels, count: int) -> Matrix:
    """The sum of the values of each label."""
    found = np.zeros((count, *values.shape[1:]), values.dtype)
    np.add.at(found, labels, values)
    return found


MIN_FOUNDING_S = 1.5
"""A segment of which less is heard founds no group, unless none is heard longer."""
MIN_GROUP_SHARE = 0.1
"""A group that has less than this of an equal share is nobody: its segments go to the nearest."""
MAX_TREE_VECTORS = 480
"""So many segments say how many groups there are, those that are heard longest."""
REASSIGNMENT_ROUNDS = 5
"""Rounds in which segments go to the nearest group, and groups become the mean of theirs."""


@dataclass(frozen=True, slots=True)
class SplitSpeakerGroups:
    """Group of each segment, 0 being the one with most speech, and the cosine between the two
    most similar groups."""

    groups: list[int]
    likeness: float


def split_speaker(
    prints: Sequence[SpeakerEmbedding | None], into: int | None = None
) -> SplitSpeakerGroups | None:
    """Segments of one speaker, in order, as those of ``into`` people: at least two, and as many as
    there seem to be where nobody says. None where fewer segments have a vector.

    A segment without one goes with the one before it that has one, or else the one after.
    """
    known = [at for at, one in enumerate(prints) if one is not None]
    if len(known) < (into or 2):
        return None
    vectors = np.stack([vector_of(one) for one in prints if one is not None])
    seconds = np.array([one.seconds for one in prints if one is not None], np.float32)
    centres = _group_centroids(vectors, seconds, into)
    if centres is None:
        return None
    labels = _assign_to_nearest(vectors, seconds, centres)
    if len(np.unique(labels)) < len(centres):
        return None
    heard = np.bincount(labels, seconds, len(centres))
    order = np.argsort(np.argsort(-heard, kind="stable"))
    whose = dict(zip(known, order[labels].tolist(), strict=True))
    groups, last = [], whose[known[0]]
    for at in range(len(prints)):
        last = whose.get(at, last)
        groups.append(last)
    return SplitSpeakerGroups(groups, _cosine_similarity(vectors, seconds, labels))


def _group_centroids(
    vectors: Matrix, seconds: npt.NDArray[np.float32], into: int | None
) -> Matrix | None:
    """Return the centroids of the groups; None if the segments cannot be so many people."""
    founding = seconds >= min(MIN_FOUNDING_S, float(seconds.max()))
    if founding.sum() < (into or 2):
        founding[:] = True
    if into is None:
        labels = cluster_embeddings(vectors[founding], seconds[founding])
        groups = _large_groups(labels, seconds[founding])
        if len(groups) > 1:
            return _means(vectors[founding], seconds[founding], labels, groups)
    chosen = np.flatnonzero(founding)
    chosen = chosen[np.argsort(-seconds[chosen], kind="stable")[:MAX_TREE_VECTORS]]
    some, heard = vectors[chosen], seconds[chosen]
    tree = linkage_tree(some, np.ones(len(some), np.float32))
    for undone in range((into or 2) - 1, len(tree) + 1):
        labels = cut_tree(tree[: len(tree) - undone], len(some), np.inf)
        groups = _large_groups(labels, heard)
        if len(groups) >= (into or 2) or undone == len(tree):
            most = sorted(groups, key=lambda one: -float(heard[labels == one].sum()))
            found = sorted(most[: into or 2])
            return _means(some, heard, labels, found) if len(found) == (into or 2) else None
    return None


def _large_groups(labels: Labels, seconds: npt.NDArray[np.float32]) -> list[int]:
    """The groups that are heard enough to be somebody."""
    heard = np.bincount(labels, seconds)
    groups = np.flatnonzero(heard)
    while len(groups) > 1:
        least = MIN_GROUP_SHARE * float(heard[groups].sum()) / len(groups)
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


def _assign_to_nearest(
    vectors: Matrix, seconds: npt.NDArray[np.float32], centres: Matrix
) -> Labels:
    """The group of each segment. A group that would lose its last segment keeps what it sounds
    like, and its last segment."""
    labels: Labels = (vectors @ centres.T).argmax(axis=1)
    for _ in range(REASSIGNMENT_ROUNDS):
        if len(np.unique(labels)) < len(centres):
            break
        centres = _means(vectors, seconds, labels, range(len(centres)))
        anew: Labels = (vectors @ centres.T).argmax(axis=1)
        if len(np.unique(anew)) < len(centres) or (anew == labels).all():
            break
        labels = anew
    return labels


def _cosine_similarity(vectors: Matrix, seconds: npt.NDArray[np.float32], labels: Labels) -> float:
    means = _means(vectors, seconds, labels, np.unique(labels).tolist())
    alike = means @ means.T
    np.fill_diagonal(alike, -1.0)
    return round(float(alike.max()), 3)


NO_SPEAKER = -1
SAME_PERSON_MARGIN = 0.3
"""So much nearer another person has to be, in cosine, for two voices of a window to be one."""
MIN_GAP_S = 0.5
"""A shorter silence within one voice is none: people breathe."""
MIN_TURN_S = 0.1
"""A shorter turn is none."""


def speakers_of_windows(alike: Matrix, heard: npt.NDArray[np.bool_]) -> Labels:
    """Return the speaker of each voice of each window: shape (windows, 3), `NO_SPEAKER` if there is
    none.

    ``alike``: the cosine of each voice to each person, shape (windows, 3, persons). ``heard``:
    shape (windows, 3), whether there is such a voice. Two voices of a window are two persons,
    unless each is so much nearer to the same one (`SAME_PERSON_MARGIN`).
    """
    windows, _, persons = alike.shape
    if not persons or not windows:
        return np.full((windows, MAX_WINDOW_SPEAKERS), NO_SPEAKER)
    nearest = np.argsort(-alike, axis=2, kind="stable")[:, :, :MAX_WINDOW_SPEAKERS]
    each, own = np.arange(windows), np.arange(MAX_WINDOW_SPEAKERS)
    best, found = np.full(windows, -np.inf), np.zeros((windows, MAX_WINDOW_SPEAKERS), np.int64)
    for choice in product(range(nearest.shape[2]), repeat=MAX_WINDOW_SPEAKERS):
        chosen = nearest[:, own, choice]
        value = np.where(heard, alike[each[:, None], own, chosen], 0.0).sum(axis=1)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            twice = (chosen[:, one] == chosen[:, other]) & heard[:, one] & heard[:, other]
            value -= SAME_PERSON_MARGIN * twice
        better = value > best + 1e-9
        best[better], found[better] = value[better], chosen[better]
    return np.where(heard, found, NO_SPEAKER)


def renumber_speakers(before: Labels, after: Labels, count: int) -> Labels:
    """The number of each new person: that of the old one who had most of the same voices.

    ``before``, ``after``: who each voice was and is, of the same shape. ``count``: how many are
    new. Who was nobody before gets the next number that is free.
    """
    old = int(before.max(initial=NO_SPEAKER)) + 1
    shared = np.zeros((old, count), np.int64)
    both = (before != NO_SPEAKER) & (after != NO_SPEAKER)
    np.add.at(shared, (before[both], after[both]), 1)
    numbers = np.full(count, NO_SPEAKER)
    while shared.any():
        was, now = np.unravel_index(int(shared.argmax()), shared.shape)
        numbers[now] = was
        shared[was], shared[:, now] = 0, 0
    fresh = numbers == NO_SPEAKER
    numbers[fresh] = old + np.arange(int(fresh.sum()))
    return numbers


def speaker_activity(
    starts: Sequence[int], windows: Sequence[Activity], persons: Labels
) -> npt.NDArray[np.bool_]:
    """Return the activity of speakers in each frame: shape (frames, persons), from the first
    window's first frame on.

    ``starts``: the first frame of each window, in order. As many persons speak as the windows have
    voices for it in the mean; each window votes for its speakers with a weight that grows towards
    its middle.
    """
    count = int(persons.max(initial=NO_SPEAKER)) + 1
    origin = starts[0]
    votes = np.zeros((starts[-1] - origin + WINDOW_FRAMES, count), np.float32)
    looks, voices = np.zeros((2, len(votes)), np.int64)
    taper = np.hamming(WINDOW_FRAMES).astype(np.float32)
    for start, window, who in zip(starts, windows, persons, strict=True):
        at = slice(start - origin, start - origin + WINDOW_FRAMES)
        looks[at] += 1
        voices[at] += window.sum(axis=1)
        for person in set(who[who != NO_SPEAKER].tolist()):
            votes[at, person] += taper * window[:, who == person].any(axis=1)
    speaking = (2 * voices + looks) // np.maximum(2 * looks, 1)  # rounded, a half upwards
    rank = np.argsort(np.argsort(-votes, axis=1, kind="stable"), axis=1)
    active: npt.NDArray[np.bool_] = (rank < speaking[:, None]) & (votes > 0)
    return active


def turns_from_activity(
    active: npt.NDArray[np.bool_], first: int, end_s: float
) -> list[SpeakerTurn]:
    """The turns in what `speaker_activity` says, in order; those of two persons may overlap.

    ``first``: the first frame. No turn goes beyond ``end_s``.
    """
    turns = [
        SpeakerTurn(start, end, person)
        for person in range(active.shape[1])
        for start, end in speech_spans(active[:, person], first, end_s)
    ]
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def speech_spans(
    speaking: npt.NDArray[np.bool_], first: int, end_s: float, least_gap_s: float = MIN_GAP_S
) -> list[tuple[float, float]]:
    """Return the spans with speech: short gaps closed, then short spans left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speaking, [False]]).astype(np.int8)))
    found: list[tuple[float, float]] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        start = 0.0 if first + begin == 0 else (first + begin) * FRAME_STEP_S + FRAME_LEAD_S
        stop = min(end_s, (first + end) * FRAME_STEP_S + FRAME_LEAD_S)
        if found and start - found[-1][1] < least_gap_s:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return [(start, end) for start, end in found if end - start >= MIN_TURN_S]


SEGMENTATION_STEP_S = 5.0
"""From one window to the next."""


def detect_speech(models: SpeakerModels, samples: Block) -> list[tuple[float, float]]:
    """The stretches with speech, (start, end) in seconds, in order; every pause is one.

    ``samples``: shape (samples,), at 16 kHz. Costs 7 ms of CPU for each second.
    """
    last = max(0, len(samples) - WINDOW_SAMPLES)
    votes, looks = np.zeros((2, round(last / SAMPLE_RATE / FRAME_STEP_S) + WINDOW_FRAMES), np.int64)
    for begin in [*range(0, last, round(SEGMENTATION_STEP_S * SAMPLE_RATE)), last]:
        sound = samples[begin : begin + WINDOW_SAMPLES]
        (active,) = segment_speakers(models, [np.pad(sound, (0, WINDOW_SAMPLES - len(sound)))])
        at = round(begin / SAMPLE_RATE / FRAME_STEP_S)
        votes[at : at + WINDOW_FRAMES] += active.any(axis=1)
        looks[at : at + WINDOW_FRAMES] += 1
    return speech_spans(
        2 * votes >= np.maximum(looks, 1), 0, len(samples) / SAMPLE_RATE, least_gap_s=0.0
    )
