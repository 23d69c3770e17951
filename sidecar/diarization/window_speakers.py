"""Speakers of a recording's windows: clustered from their embeddings, anew at any time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
import numpy.typing as npt

from sidecar.diarization import speaker_identification, window_embeddings
from sidecar.diarization.clustering import (
    NO_SPEAKER,
    Labels,
    Matrix,
    SpeakerCount,
    cluster_directions,
    cluster_embeddings,
    renumber_speakers,
    speaker_activity,
    speakers_of_windows,
    speech_spans,
    turns_from_activity,
)
from sidecar.diarization.speaker_models import Vector
from sidecar.diarization.window_embeddings import DiarizationWindow
from sidecar.transcripts.speaker_turns import SpeakerTurn

MIN_SPEAKER_S = 2.0
"""Minimum solo speech of a local speaker for clustering."""
MIN_FOUNDING_S = 0.5
"""Minimum solo speech of a local speaker that founds a speaker although it is not clustered."""
FOUNDING_LIKENESS = 0.25
"""Maximum cosine of a founding local speaker to every speaker. In the mixtures of
`bench.meetings` 0.22 leaves out more people, and 0.33 makes speakers of words that two people say
at once."""
WANTED_LIKENESS = 0.5
"""The same while there are fewer speakers than the client says."""
SAME_LIKENESS = 0.45
"""Minimum cosine of two local speakers that found one speaker together."""
FEW_WINDOWS = 3
"""Windows up to which a cluster of one local speaker is a speaker, and nobody is by less speech:
most speech is in one of them only."""
MIN_FOUNDING_SHARE = 0.0075
"""Minimum share of the solo speech of a founded speaker, so that the noises of a long recording are
no speakers; with 0.005 one of 30 recordings of one person has two."""
WINDOWS_PER_BATCH = 240
"""Windows (ten minutes) turned into activity at a time: memory does not grow with the length."""


class WindowSpeakers:
    """Windows of a recording, in order, and the speakers of their local speakers.

    ``count`` is a hint (`clustering.cluster_embeddings`). A speaker keeps its number from one
    clustering to the next, as far as the two agree. Not thread-safe. ``windows_per_batch``: as
    `WINDOWS_PER_BATCH`.
    """

    def __init__(
        self, count: SpeakerCount | None = None, *, windows_per_batch: int = WINDOWS_PER_BATCH
    ) -> None:
        self._count, self._windows_per_batch = count, windows_per_batch
        self.windows: list[DiarizationWindow] = []
        self.persons: Labels = np.empty((0, window_embeddings.MAX_WINDOW_SPEAKERS), np.int64)
        """Speaker of each local speaker of each window: shape (windows, 3)."""
        self.known: dict[int, npt.NDArray[np.float32]] = {}
        """Centroids of the speakers, by their numbers."""
        self._active: npt.NDArray[np.bool_] = np.zeros((0, 0), np.bool_)

    def go_on(
        self, windows: list[DiarizationWindow], known: dict[int, npt.NDArray[np.float32]]
    ) -> None:
        """Start from windows and speakers of before."""
        self.windows, self.known = windows, known
        self.persons = self._assigned_to_known(windows)
        self._redraw(0)

    def add(self, windows: list[DiarizationWindow]) -> None:
        """Append windows without clustering: their local speakers are among the known ones."""
        first = len(self.windows)
        self.windows += windows
        self.persons = np.concatenate([self.persons, self._assigned_to_known(windows)])
        self._redraw(first)

    def cluster(self, windows: list[DiarizationWindow] | None = None) -> None:
        """Append windows, and cluster the speakers of all."""
        self.windows += windows or []
        if not self.windows:
            return
        centroids = speaker_centroids(self.windows, self._count)
        persons = _assigned(self.windows, centroids)
        numbers = renumber_speakers(self.persons, persons[: len(self.persons)], len(centroids))
        self.known = dict(zip(numbers.tolist(), centroids, strict=True))
        self.persons = _numbered(persons, numbers)
        self._redraw(0)

    def cluster_anew(self, count: SpeakerCount | None) -> None:
        """Cluster the speakers of all windows for another number of them.

        An exact number is that of speakers with turns. Words at which other windows hear somebody
        else found a speaker without any: then one more is founded, as long as that is not too many.
        """
        self._cluster_as(count)
        if count is None or not count.exact:
            return
        for wanted in range(count.least + 1, 2 * count.least):
            if self._with_turns >= count.least:
                return
            self._cluster_as(replace(count, least=wanted, most=wanted))
            if self._with_turns > count.least:
                self._cluster_as(replace(count, least=wanted - 1, most=wanted - 1))
                return

    def _cluster_as(self, count: SpeakerCount | None) -> None:
        self._count = count
        self.cluster()

    @property
    def _with_turns(self) -> int:
        """Return the number of speakers with turns."""
        return len({turn.label for turn in self.turns(inf)})

    def turns(self, end_s: float) -> list[SpeakerTurn]:
        """Return the speaker turns, which end at ``end_s`` at the latest; turns of two speakers may
        overlap."""
        return turns_from_activity(self._active, 0, end_s)

    def speech(self, end_s: float) -> list[tuple[float, float]]:
        """Return the spans with speech, in order; they do not depend on the speaker labels."""
        speaking: npt.NDArray[np.bool_] = np.any(self._active, axis=1)
        return speech_spans(speaking, 0, end_s)

    def speakers(self, end_s: float) -> speaker_identification.DiarizedSpeakers:
        """Return the speakers and their turns.

        An embedding is the mean over the windows, weighted by the seconds in which the speaker
        talks alone. Its ``seconds`` are those in which no other speaker talks.
        """
        turns = self.turns(end_s)
        voices: dict[int, speaker_identification.SpeakerVector] = {}
        if not self.known:
            return speaker_identification.DiarizedSpeakers(turns, voices)
        alone = window_embeddings.solo_activity(self._active)
        alone_s = alone.sum(axis=0) * window_embeddings.FRAME_STEP_S
        vectors = np.concatenate([window.vectors for window in self.windows]).astype(np.float32)
        weights = np.concatenate([window.alone_s * window.present for window in self.windows])
        for person in self.known:
            mean: Vector = (weights * (self.persons.reshape(-1) == person)) @ vectors
            length = np.linalg.norm(mean)
            if length and person < len(alone_s) and alone_s[person]:
                voices[person] = speaker_identification.SpeakerVector(
                    mean / length, float(alone_s[person])
                )
        return speaker_identification.DiarizedSpeakers(
            turns, voices, partial(window_embeddings.vectors_in_spans, self.windows)
        )

    def local_voices(self) -> Iterator[tuple[float, Vector]]:
        """Yield the local speakers of each window: seconds of solo speech, and the embedding."""
        for window in self.windows:
            for voice in np.flatnonzero(window.present):
                yield float(window.alone_s[voice]), window.vectors[voice].astype(np.float32)

    def _assigned_to_known(self, windows: list[DiarizationWindow]) -> Labels:
        """Return the speakers of the windows' local speakers, among the known speakers."""
        if not self.known:
            return np.full((len(windows), window_embeddings.MAX_WINDOW_SPEAKERS), NO_SPEAKER)
        found = _assigned(windows, np.stack(list(self.known.values())))
        return _numbered(found, np.array(list(self.known)))

    def _redraw(self, first: int) -> None:
        """Recompute the activity, from the window with index ``first`` on."""
        batch = self._windows_per_batch
        for at in range(first, len(self.windows), batch):
            self._draw(at, min(at + batch, len(self.windows)))

    def _draw(self, first: int, last: int) -> None:
        """Compute the activity from the start of window ``first`` to that of window ``last``, or
        the end."""
        begin = self.windows[first].start
        over = last == len(self.windows)
        end = self.windows[-1].end if over else self.windows[last].start
        while first and self.windows[first - 1].end > begin:
            first -= 1
        windows = self.windows[first:last]
        drawn = speaker_activity(
            [window.start for window in windows],
            [window.activity for window in windows],
            self.persons[first:last],
        )[begin - windows[0].start : end - windows[0].start]
        kept = self._active[:begin]
        width = max(drawn.shape[1], kept.shape[1] if len(kept) else 0)
        self._active = np.zeros((end, width), np.bool_)
        if len(kept):
            self._active[:begin, : kept.shape[1]] = kept
        self._active[begin:, : drawn.shape[1]] = drawn


