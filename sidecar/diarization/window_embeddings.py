"""Local speakers of ten-second windows of a recording, and their embeddings.

A window depends only on the audio of its own blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.speaker_identification import SpeakerVector
from sidecar.diarization.speaker_models import (
    EMBEDDING_SIZE,
    FRAME_S,
    FRAME_SAMPLES,
    Frames,
    Mask,
    SpeakerEncoder,
    SpeakerModels,
    trunk_frames,
)
from sidecar.diarization.voice_splitting import Piece, split_speakers

WINDOW_SAMPLES = 160_000
"""Ten seconds, in samples."""
WINDOW_FRAMES = 589
"""Frames of the segmentation's output for a window."""
MAX_WINDOW_SPEAKERS = 3
"""Maximum number of local speakers in a window; their numbers mean nothing beyond it."""
FRAME_STEP_S = 0.016875
"""Step between two frames of the segmentation."""
RECEPTIVE_FIELD_S = 0.0619375
"""Receptive field of one frame."""
FRAME_LEAD_S = (RECEPTIVE_FIELD_S - FRAME_STEP_S) / 2
"""Start of the first frame in a window: a frame stands for the middle step of its field."""

Activity = npt.NDArray[np.bool_]
"""Shape (589, 3): whether a local speaker talks in a frame."""
NO_SPEECH_FRAMES, NO_SPEECH_STEPS = 6, 255
"""Frames (0.1 s) that have one probability of no speech in common, and the steps from 0 to 1."""
NoSpeech = npt.NDArray[np.uint8]
"""Shape (98,): the probabilities of a window, in steps."""

MIN_S = 0.3
"""Minimum speech of a local speaker in a span for an embedding."""


