"""Sound into windows: the local voices of each, and a vector for every one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.encoder import FRAME_S, SIZE, Frames, SpeakerEncoder
from sidecar.diarization.features import FRAME, RATE
from sidecar.diarization.models import Models
from sidecar.diarization.segmentation import (
    FIELD_S,
    FRAMES,
    STEP_S,
    VOICES,
    WINDOW,
    Activity,
    segmentation,
)

BLOCK = WINDOW
"""What the trunk takes at once, in samples; blocks do not overlap, windows do."""
_HOP = round(FRAME_S * RATE)
_BLOCK_FRAMES = BLOCK // _HOP
_FIRST_CENTRE_S = 0.0125
LEAST_ALONE_S = 0.3
"""A voice that is heard alone for less is told by all it says, others' words included."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Ten seconds: ``start`` is its first frame, counted over the recording.

    ``vectors``: shape (3, 256), half precision; ``alone_s``: seconds that each voice has the floor
    for itself; ``heard``: whether there is such a voice.
    """

    start: int
    packed: npt.NDArray[np.uint8]
    vectors: npt.NDArray[np.float16]
    alone_s: npt.NDArray[np.float32]
    heard: npt.NDArray[np.bool_]

    @property
    def end(self) -> int:
        """The frame behind its last one."""
        return self.start + FRAMES

    @property
    def activity(self) -> Activity:
        """Who of its voices speaks when."""
        bits = np.unpackbits(self.packed, count=FRAMES * VOICES)
        return bits.reshape(FRAMES, VOICES).astype(np.bool_)


class Listening:
    """Give it sound, take its windows, each once, in order.

    It holds the sound from the last window's begin on, and what the trunk made of two blocks. The
    trunk runs only where somebody speaks.
    """

    def __init__(self, models: Models, encoder: SpeakerEncoder, step_s: float) -> None:
        self._models = models
        self._encoder = encoder
        self._step = round(step_s * RATE)
        self._sound: Block = np.zeros(0, np.float32)
        self._sound_begin = 0
        self._next = 0
        self._finished = False
        self._blocks: dict[int, Frames] = {}

    @property
    def end(self) -> int:
        """How much there is, in samples."""
        return self._sound_begin + len(self._sound)

    @property
    def end_s(self) -> float:
        """How much there is, in seconds."""
        return self.end / RATE

    @property
    def held_s(self) -> float:
        """How much of the sound is kept."""
        return len(self._sound) / RATE

    @property
    def heard_s(self) -> float:
        """No later window reaches back beyond this."""
        return min(self._next, self.end) / RATE

    def hear(self, sound: Block) -> None:
        """More sound, shape (samples,)."""
        self._sound = np.concatenate([self._sound, sound])

    @property
    def next(self) -> int:
        """Where the next window begins, in samples."""
        return self._next

    def go_on(self, next_window: int) -> None:
        """The windows before that one are known; the sound before comes by `hear_again`."""
        self._next = next_window

    def leap(self, next_window: int, end: int) -> None:
        """The windows before that one are known, and nothing is wanted of the sound before ``end``,
        both in samples."""
        self._next, self._sound_begin = next_window, end
        self._sound = self._sound[:0]
        self._blocks = {}

    def hear_again(self, sound: Block) -> None:
        """Sound whose windows are known."""
        self.hear(sound)
        self._forget()

    def finish(self) -> None:
        """There is no more."""
        self._finished = True

    def windows(self) -> list[Window]:
        """The windows that are complete now."""
        found: list[Window] = []
        complete = self.end if self._finished else self.end // BLOCK * BLOCK
        while self._next + WINDOW <= complete:
            found.append(self._window(self._next))
            # Twice as often in the beginning, at which few windows look.
            self._next += self._step // (1 if self._next >= self._step else 2)
        if self._finished and self._next < self.end:
            last = max(0, self.end - WINDOW)  # whole: what is filled up with silence misleads
            if self.end >= FRAME and (not self._next or self._next - self._step < last):
                found.append(self._window(last))
            self._next = self.end
        self._forget()
        return found

    def _window(self, begin: int) -> Window:
        sound = self._between(begin, begin + WINDOW)
        active = segmentation(self._models, np.pad(sound, (0, WINDOW - len(sound))))
        active[_frames_in(len(sound)) :] = False
        alone = active & (active.sum(axis=1) == 1)[:, None]
        alone_s = (alone.sum(axis=0) * STEP_S).astype(np.float32)
        vectors = np.zeros((VOICES, SIZE), np.float16)
        heard = np.zeros(VOICES, np.bool_)
        for voice in np.flatnonzero(active.any(axis=0)):
            mask = alone if alone_s[voice] >= LEAST_ALONE_S else active
            frames, weights = self._frames(begin, begin + len(sound), mask[:, voice])
            vector = self._encoder.pooled(frames, weights)
            heard[voice] = vector is not None
            if vector is not None:
                vectors[voice] = vector
        start = round(begin / RATE / STEP_S)
        return Window(start, np.packbits(active), vectors, alone_s, heard)

    def _frames(
        self, begin: int, end: int, mask: npt.NDArray[np.bool_]
    ) -> tuple[Frames, npt.NDArray[np.float32]]:
        """The trunk's frames of a window, and how much of each a mask over the window covers."""
        blocks = [self._block(block) for block in range(begin // BLOCK, -(-end // BLOCK))]
        frames = np.concatenate(blocks)
        numbers = begin // BLOCK * _BLOCK_FRAMES + np.arange(len(frames))
        centres_s = numbers * FRAME_S + _FIRST_CENTRE_S - begin / RATE
        nearest = np.round((centres_s - FIELD_S / 2) / STEP_S).astype(np.int64)
        inside = (centres_s >= 0) & (centres_s < WINDOW / RATE)
        weights = mask[np.clip(nearest, 0, FRAMES - 1)] & inside
        return frames, weights.astype(np.float32)

    def _block(self, number: int) -> Frames:
        """What the trunk makes of a block. The last one of a recording is heard with what is before
        it, as much as it lacks."""
        if number not in self._blocks:
            begin, end = number * BLOCK, min((number + 1) * BLOCK, self.end)
            early = max(0, end - BLOCK) // _HOP * _HOP
            frames = self._encoder.frames(self._between(min(begin, early), end))
            self._blocks[number] = frames[(begin - min(begin, early)) // _HOP :]
        return self._blocks[number]

    def _between(self, begin: int, end: int) -> Block:
        return self._sound[begin - self._sound_begin : end - self._sound_begin]

    def _forget(self) -> None:
        """Let go of the sound and the blocks that no window will need."""
        oldest = max(0, min(self._next, self.end - WINDOW - _HOP)) // BLOCK
        begin = max(self._sound_begin, min(oldest * BLOCK, self.end - WINDOW - _HOP))
        self._sound = self._sound[begin - self._sound_begin :]
        self._sound_begin = begin
        self._blocks = {at: block for at, block in self._blocks.items() if at >= oldest}


def _frames_in(samples: int) -> int:
    """The frames whose middle is within so many samples."""
    return max(0, min(FRAMES, round((samples / RATE - FIELD_S / 2) / STEP_S) + 1))
