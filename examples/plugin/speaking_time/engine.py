"""Engine 'loudness': where somebody speaks, without words."""

from collections.abc import Iterator

import numpy as np

from sidecar.interfaces.engine_interface import LoadOptions, TranscriptionRequest
from sidecar.transcripts.transcript import (
    Finished,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)

RATE = 16_000
MIN_LEVEL = 0.01
"""Mean amplitude of a block of audio from which it counts as speech."""


class LoudnessEngine:
    """Engine whose segments are the loud blocks of a recording."""

    sample_rate = RATE

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Load nothing."""
        yield 1.0

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        """Yield a segment for each loud block, then the transcript."""
        segments, samples = list[Segment](), 0
        for block in request.audio:
            if request.cancelled():
                return
            start, samples = samples, samples + len(block)
            if len(block) and float(np.abs(block).mean()) >= MIN_LEVEL:
                segment = Segment(start=start / RATE, end=samples / RATE, text="(speech)")
                yield SegmentReady(len(segments), segment)
                segments.append(segment)
        yield Finished(
            Transcript(
                segments=tuple(segments),
                language="auto",
                duration=samples / RATE,
                engine="loudness",
                precision="fp32",
            )
        )
