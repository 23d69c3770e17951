"""One speaker of a transcript taken apart: which segments are whose, by their vectors.

Somebody says that two people were taken for one. As many are found as differ by themselves, and
two at least, for that was said; whether they do sound like two people is said beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.diarization.clustering import Labels, Matrix, clustered, cut, merges
from sidecar.diarization.speaker_identification import vector_of
from sidecar.transcripts.people import VoicePrint

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
