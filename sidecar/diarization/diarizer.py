"""Streaming diarizer, its snapshot, diarization in the background of decoding, and enrolment.

Windows of ten seconds start every ``step_s``. Speech regions are final up to `speech_final_s`.
Speaker labels may be revised until `finish`, because speakers are distinguished by all of their
speech: labels that are never revised stay wrong for minutes. A speaker keeps its number across
revisions, as far as two decisions agree.
"""

import os
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization import speaker_identification, window_embeddings
from sidecar.diarization.clustering import MIN_GAP_S, SpeakerCount
from sidecar.diarization.speaker_models import (
    EMBEDDING_SIZE,
    SingleSpeakerEncoder,
    SpeakerEncoder,
    SpeakerModels,
)
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.diarization.word_attribution import MAX_JOINED_PAUSE_S
from sidecar.interfaces.engine_interface import DiarizationEffort, TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import SpeakerEmbedding, Transcript

Result = TypeVar("Result")
MAX_LEAD_S = 30.0
"""Maximum lead of diarization over recognition, so that two cores work at the same time."""
RESUME_POINT_INTERVAL_S = 20.0
"""Seconds of audio between resume points; diarization ahead of the words is lost with them."""
CANCEL_POLL_S = 0.05
"""Interval at which a waiting caller checks for cancellation."""


def window_to_json(window: window_embeddings.DiarizationWindow) -> dict[str, Any]:
    """Return a window as plain values."""
    plain = {
        "start": window.start,
        "packed": array_to_base64(window.packed),
        "vectors": array_to_base64(window.vectors),
        "alone_s": window.alone_s.tolist(),
        "heard": window.present.tolist(),
    }
    if window.no_speech is not None:
        plain["no_speech"] = array_to_base64(window.no_speech)
    return plain


def window_from_json(values: Mapping[str, Any]) -> window_embeddings.DiarizationWindow:
    """Parse the output of `window_to_json`, also of earlier releases."""
    no_speech = values.get("no_speech")
    return window_embeddings.DiarizationWindow(
        values["start"],
        array_from_base64(values["packed"], np.uint8),
        array_from_base64(values["vectors"], np.float16).reshape(
            window_embeddings.MAX_WINDOW_SPEAKERS, EMBEDDING_SIZE
        ),
        np.array(values["alone_s"], np.float32),
        np.array(values["heard"], np.bool_),
        None if no_speech is None else array_from_base64(no_speech, np.uint8),
    )


def array_to_base64(array: npt.NDArray[Any]) -> str:
    """Return the values of an array as text."""
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def array_from_base64(text: str, kind: type[Any]) -> npt.NDArray[Any]:
    """Return the values of `array_to_base64`, of this type, shape (values,)."""
    return np.frombuffer(b64decode(text), kind).copy()


STEP_S = 2.5
STEPS_S = {DiarizationEffort.BALANCED: STEP_S, DiarizationEffort.ACCURATE: 1.25}
"""Step between two windows (docs/decisions/diarization-parameters.md)."""
SPEECH_STEP_S = 5.0
"""Step between two windows if only speech regions are needed, not speakers."""
RECLUSTER_INTERVAL_S = 10.0
"""Interval of clustering, but at least a twentieth of the audio so far. So all clustering of a
recording costs as much as a few times the last one."""
_RECLUSTER_SHARE = 0.05
RECENT_WINDOWS = 100
"""Windows of an update: two minutes at the smallest step, in which all its utterances are."""
FIRST_TURNS_S = 9.0
"""Length of the first window's speech regions that is reported; its end lacks the context after."""


