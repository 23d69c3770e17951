"""Split of a window's local speakers who are two people, by the embeddings of their speech. Pure.

The segmentation takes two people of one window for one more often than it takes one for two.
Lengths are in its frames of 17 ms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Activity = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]
Piece = npt.NDArray[np.int64]
"""Frames of a piece of one local speaker's speech, in order."""

PIECE_FRAMES = 57
"""Usual length of a piece, 0.96 s: embeddings of shorter ones differ too much, and longer ones hold
two people more often."""
MIN_PIECE_FRAMES = 24
"""Minimum length of a piece with an embedding, 0.4 s."""
MAX_PAUSE_FRAMES = 18
"""Maximum pause within a piece, 0.3 s."""
MIN_PERSON_FRAMES = 57
"""Minimum speech of each of two people who are told apart, so that no single sound is one."""
MAX_PEOPLE_LIKENESS = 0.3
"""Maximum cosine of the two. Of two people in far-field meetings 95 % are below it; with 0.35 one
person who is far from the microphone is split (docs/decisions/diarization-parameters.md)."""


@dataclass(frozen=True, slots=True)
class _Halves:
    """Two groups of pieces, ``of_second`` those of the second, and the cosine of the groups."""

    of_second: npt.NDArray[np.bool_]
    likeness: float


@dataclass(frozen=True, slots=True)
class _LocalSpeaker:
    """Pieces of a local speaker, and their embeddings."""

    pieces: Sequence[Piece]
    vectors: Matrix

    def halves(self) -> _Halves | None:
        """Return the two most coherent groups of pieces with enough speech each; None if there are
        none.

        Each pair of pieces proposes two groups, by which of the two the others are nearer to; so
        does each proposal with its groups' means.
        """
        frames = np.array([len(piece) for piece in self.pieces])
        if len(frames) < 2 or frames.sum() < 2 * MIN_PERSON_FRAMES:
            return None
        alike = self.vectors @ self.vectors.T
        one, other = np.triu_indices(len(frames), 1)
        proposed = alike[other] > alike[one]
        means = [_directions(part * frames, self.vectors) for part in (~proposed, proposed)]
        first, second = (mean @ self.vectors.T for mean in means)
        proposed = np.concatenate([proposed, second > first])
        sums = [(part * frames) @ self.vectors for part in (~proposed, proposed)]
        least = np.minimum(proposed @ frames, ~proposed @ frames)
        lengths = [np.linalg.norm(each, axis=1) for each in sums]
        coherent = np.where(least >= MIN_PERSON_FRAMES, lengths[0] + lengths[1], -1.0)
        best = int(coherent.argmax())
        if coherent[best] < 0:
            return None
        cosine = float(sums[0][best] @ sums[1][best] / (lengths[0][best] * lengths[1][best]))
        return _Halves(proposed[best], cosine)

    def part(self, chosen: npt.NDArray[np.bool_]) -> "_LocalSpeaker":
        """Return the local speaker of some pieces."""
        pieces = [piece for piece, one in zip(self.pieces, chosen, strict=True) if one]
        return _LocalSpeaker(pieces, self.vectors[chosen])


def split_speakers(
    active: Activity, alone: Activity, embeddings_of: Callable[[Sequence[Piece]], Matrix]
) -> Activity:
    """Return the activity of a window in which local speakers who are two people are two, the least
    alike first, as far as there are columns without speech.

    ``active``, ``alone``: shape (frames, local speakers), where each talks, and talks alone.
    ``embeddings_of``: function that returns the embeddings of pieces, each of length 1, or of zeros
    for a piece without any.
    """
    free = [one for one in range(active.shape[1]) if not active[:, one].any()]
    long = alone.sum(axis=0) >= 2 * MIN_PERSON_FRAMES
    if not free or not long.any():
        return active
    found = active.copy()
    speakers: dict[int, _LocalSpeaker] = {}
    for one in np.flatnonzero(long).tolist():
        if len(pieces := _pieces(np.flatnonzero(alone[:, one]))) > 1:
            vectors = embeddings_of(pieces)
            known: npt.NDArray[np.bool_] = np.any(vectors, axis=1)
            speakers[one] = _LocalSpeaker(pieces, vectors).part(known)
    while free:
        halves = {one: speaker.halves() for one, speaker in speakers.items()}
        unlike = {
            one: both
            for one, both in halves.items()
            if both is not None and both.likeness < MAX_PEOPLE_LIKENESS
        }
        if not unlike:
            break
        whole = min(unlike, key=lambda one: unlike[one].likeness)
        speaker, of_second, new = speakers[whole], unlike[whole].of_second, free.pop(0)
        second = found[:, whole] & _nearest(speaker.pieces, of_second, len(found))
        found[second, whole], found[second, new] = False, True
        speakers[whole], speakers[new] = speaker.part(~of_second), speaker.part(of_second)
    return found


def _pieces(frame_numbers: Piece) -> list[Piece]:
    """Return the frames of a local speaker in pieces of similar length, cut at pauses."""
    runs = np.split(frame_numbers, np.flatnonzero(np.diff(frame_numbers) > MAX_PAUSE_FRAMES) + 1)
    pieces = [
        piece
        for run in runs
        for piece in np.array_split(run, max(1, round(len(run) / PIECE_FRAMES)))
    ]
    return [piece for piece in pieces if len(piece) >= MIN_PIECE_FRAMES]


def _nearest(
    pieces: Sequence[Piece], chosen: npt.NDArray[np.bool_], frames: int
) -> npt.NDArray[np.bool_]:
    """Return for each of the frames whether the nearest piece is a chosen one."""
    edges = np.array([(piece[0], piece[-1]) for piece in pieces])
    at = np.arange(frames)[:, None]
    far = np.maximum(np.maximum(edges[:, 0] - at, at - edges[:, 1]), 0)
    nearest: npt.NDArray[np.bool_] = chosen[far.argmin(axis=1)]
    return nearest


def _directions(weights: npt.NDArray[np.int64], vectors: Matrix) -> Matrix:
    """Return the weighted means of vectors, of length 1; of no weight zeros."""
    sums = weights @ vectors
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    found: Matrix = (sums / lengths).astype(np.float32)
    return found
