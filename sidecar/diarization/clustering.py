"""Which vectors are one person's: average linkage by cosine, pure.

The mean cosine between the members of two clusters is the product of their sums over the product
of their sizes. So a cluster is its sum and its size, and clusters of clusters cost what single
vectors do: many vectors are clustered in parts first, and then the parts' clusters, without any
loss but that of the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