class Diarizer:
    """Streaming diarizer of one recording at 16 kHz; times in seconds from its start.

    ``count`` is a hint (`clustering.cluster_embeddings`). Without ``tell_apart`` all turns have one
    speaker, at a third of the cost. Memory: two kilobytes per window, and the audio of the last
    twenty seconds. Not thread-safe.
    """

    def __init__(
        self,
        models: SpeakerModels,
        step_s: float = STEP_S,
        count: SpeakerCount | None = None,
        *,
        tell_apart: bool = True,
    ) -> None:
        encoder = SpeakerEncoder(models) if tell_apart else SingleSpeakerEncoder()
        self.listening = window_embeddings.WindowExtractor(models, encoder, step_s)
        self.found = WindowSpeakers(count)
        """Windows so far, and their speakers."""
        self._decided_s = 0.0
        self._finished = False

    @classmethod
    def wished(cls, models: SpeakerModels, options: TranscribeOptions) -> Self:
        """Return a diarizer for the options of a request: diarization, effort, speaker count."""
        step_s = STEPS_S[options.diarization] if options.diarize else SPEECH_STEP_S
        return cls(models, step_s, SpeakerCount.wished(options), tell_apart=options.diarize)

    def feed(self, block: Block) -> None:
        """Append audio of the recording, shape (samples,)."""
        self.listening.hear(block)
        self._take(self.listening.windows())

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Return the state without the first ``after`` windows, as plain values. The speakers of
        windows follow from the known ones, so that its size does not grow with the recording."""
        return {
            "windows": [window_to_json(window) for window in self.found.windows[after:]],
            "next": self.listening.next,
            "decided_s": self._decided_s,
            "known": [[number, array_to_base64(one)] for number, one in self.found.known.items()],
        }

    @property
    def windows(self) -> int:
        """Return the number of windows."""
        return len(self.found.windows)

    @property
    def recent_windows(self) -> Sequence[window_embeddings.DiarizationWindow]:
        """Return the last `RECENT_WINDOWS`."""
        return self.found.windows[-RECENT_WINDOWS:]

    def go_on(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Resume from the parts of a snapshot.

        The caller then sends the audio before the snapshot by `replay_audio`, and the audio after
        it by `feed`.
        """
        last = parts[-1]
        windows = [window_from_json(values) for part in parts for values in part["windows"]]
        known = {at: array_from_base64(one, np.float32) for at, one in last["known"]}
        self.found.go_on(windows, known)
        self._decided_s = last["decided_s"]
        self.listening.go_on(last["next"])

    def replay_audio(self, block: Block) -> None:
        """Append audio from the start of the recording up to the snapshot."""
        self.listening.replay_audio(block)

    def finish(self) -> None:
        """End the recording, and cluster the speakers of all of it."""
        self.listening.finish()
        self._take(self.listening.windows())
        self.decide()
        self._finished = True

    @property
    def speech_final_s(self) -> float:
        """Return the time up to which `speech` is final; at most 18 s behind the audio."""
        if self._finished:
            return self.listening.end_s
        return max(0.0, self.listening.covered_s - MIN_GAP_S)

    @property
    def final_s(self) -> float:
        """Return the time up to which `speech` can be recognized.

        The first window counts at once up to its first pause, so that the first words come early
        (after silence at the start they do not). Behind that, later windows may find speech that
        this one has missed.
        """
        early_s = 0.0
        for start, end in self.speech if self.windows == 1 else ():
            if start - early_s >= MAX_JOINED_PAUSE_S:
                break
            early_s = end
        return max(
            min(early_s + MAX_JOINED_PAUSE_S, FIRST_TURNS_S) if early_s else 0.0,
            self.speech_final_s,
        )

    @property
    def turns(self) -> list[SpeakerTurn]:
        """Return the speaker turns so far; turns of two speakers may overlap."""
        return self.found.turns(self.listening.end_s)

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Return the spans with speech, in order; they do not depend on the speaker labels."""
        return self.found.speech(self.listening.end_s)

    def speakers(self) -> speaker_identification.DiarizedSpeakers:
        """Return the speakers and their turns, after `finish`."""
        return self.found.speakers(self.listening.end_s)

    def identified(self, transcript: Transcript, options: TranscribeOptions) -> Transcript:
        """Return the transcript with the profiles of its speakers, if the options request that."""
        speakers = self.speakers() if options.identifies_speakers else None
        return speaker_identification.identify_speakers(transcript, speakers, options)

    def _take(self, windows: list[window_embeddings.DiarizationWindow]) -> None:
        """Append windows; assign them to the known speakers, or cluster anew if that is due."""
        if not windows:
            return
        covered_s = self.listening.covered_s
        due = covered_s - self._decided_s >= max(RECLUSTER_INTERVAL_S, _RECLUSTER_SHARE * covered_s)
        if due or (not self.found.known and any(window.present.any() for window in windows)):
            self.decide(windows)
        else:
            self.found.add(windows)

    def decide(self, windows: list[window_embeddings.DiarizationWindow] | None = None) -> None:
        """Cluster the speakers of all audio so far, with more windows; this also happens
        automatically."""
        self.found.cluster(windows)
        self._decided_s = self.listening.covered_s


@dataclass(frozen=True, slots=True)
class DiarizationUpdate:
    """State of a diarization after ``end_s`` seconds.

    ``snapshot``: the changes since the last resume point, if one is due. ``windows``: the last
    `RECENT_WINDOWS`.
    """

    end_s: float
    final_s: float
    turns: Sequence[SpeakerTurn]
    snapshot: Mapping[str, Any] | None = None
    windows: Sequence[window_embeddings.DiarizationWindow] = ()


class _DiarizationState:
    """State of a recording's diarization, and the schedule of its resume points."""

    def __init__(self, diarizer: Diarizer, *, resumable: bool) -> None:
        self._diarizer, self._resumable = diarizer, resumable
        self._windows_before = diarizer.windows
        self._resume_point_s: float | None = None
        self.latest = DiarizationUpdate(0.0, 0.0, ())

    def hear(self, end_s: float, block: Block) -> DiarizationUpdate:
        """Diarize one more block, which ends at ``end_s``, and return the state."""
        self._diarizer.feed(block)
        final_s = self._diarizer.final_s
        turns = self._diarizer.turns if final_s > self.latest.final_s else self.latest.turns
        windows = self._diarizer.recent_windows
        self.latest = DiarizationUpdate(end_s, final_s, turns, windows=windows)
        return replace(self.latest, snapshot=self._snapshot(end_s))

    def finish(self) -> DiarizationUpdate:
        """End the recording and return the final state."""
        self._diarizer.finish()
        turns, windows = self._diarizer.turns, self._diarizer.recent_windows
        return DiarizationUpdate(self.latest.end_s, float("inf"), turns, windows=windows)

    def _snapshot(self, end_s: float) -> Mapping[str, Any] | None:
        if self._resume_point_s is None:
            self._resume_point_s = end_s
        if not self._resumable or end_s - self._resume_point_s < RESUME_POINT_INTERVAL_S:
            return None
        snapshot = self._diarizer.snapshot(self._windows_before)
        self._windows_before, self._resume_point_s = self._diarizer.windows, end_s
        return snapshot


