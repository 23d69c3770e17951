"""Streaming diarizer, its snapshot, and speaker enrolment from a clip.

Windows of ten seconds follow each other by ``step_s``. Where somebody speaks is final up to
`heard_s`; who it is may be revised until `finish`, because a voice is told from another by all that
is heard of both: labels that are given once and kept go wrong for minutes. A label that is revised
stays the same number for the same voice, as far as two decisions agree what that is.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization import window_embeddings
from sidecar.diarization.clustering import (
    MIN_GAP_S,
    NO_SPEAKER,
    Labels,
    Matrix,
    cluster_directions,
    cluster_embeddings,
    renumber_speakers,
    speaker_activity,
    speakers_of_windows,
    speech_spans,
    turns_from_activity,
)
from sidecar.diarization.speaker_identification import DiarizedSpeakers, SpeakerVector
from sidecar.diarization.speaker_models import (
    EMBEDDING_SIZE,
    SingleSpeakerEncoder,
    SpeakerEncoder,
    SpeakerModels,
    Vector,
)
from sidecar.interfaces.engine_interface import DiarizationEffort, TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn


def window_to_json(window: window_embeddings.DiarizationWindow) -> dict[str, Any]:
    """A window as plain values."""
    return {
        "start": window.start,
        "packed": _array_to_base64(window.packed),
        "vectors": _array_to_base64(window.vectors),
        "alone_s": window.alone_s.tolist(),
        "heard": window.heard.tolist(),
    }


def window_from_json(values: Mapping[str, Any]) -> window_embeddings.DiarizationWindow:
    """The window that `window_to_json` wrote."""
    return window_embeddings.DiarizationWindow(
        values["start"],
        _array_from_base64(values["packed"], np.uint8),
        _array_from_base64(values["vectors"], np.float16).reshape(
            window_embeddings.MAX_WINDOW_SPEAKERS, EMBEDDING_SIZE
        ),
        np.array(values["alone_s"], np.float32),
        np.array(values["heard"], np.bool_),
    )


def speakers_to_json(
    persons: npt.NDArray[np.int64], known: Mapping[int, npt.NDArray[np.float32]]
) -> dict[str, Any]:
    """Return the speakers of all windows' voices, and the direction of each speaker's embedding."""
    return {
        "persons": _array_to_base64(persons.astype(np.int16)),
        "known": [[number, _array_to_base64(vector)] for number, vector in known.items()],
    }


def speakers_from_json(
    values: Mapping[str, Any],
) -> tuple[npt.NDArray[np.int64], dict[int, npt.NDArray[np.float32]]]:
    """Parse the output of `speakers_to_json`."""
    persons = (
        _array_from_base64(values["persons"], np.int16)
        .astype(np.int64)
        .reshape(-1, window_embeddings.MAX_WINDOW_SPEAKERS)
    )
    return persons, {
        number: _array_from_base64(text, np.float32) for number, text in values["known"]
    }


def _array_to_base64(array: npt.NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _array_from_base64(text: str, kind: type[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(b64decode(text), kind).copy()


STEP_S = 2.5
STEPS_S = {DiarizationEffort.BALANCED: STEP_S, DiarizationEffort.ACCURATE: 1.25}
"""From one look at who speaks to the next (docs/decisions/diarization-parameters.md)."""
SPEECH_STEP_S = 5.0
"""The same where nobody asks who, only whether."""
MIN_SPEAKER_S = 2.0
"""A voice of a window that is heard alone for less founds no person; it is given to one."""
RECLUSTER_INTERVAL_S = 10.0
"""Interval of clustering anew, and never oftener than each twentieth of what there is: so the
decisions over a recording cost as much as a few of its last one."""
_RECLUSTER_SHARE = 0.05
FIRST_TURNS_S = 9.0
"""The end of a window lacks what is said next."""
WINDOWS_PER_BATCH = 240
"""So many windows, of ten minutes, become turns at a time: memory does not follow the length."""


class Diarizer:
    """Follows one recording at 16 kHz; times in seconds from its start.

    ``num_speakers`` is a hint (`clustering.clustered`). Where voices are not to be told apart all
    turns are one person's, at a third of the cost. Memory: two kilobytes a window, beside the
    sound of the last twenty seconds. Not for two threads at once.
    """

    def __init__(
        self,
        models: SpeakerModels,
        step_s: float = STEP_S,
        num_speakers: int | None = None,
        *,
        tell_apart: bool = True,
    ) -> None:
        encoder = SpeakerEncoder(models) if tell_apart else SingleSpeakerEncoder()
        self._listening = window_embeddings.WindowExtractor(models, encoder, step_s)
        self._num_speakers = num_speakers
        self._windows: list[window_embeddings.DiarizationWindow] = []
        self._persons: Labels = np.empty((0, window_embeddings.MAX_WINDOW_SPEAKERS), np.int64)
        self._known: dict[int, npt.NDArray[np.float32]] = {}
        self._active: npt.NDArray[np.bool_] = np.zeros((0, 0), np.bool_)
        self._decided_s = 0.0
        self._finished = False

    @classmethod
    def wished(
        cls, models: SpeakerModels, options: TranscribeOptions, speech_step_s: float = SPEECH_STEP_S
    ) -> Self:
        """As a request wishes: whether voices are told apart, how closely, and among how many."""
        step_s = STEPS_S[options.diarization] if options.diarize else speech_step_s
        return cls(models, step_s, options.num_speakers, tell_apart=options.diarize)

    def feed(self, block: Block) -> None:
        """More of the recording, shape (samples,)."""
        self._listening.hear(block)
        self._take(self._listening.windows())

    def take(
        self, windows: Sequence[window_embeddings.DiarizationWindow], next_window: int, end: int
    ) -> None:
        """More windows, which were made elsewhere (`diarization.window_embeddings`), and no sound:
        up to ``end`` the recording is known, and the next one begins at ``next_window``; both in
        samples."""
        self._listening.skip_to(next_window, end)
        self._take(list(windows))

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Return the state of the windows behind the first ``after``, as plain values."""
        return {
            "windows": [window_to_json(window) for window in self._windows[after:]],
            "next": self._listening.next,
            "decided_s": self._decided_s,
            **speakers_to_json(self._persons, self._known),
        }

    @property
    def windows(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    def go_on(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Know all that the parts of a snapshot say, as if it had been heard here. What was heard
        by then comes again by `hear_again`, and what follows by `feed`."""
        last = parts[-1]
        self._windows = [window_from_json(values) for part in parts for values in part["windows"]]
        self._persons, self._known = speakers_from_json(last)
        self._decided_s = last["decided_s"]
        self._listening.go_on(last["next"])
        self._redraw(0)

    def replay_audio(self, block: Block) -> None:
        """Sound from the beginning on, up to where the snapshot was taken."""
        self._listening.replay_audio(block)

    def finish(self) -> None:
        """The recording is over: decide over all of it."""
        self._listening.finish()
        self._take(self._listening.windows())
        self.decide()
        self._finished = True

    @property
    def heard_s(self) -> float:
        """Up to here `speech` stays as it is. It is up to 18 s behind what was fed."""
        if self._finished:
            return self._listening.end_s
        return max(0.0, self._listening.heard_s - MIN_GAP_S)

    @property
    def told_s(self) -> float:
        """Up to here `speech` is worth listening to: the first window's is as soon as there is one,
        though later ones may move it a little, so that first words come early."""
        return max(FIRST_TURNS_S if self._windows else 0.0, self.heard_s)

    @property
    def turns(self) -> list[SpeakerTurn]:
        """Return the speaker turns so far; turns of two speakers may overlap."""
        return turns_from_activity(self._active, 0, self._listening.end_s)

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Return the spans with speech, in order. It does not depend on who is who."""
        speaking: npt.NDArray[np.bool_] = np.any(self._active, axis=1)
        return speech_spans(speaking, 0, self._listening.end_s)

    def speakers(self) -> DiarizedSpeakers:
        """Return the speakers and their turns; for when it is finished.

        An embedding is the mean of what the windows heard of a speaker alone, each second weighing
        the same; its seconds are those in which no other speaks.
        """
        voices: dict[int, SpeakerVector] = {}
        if not self._known:
            return DiarizedSpeakers(self.turns, voices)
        alone = window_embeddings.solo_activity(self._active)
        heard_s = alone.sum(axis=0) * window_embeddings.FRAME_STEP_S
        vectors = np.concatenate([window.vectors for window in self._windows]).astype(np.float32)
        weights = np.concatenate([window.alone_s * window.heard for window in self._windows])
        for person in self._known:
            mean: Vector = (weights * (self._persons.reshape(-1) == person)) @ vectors
            length = np.linalg.norm(mean)
            if length and person < len(heard_s) and heard_s[person]:
                voices[person] = SpeakerVector(mean / length, float(heard_s[person]))
        return DiarizedSpeakers(
            self.turns, voices, partial(window_embeddings.vectors_in_spans, self._windows)
        )

    def local_voices(self) -> Iterator[tuple[float, Vector]]:
        """The voices of each window by itself: seconds heard alone, and the vector."""
        for window in self._windows:
            for voice in np.flatnonzero(window.heard):
                yield float(window.alone_s[voice]), window.vectors[voice].astype(np.float32)

    def _take(self, windows: list[window_embeddings.DiarizationWindow]) -> None:
        """More windows: by the persons known, until it is time to decide anew."""
        if not windows:
            return
        first = len(self._windows)
        self._windows += windows
        heard_s = self._listening.heard_s
        due = heard_s - self._decided_s >= max(RECLUSTER_INTERVAL_S, _RECLUSTER_SHARE * heard_s)
        if due or (not self._known and any(window.heard.any() for window in windows)):
            self.decide()
            return
        self._persons = np.concatenate([self._persons, self._recognized(windows)])
        self._redraw(first)

    def _recognized(self, windows: list[window_embeddings.DiarizationWindow]) -> Labels:
        """Return the speakers of the windows' voices, among the speakers known."""
        if not self._known:
            return np.full((len(windows), window_embeddings.MAX_WINDOW_SPEAKERS), NO_SPEAKER)
        found = _assigned(windows, np.stack(list(self._known.values())))
        return np.where(found == NO_SPEAKER, NO_SPEAKER, np.array(list(self._known))[found])

    def decide(self) -> None:
        """Cluster speakers anew, over all audio so far. It happens by itself, too."""
        if not self._windows:
            return
        self._decided_s = self._listening.heard_s
        alone_s = np.concatenate([window.alone_s for window in self._windows])
        founding = alone_s >= min(MIN_SPEAKER_S, float(alone_s.max()) / 2)
        founding &= alone_s > 0
        if not founding.any():
            self._persons = np.full(
                (len(self._windows), window_embeddings.MAX_WINDOW_SPEAKERS), NO_SPEAKER
            )
            self._known = {}
        else:
            halves = np.concatenate([window.vectors for window in self._windows])
            vectors = halves[founding].astype(np.float32)
            labels = cluster_embeddings(vectors, alone_s[founding], self._num_speakers)
            centroids = cluster_directions(vectors, labels)
            persons = _assigned(self._windows, centroids)
            numbers = renumber_speakers(
                self._persons, persons[: len(self._persons)], len(centroids)
            )
            self._known = dict(zip(numbers.tolist(), centroids, strict=True))
            self._persons = np.where(persons == NO_SPEAKER, NO_SPEAKER, numbers[persons])
        self._redraw(0)

    def _redraw(self, first: int) -> None:
        """Recompute the speaker turns, from the window of that index on."""
        for at in range(first, len(self._windows), WINDOWS_PER_BATCH):
            self._draw(at, min(at + WINDOWS_PER_BATCH, len(self._windows)))

    def _draw(self, first: int, last: int) -> None:
        """Draw the activity from the begin of window ``first`` to that of window ``last``, or the
        end."""
        begin = self._windows[first].start
        over = last == len(self._windows)
        end = self._windows[-1].end if over else self._windows[last].start
        while first and self._windows[first - 1].end > begin:
            first -= 1
        windows = self._windows[first:last]
        drawn = speaker_activity(
            [window.start for window in windows],
            [window.activity for window in windows],
            self._persons[first:last],
        )[begin - windows[0].start : end - windows[0].start]
        kept = self._active[:begin]
        width = max(drawn.shape[1], kept.shape[1] if len(kept) else 0)
        self._active = np.zeros((end, width), np.bool_)
        if len(kept):
            self._active[:begin, : kept.shape[1]] = kept
        self._active[begin:, : drawn.shape[1]] = drawn


def _assigned(windows: list[window_embeddings.DiarizationWindow], centroids: Matrix) -> Labels:
    alike = np.stack([window.vectors.astype(np.float32) @ centroids.T for window in windows])
    return speakers_of_windows(alike, np.stack([window.heard for window in windows]))