def speaker_centroids(windows: Sequence[DiarizationWindow], count: SpeakerCount | None) -> Matrix:
    """Return the centroids of the speakers of windows: shape (speakers, 256), of length 1.

    Local speakers with enough solo speech are clustered. Of the others, and of those that are alone
    in their cluster (unless there are few windows), the least alike to all speakers founds one,
    again and again, as long as it is unlike enough, or speakers are missing for ``count``. A hint
    that is not reached so moves the threshold of clustering; for an exact number the farthest of
    all local speakers found one.
    """
    alone_s = np.concatenate([window.alone_s for window in windows])
    present = np.concatenate([window.present for window in windows])
    clustered = present & (alone_s >= min(MIN_SPEAKER_S, float(alone_s.max()) / 2)) & (alone_s > 0)
    used = clustered | (present & (alone_s >= MIN_FOUNDING_S))
    halves = np.concatenate([window.vectors for window in windows])
    if not clustered.any():
        return np.zeros((0, halves.shape[1]), np.float32)
    voices = halves[used].astype(np.float32), alone_s[used], clustered[used]
    few = len(windows) <= FEW_WINDOWS
    found = founded_centroids(*voices, None, count, few=few)
    if count is None or count.least <= len(found) <= (count.most or len(found)):
        return found
    if count.exact:
        return _with_farthest(found, voices[0], count.least)
    return founded_centroids(*voices, count, count, few=few)


