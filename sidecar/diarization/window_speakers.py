"""Speakers of a recording's windows: clustered from their embeddings, anew at any time."""

from collections.abc import Iterator
from functools import partial

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
"""Minimum solo speech of a local speaker for clustering; one with less is only assigned."""
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
        alone_s = np.concatenate([window.alone_s for window in self.windows])
        founding = alone_s >= min(MIN_SPEAKER_S, float(alone_s.max()) / 2)
        founding &= alone_s > 0
        if not founding.any():
            self.known = {}
            self.persons = self._assigned_to_known(self.windows)
        else:
            halves = np.concatenate([window.vectors for window in self.windows])
            vectors = halves[founding].astype(np.float32)
            labels = cluster_embeddings(vectors, alone_s[founding], self._count)
            centroids = cluster_directions(vectors, labels)
            persons = _assigned(self.windows, centroids)
            numbers = renumber_speakers(self.persons, persons[: len(self.persons)], len(centroids))
            self.known = dict(zip(numbers.tolist(), centroids, strict=True))
            self.persons = np.where(persons == NO_SPEAKER, NO_SPEAKER, numbers[persons])
        self._redraw(0)

    def cluster_anew(self, count: SpeakerCount | None) -> None:
        """Cluster the speakers of all windows for another number of them."""
        self._count = count
        self.cluster()

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
        return np.where(found == NO_SPEAKER, NO_SPEAKER, np.array(list(self.known))[found])

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


def _assigned(windows: list[DiarizationWindow], centroids: Matrix) -> Labels:
    alike = np.stack([window.vectors.astype(np.float32) @ centroids.T for window in windows])
    return speakers_of_windows(alike, np.stack([window.present for window in windows]))