def diarize_in_background(
    diarizer: Diarizer,
    blocks: Iterable[tuple[float, Block]],
    cancelled: Callable[[], bool] | None = None,
    *,
    resumable: bool = False,
) -> Iterator[DiarizationUpdate]:
    """Yield the state after each block of (its end in seconds, samples), and at the end.

    The diarization runs on another thread. Once there is speech to recognize, it is at most
    `MAX_LEAD_S` seconds ahead; on a machine with one core it is not ahead at all. When
    ``cancelled()`` returns `True`, this generator ends. The thread then finishes its block alone,
    which takes a second on a busy machine; without ``cancelled`` it is waited for.
    ``resumable``: with a snapshot every `RESUME_POINT_INTERVAL_S`.
    """
    ahead_s = MAX_LEAD_S if (os.cpu_count() or 1) > 1 else 0.0
    knowledge = _DiarizationState(diarizer, resumable=resumable)
    asked: deque[tuple[float, Future[DiarizationUpdate]]] = deque()
    thread = ThreadPoolExecutor(1, "voices")
    try:
        for end_s, block in blocks:
            asked.append((end_s, thread.submit(knowledge.hear, end_s, block)))
            while asked:
                allowed_s = ahead_s if knowledge.latest.final_s else 0.0
                if not asked[0][1].done() and end_s - asked[0][0] < allowed_s:
                    break
                if (update := wait_unless_cancelled(asked.popleft()[1], cancelled)) is None:
                    return
                yield update
        asked.append((0.0, thread.submit(knowledge.finish)))
        while asked:
            if (update := wait_unless_cancelled(asked.popleft()[1], cancelled)) is None:
                return
            yield update
    finally:
        thread.shutdown(wait=cancelled is None, cancel_futures=True)


def wait_unless_cancelled(
    future: Future[Result], cancelled: Callable[[], bool] | None
) -> Result | None:
    """Return the result of a thread, or `None` when ``cancelled()`` returns `True`.

    Work that has started by then ends by itself.
    """
    while cancelled is not None and not wait([future], CANCEL_POLL_S).done:
        if cancelled():
            future.cancel()
            return None
    return future.result()


def enrolment_embedding(models: SpeakerModels, blocks: Iterable[Block]) -> SpeakerEmbedding:
    """Return the embedding of the only speaker in a recording at 16 kHz.

    Raises:
        errors.VoiceAbsent, errors.VoiceTooShort, errors.SeveralVoices: as
            `speaker_identification.embedding_of_only_speaker`.
    """
    diarizer = Diarizer(models)
    for block in blocks:
        diarizer.feed(block)
    diarizer.finish()
    return speaker_identification.embedding_of_only_speaker(
        diarizer.speakers(), diarizer.found.local_voices()
    )