def founded_centroids(
    vectors: Matrix,
    alone_s: npt.NDArray[np.float32],
    clustered: npt.NDArray[np.bool_],
    threshold_count: SpeakerCount | None = None,
    count: SpeakerCount | None = None,
    *,
    few: bool,
    weights: npt.NDArray[np.int64] | None = None,
) -> Matrix:
    """Return the centroids of the speakers of embeddings, shape (speakers, 256), of length 1.

    ``vectors``: shape (count, 256); ``alone_s``: solo speech of each; ``clustered``: those that are
    clustered, with the threshold for ``threshold_count``. The others found speakers, and so do
    those that are alone in their cluster. Of ``few`` each cluster is a speaker, and nobody else
    unless speakers are missing for ``count``. ``weights``: how many each counts for in its cluster;
    None: one.
    """
    labels = cluster_embeddings(vectors[clustered], alone_s[clustered], threshold_count)
    label_s = np.bincount(labels, alone_s[clustered])
    sizes = np.bincount(labels, None if weights is None else weights[clustered])
    speakers = np.flatnonzero(sizes > (0 if few else 1))
    if not len(speakers):
        speakers = np.array([label_s.argmax()])
    if count is not None and count.exact and count.most is not None:
        largest = np.argsort(-label_s[speakers], kind="stable")[: count.most]
        speakers = np.sort(speakers[largest])
    centroids = list(cluster_directions(vectors[clustered], labels)[speakers])
    left = ~clustered
    left[clustered] = ~np.isin(labels, speakers)
    rest, rest_s = vectors[left], alone_s[left]
    least, most = (1, None) if count is None else (count.least, count.most)
    unlike = -1.0 if few else FOUNDING_LIKENESS
    alike = (rest @ np.stack(centroids).T).max(axis=1)
    while len(rest) and (most is None or len(centroids) < most):
        at = int(alike.argmin())
        if alike[at] >= (unlike if len(centroids) >= least else WANTED_LIKENESS):
            break
        same = rest @ rest[at] >= SAME_LIKENESS
        if len(centroids) < least or rest_s[same].sum() >= MIN_FOUNDING_SHARE * alone_s.sum():
            mean = rest[same].mean(axis=0)
            centroids.append(mean / np.linalg.norm(mean))
            alike = np.maximum(alike, rest @ centroids[-1])
        rest, rest_s, alike = rest[~same], rest_s[~same], alike[~same]
    return np.stack(centroids)


def _with_farthest(centroids: Matrix, vectors: Matrix, least: int) -> Matrix:
    """Return the centroids, and as many of the vectors that are farthest from all as are missing,
    each with those that are like it and nearer to it than to any centroid."""
    while len(centroids) < least and len(vectors):
        alike = (vectors @ centroids.T).max(axis=1)
        to_farthest = vectors @ vectors[alike.argmin()]
        same = to_farthest >= np.maximum(alike, SAME_LIKENESS)
        mean = vectors[same].mean(axis=0)
        centroids = np.concatenate([centroids, mean[None] / np.linalg.norm(mean)])
        vectors = vectors[~same]
    return centroids


def _assigned(windows: list[DiarizationWindow], centroids: Matrix) -> Labels:
    alike = np.stack([window.vectors.astype(np.float32) @ centroids.T for window in windows])
    return speakers_of_windows(alike, np.stack([window.present for window in windows]))


def _numbered(speakers: Labels, numbers: Labels) -> Labels:
    """Return the numbers of speakers by their place in ``numbers``; of none `NO_SPEAKER`."""
    found: Labels = np.append(numbers, NO_SPEAKER)[speakers]  # `NO_SPEAKER` is the last place
    return found
