"""Windows and turns of a live segment, or of a whole recording, for VibeVoice-ASR-Streaming."""

from __future__ import annotations

import numpy as np
import soxr

from sidecar.audio import Block
from sidecar.engines.vibevoice.streaming_checkpoint import StreamingFormat
from sidecar.engines.vibevoice.streaming_model import ChunkText
from sidecar.transcripts.streamed_turns import StreamedTurn, StreamedTurns


class StreamedSegment:
    """Audio at ``rate`` from the sample ``start`` on: its windows, and the turns of its text.

    Its state changes only in `feed`, `say` and `take`: a window whose transcription fails is there
    once more.
    """

    def __init__(self, stream_format: StreamingFormat, rate: int, start: int = 0) -> None:
        self.fed = start
        """Sample up to which audio has come."""
        self.turns = StreamedTurns()
        self._ended: list[StreamedTurn] = []
        self._stream_format, self._start_s = stream_format, start / rate
        self._resampler = soxr.ResampleStream(rate, stream_format.rate, 1, dtype="float32")
        self._held = np.zeros(0, np.float32)
        self._said_samples = 0

    @property
    def end_s(self) -> float:
        """Return the seconds up to which there is text."""
        return self._start_s + self._said_samples / self._stream_format.rate

    def feed(self, audio: Block, *, last: bool) -> None:
        """Add audio; ``last``: no more comes."""
        self.fed += len(audio)
        self._held = np.concatenate([self._held, self._resampler.resample_chunk(audio, last)])

    def window(self, *, last: bool) -> Block | None:
        """Return the next window; None if its audio has not come. ``last``: it may be short."""
        enough = len(self._held) >= self._stream_format.window_samples or (last and len(self._held))
        return self._held[: self._stream_format.window_samples] if enough else None

    def say(self, chunk: ChunkText) -> Block:
        """Add the text of that window; return the audio that it is the text of."""
        start_s, audio = self.end_s, self._held[: self._stream_format.chunk_samples]
        self._held = self._held[len(audio) :]
        self._said_samples += len(audio)
        self._ended += self.turns.feed(chunk.text, start_s, self.end_s, chunk.likelihoods)
        return audio

    def take(self, *, last: bool = False) -> list[StreamedTurn]:
        """Return the turns that have ended since the last call; ``last``: the open one, too."""
        ended, self._ended = self._ended, []
        return [*ended, *self.turns.finish()] if last else ended