def solo_activity(active: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where only one speaker talks; shape as ``active``, (frames, speakers)."""
    alone: npt.NDArray[np.bool_] = active & (active.sum(axis=1) == 1)[:, None]
    return alone


def segment_speakers(
    models: SpeakerModels, windows: Sequence[Block]
) -> list[tuple[Activity, NoSpeech]]:
    """Return the activity of the local speakers of each window, and where nobody speaks.

    ``windows``: each of shape (160000,), at 16 kHz.
    """
    found, nobody = models.segmentation.run(None, {"waveforms": np.stack(windows)[:, None]})
    whole = WINDOW_FRAMES // NO_SPEECH_FRAMES * NO_SPEECH_FRAMES
    means = nobody[:, :whole].reshape(len(windows), -1, NO_SPEECH_FRAMES).mean(axis=2)
    steps = np.rint(means * NO_SPEECH_STEPS).astype(np.uint8)
    return list(zip(found > 0.5, steps, strict=True))


SEGMENTATION_BATCH = 4
"""Windows per call of the segmentation: as many as end in a block at the default step. Its
recurrent layers read their weights once for all of them."""
BLOCK = WINDOW_SAMPLES
"""Input of the trunk, in samples; blocks do not overlap, windows do."""
_HOP = round(FRAME_S * SAMPLE_RATE)
_FIRST_CENTRE_S = 0.0125
PIECE_FRAMES = 5
"""Frames of the trunk (0.4 s) in a group; the trunk processes all audio of a group or none."""
MIN_SOLO_S = 0.3
"""Minimum solo speech for an embedding of it; with less, all speech is used, overlaps included."""


@dataclass(frozen=True, slots=True, eq=False)
class DiarizationWindow:
    """Window of ten seconds; ``start``: its first frame, counted over the recording.

    ``packed``: bits of the activity. ``vectors``: embeddings of the local speakers, shape (3, 256),
    half precision. ``alone_s``: seconds of solo speech. ``present``: which local speakers exist.
    ``no_speech``: None if it was not kept.
    """

    start: int
    packed: npt.NDArray[np.uint8]
    vectors: npt.NDArray[np.float16]
    alone_s: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    no_speech: NoSpeech | None = None

    @property
    def end(self) -> int:
        """Return the frame after its last one."""
        return self.start + WINDOW_FRAMES

    @property
    def activity(self) -> Activity:
        """Return the activity of its local speakers."""
        bits = np.unpackbits(self.packed, count=WINDOW_FRAMES * MAX_WINDOW_SPEAKERS)
        return bits.reshape(WINDOW_FRAMES, MAX_WINDOW_SPEAKERS).astype(np.bool_)


class WindowExtractor:
    """Extractor of windows from audio, each once, in order.

    It keeps the audio from the start of the last window on, and the trunk's output for two blocks.
    The trunk runs only over the audio of a block with speech, as found in the window that starts
    with the block. So the frames of a block depend on no other window.
    """

    def __init__(self, models: SpeakerModels, encoder: SpeakerEncoder, step_s: float) -> None:
        self._models = models
        self._encoder = encoder
        self._step = round(step_s * SAMPLE_RATE)
        self.audio: Block = np.zeros(0, np.float32)
        self._sound_begin = 0
        self.next = 0
        """Start of the next window, in samples."""
        self._finished = False
        self._blocks: dict[int, tuple[Frames, Mask]] = {}
        self._speech: dict[int, Mask] = {}
        """Speech masks of the windows, by their start in samples."""

    @property
    def end(self) -> int:
        """Return the end of the audio, in samples."""
        return self._sound_begin + len(self.audio)

    @property
    def end_s(self) -> float:
        """Return the end of the audio, in seconds."""
        return self.end / SAMPLE_RATE

    @property
    def covered_s(self) -> float:
        """Return the time before which no later window starts, in seconds."""
        return min(self.next, self.end) / SAMPLE_RATE

    def hear(self, sound: Block) -> None:
        """Append audio, shape (samples,)."""
        self.audio = np.concatenate([self.audio, sound])

    def go_on(self, next_window: int) -> None:
        """Skip the windows before ``next_window``; the audio before it comes by `replay_audio`."""
        self.next = next_window

    def replay_audio(self, sound: Block) -> None:
        """Append audio of known windows."""
        self.hear(sound)
        self._forget()

    def finish(self) -> None:
        """End the audio."""
        self._finished = True

    def windows(self) -> list[DiarizationWindow]:
        """Return the new windows that are complete now."""
        begins = list(self._due())
        found = [self._window(*one) for one in zip(begins, self._segmented(begins), strict=True)]
        self._forget()
        return found

    def _due(self) -> Iterator[int]:
        """Yield the starts of the windows that are complete now, in samples."""
        complete = self.end if self._finished else self.end // BLOCK * BLOCK
        while self.next + WINDOW_SAMPLES <= complete:
            yield self.next
            # Half the step at the start of the recording, which few windows cover.
            self.next += self._step // (1 if self.next >= self._step else 2)
        if self._finished and self.next < self.end:
            last = max(0, self.end - WINDOW_SAMPLES)  # not padded: silence misleads
            if self.end >= FRAME_SAMPLES and (not self.next or self.next - self._step < last):
                yield last
            self.next = self.end

    def _segmented(self, begins: Sequence[int]) -> list[tuple[Activity, NoSpeech]]:
        """Return the output of `segment_speakers` for the windows that start at ``begins``."""
        found: list[tuple[Activity, NoSpeech]] = []
        for first in range(0, len(begins), SEGMENTATION_BATCH):
            batch = begins[first : first + SEGMENTATION_BATCH]
            sounds = [self._between(begin, begin + WINDOW_SAMPLES) for begin in batch]
            padded = [np.pad(sound, (0, WINDOW_SAMPLES - len(sound))) for sound in sounds]
            found += segment_speakers(self._models, padded)
        for begin, (active, _) in zip(begins, found, strict=True):
            active[_frames_in(self.end - begin) :] = False
            speech: Mask = np.any(active, axis=1)
            self._speech[begin] = speech
        return found

    def _window(self, begin: int, segmented: tuple[Activity, NoSpeech]) -> DiarizationWindow:
        active, no_speech = segmented
        end = min(begin + WINDOW_SAMPLES, self.end)
        active = split_speakers(
            active, solo_activity(active), lambda pieces: self._vectors(begin, end, pieces)
        )
        alone = solo_activity(active)
        alone_s = (alone.sum(axis=0) * FRAME_STEP_S).astype(np.float32)
        vectors = np.zeros((MAX_WINDOW_SPEAKERS, EMBEDDING_SIZE), np.float16)
        present = np.zeros(MAX_WINDOW_SPEAKERS, np.bool_)
        for voice in np.flatnonzero(active.any(axis=0)):
            mask = alone if alone_s[voice] >= MIN_SOLO_S else active
            frames, weights = self._frames(begin, end, mask[:, voice])
            vector = self._encoder.pooled(frames, weights)
            if vector is None and mask[:, voice].sum() * FRAME_STEP_S >= MIN_SOLO_S:
                vector = self._encoder.pooled(*self._own_frames(begin, end, mask[:, voice]))
            present[voice] = vector is not None
            if vector is not None:
                vectors[voice] = vector
        start = round(begin / SAMPLE_RATE / FRAME_STEP_S)
        return DiarizationWindow(start, np.packbits(active), vectors, alone_s, present, no_speech)

    def _vectors(self, begin: int, end: int, pieces: Sequence[Piece]) -> npt.NDArray[np.float32]:
        """Return the embeddings of pieces of a window, given by their frames."""
        masks = np.zeros((len(pieces), WINDOW_FRAMES), np.bool_)
        for mask, piece in zip(masks, pieces, strict=True):
            mask[piece] = True
        frames, heard = self._frames(begin, end, np.ones(WINDOW_FRAMES, np.bool_))
        lead = begin // BLOCK * BLOCK - begin
        weights = np.stack([_at_trunk_frames(mask, lead, len(frames)) for mask in masks])
        return self._encoder.pooled_each(frames, weights * heard)

    def _frames(
        self, begin: int, end: int, mask: npt.NDArray[np.bool_]
    ) -> tuple[Frames, npt.NDArray[np.float32]]:
        """Return the trunk's frames of a window, and their weights by a mask over the window."""
        blocks = [self._block(block) for block in range(begin // BLOCK, -(-end // BLOCK))]
        frames = np.concatenate([frames for frames, _ in blocks])
        says_something = np.concatenate([says_something for _, says_something in blocks])
        weights = _at_trunk_frames(mask, begin // BLOCK * BLOCK - begin, len(frames))
        return frames, (weights & says_something).astype(np.float32)

    def _own_frames(
        self, begin: int, end: int, mask: npt.NDArray[np.bool_]
    ) -> tuple[Frames, npt.NDArray[np.float32]]:
        """Return frames and weights as `_frames`, of speech that only this window has found."""
        sound = self._between(begin, end)
        speech = _at_trunk_frames(mask, 0, trunk_frames(len(sound)))
        frames, says_something = self._encoder.frames_of_speech(sound, _in_pieces(speech))
        return frames, (speech & says_something).astype(np.float32)

    def _block(self, number: int) -> tuple[Frames, Mask]:
        """Return the trunk's output for a block, and which of its frames have speech.

        The last block of a recording is shorter; audio before it fills it up for the computation.
        """
        if number not in self._blocks:
            begin, end = number * BLOCK, min((number + 1) * BLOCK, self.end)
            window = max(0, end - BLOCK)
            early = window // _HOP * _HOP
            if window not in self._speech:
                self._segmented([window])
            sound = self._between(early, end)
            speech = _at_trunk_frames(
                self._speech[window], early - window, trunk_frames(len(sound))
            )
            frames, says_something = self._encoder.frames_of_speech(sound, _in_pieces(speech))
            lead = (begin - early) // _HOP
            self._blocks[number] = frames[lead:], says_something[lead:]
        return self._blocks[number]

    def _between(self, begin: int, end: int) -> Block:
        return self.audio[begin - self._sound_begin : end - self._sound_begin]

    def _forget(self) -> None:
        """Drop the audio and the blocks that no later window needs."""
        oldest = max(0, min(self.next, self.end - WINDOW_SAMPLES - _HOP)) // BLOCK
        begin = max(self._sound_begin, min(oldest * BLOCK, self.end - WINDOW_SAMPLES - _HOP))
        self.audio = self.audio[begin - self._sound_begin :]
        self._sound_begin = begin
        self._blocks = {at: block for at, block in self._blocks.items() if at >= oldest}
        self._speech = {at: speech for at, speech in self._speech.items() if at >= oldest * BLOCK}


def _at_trunk_frames(active: Mask, begin: int, count: int) -> Mask:
    """Return a window's activity, shape (589,), at the middle of ``count`` frames of the trunk.

    The first of these starts ``begin`` samples after the window's start. Outside of the window
    there is no activity.
    """
    centres_s = begin / SAMPLE_RATE + np.arange(count) * FRAME_S + _FIRST_CENTRE_S
    nearest = np.round((centres_s - RECEPTIVE_FIELD_S / 2) / FRAME_STEP_S).astype(np.int64)
    inside = (centres_s >= 0) & (centres_s < WINDOW_SAMPLES / SAMPLE_RATE)
    return active[np.clip(nearest, 0, WINDOW_FRAMES - 1)] & inside


def _in_pieces(speech: Mask) -> Mask:
    """Return the mask extended to whole groups of `PIECE_FRAMES` frames."""
    spoken = np.logical_or.reduceat(speech, np.arange(0, len(speech), PIECE_FRAMES))
    return np.repeat(spoken, PIECE_FRAMES)[: len(speech)]


def _frames_in(samples: int) -> int:
    """Return the number of frames that have their middle within ``samples`` samples."""
    last = round((samples / SAMPLE_RATE - RECEPTIVE_FIELD_S / 2) / FRAME_STEP_S)
    return max(0, min(WINDOW_FRAMES, last + 1))


def vectors_in_spans(
    windows: Sequence[DiarizationWindow], stretches: Sequence[tuple[float, float]]
) -> list[SpeakerVector | None]:
    """Return the embedding of each span of (start, end) seconds; `None` for too little speech.

    ``windows``: in order. In each window the local speaker with the most speech in the span counts.
    """
    frames = [
        (round((start - FRAME_LEAD_S) / FRAME_STEP_S), round((end - FRAME_LEAD_S) / FRAME_STEP_S))
        for start, end in stretches
    ]
    sums: list[npt.NDArray[np.float32] | float] = [0.0] * len(frames)
    seconds = [0.0] * len(frames)
    order = sorted(range(len(frames)), key=lambda at: frames[at])
    longest = max((end - begin for begin, end in frames), default=0)
    first = 0
    for window in windows:
        while first < len(order) and frames[order[first]][0] + longest < window.start:
            first += 1
        active = window.activity  # behind each embedding is solo speech, if there is enough
        alone = np.where(window.alone_s >= MIN_S, solo_activity(active), active)
        for at in order[first:]:
            begin, end = (min(max(one - window.start, 0), WINDOW_FRAMES) for one in frames[at])
            if frames[at][0] >= window.end:
                break
            inside = alone[begin:end].sum(axis=0)
            voice = int(inside.argmax())
            speech_s = float(inside[voice]) * FRAME_STEP_S
            if speech_s < MIN_S or not window.present[voice]:
                continue
            share = speech_s / (float(alone[:, voice].sum()) * FRAME_STEP_S)
            sums[at] = sums[at] + speech_s * share * window.vectors[voice].astype(np.float32)
            seconds[at] = max(seconds[at], speech_s)
    return [_speaker_vector(one, speech_s) for one, speech_s in zip(sums, seconds, strict=True)]


def no_speech_probability(
    windows: Sequence[DiarizationWindow], start: float, end: float
) -> float | None:
    """Return the mean probability that nobody speaks, from ``start`` to ``end`` in seconds, with
    three digits; None if the windows do not tell."""
    first, last = (round((one - FRAME_LEAD_S) / FRAME_STEP_S) for one in (start, end))
    parts: list[NoSpeech] = []
    for window in windows:
        if window.no_speech is not None and window.start < last and first < window.end:
            begin, stop = max(0, first - window.start), last - window.start
            begin = min(begin // NO_SPEECH_FRAMES, len(window.no_speech) - 1)
            parts.append(window.no_speech[begin : -(-stop // NO_SPEECH_FRAMES)])
    steps = np.concatenate(parts) if parts else np.zeros(0)
    return round(float(steps.mean()) / NO_SPEECH_STEPS, 3) if len(steps) else None


def _speaker_vector(total: npt.NDArray[np.float32] | float, seconds: float) -> SpeakerVector | None:
    length = float(np.linalg.norm(total))
    return SpeakerVector(np.asarray(total, np.float32) / length, seconds) if length else None
