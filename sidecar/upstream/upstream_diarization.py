"""Diarization of a recording that is sent to upstreams in chunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts.speaker_embeddings import EncodedWindowEmbeddings
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.upstream.audio_chunks import AudioChunk, to_float

if TYPE_CHECKING:
    from sidecar.diarization.speaker_identification import DiarizedSpeakers, SpeakerVector
    from sidecar.diarization.speaker_models import SpeakerModels

log = logging.getLogger(__name__)

DIARIZATION_SAMPLE_RATE = 16_000
STEP_S = 5.0
"""Audio processed between two checks for cancellation."""


class UpstreamDiarization:
    """Diarization of a recording from its first chunk on; times in seconds."""

    def __init__(
        self, given: SpeakerModels, options: TranscribeOptions, stop: Callable[[], bool]
    ) -> None:
        from sidecar.diarization.diarizer import STEPS_S, Diarizer

        self._models = given
        self._diarizer = Diarizer.wished(given, options)
        self._thread = ThreadPoolExecutor(1, "voices")
        self._stop = stop
        self._resample: Any = None
        self._step_s = STEPS_S[options.diarization]
        self._start_s: float | None = None
        self._finished = False
        self.refused = ""
        """Reason why a server's embeddings were rejected; '' if none were."""
        self._fed: list[Future[None]] = []

    def feed(self, piece: AudioChunk) -> None:
        """Submit the next chunk; return at once."""
        if self._start_s is None:
            self._start_s = piece.start_s
        self._fed.append(self._thread.submit(self._hear, piece))

    def take(self, piece: AudioChunk, given: EncodedWindowEmbeddings | None) -> None:
        """Submit the next chunk, which has a margin, and its server's embeddings. If these are None
        or invalid, they are computed here. Do not mix with `feed` in one recording. Return at
        once."""
        self._start_s = 0.0
        self._fed.append(self._thread.submit(self._take, piece, given))

    def known(self) -> Future[tuple[list[SpeakerTurn], float]]:
        """Return the turns once all submitted audio is diarized, and the time up to which they are
        known. They are final after the last chunk."""
        return self._thread.submit(self._known)

    def speakers(self) -> Future[DiarizedSpeakers]:
        """Return the speakers of the recording once all of it is diarized."""
        return self._thread.submit(self._speakers)

    def close(self) -> None:
        """Drop audio that is not diarized yet; ``stop`` must return true by now, or all be done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hear(self, piece: AudioChunk) -> None:
        step = round(STEP_S * piece.rate)
        for at in range(0, len(piece.samples), step):
            if self._stop():
                return
            part = to_float(piece.samples[at : at + step])
            over = piece.last and at + step >= len(piece.samples)
            self._diarizer.feed(self._at_its_rate(part, piece.rate, over))
        if piece.last:
            self._diarizer.finish()
            self._finished = True

    def _take(self, piece: AudioChunk, given: EncodedWindowEmbeddings | None) -> None:
        from sidecar.diarization import window_embeddings

        asked, step_s = piece.voices, self._step_s
        assert asked is not None
        begin = round(piece.start_s * DIARIZATION_SAMPLE_RATE)
        end = round(len(piece.with_margin) * DIARIZATION_SAMPLE_RATE / piece.rate)
        windows = None
        if given is not None:
            begins = [begin + at for at in window_embeddings.window_starts(asked, end, step_s)]
            try:
                windows = window_embeddings.decode_windows(given, begins)
            except window_embeddings.WindowEmbeddingsInvalid as error:
                self.refused = str(error)
                log.warning(
                    "the speaker embeddings of an upstream cannot be used and are computed here: "
                    "%s",
                    error,
                )
        if windows is None:
            blocks = list(self._sound_of(piece))
            found = window_embeddings.embed_windows(self._models, blocks, asked, step_s, self._stop)
            if self._stop():
                return
            end = sum(map(len, blocks))
            begins = [begin + at for at in window_embeddings.window_starts(asked, end, step_s)]
            windows = window_embeddings.place_windows(found, begins)
        following = begin + (
            end if piece.last else round((asked.until_s or 0.0) * DIARIZATION_SAMPLE_RATE)
        )
        self._diarizer.take(windows, following, begin + end)
        if piece.last:
            self._diarizer.finish()
            self._finished = True

    def _sound_of(self, piece: AudioChunk) -> Iterator[Block]:
        """Yield a chunk with its margin at 16 kHz, `STEP_S` seconds at a time."""
        samples, step = piece.with_margin, round(STEP_S * piece.rate)
        self._resample = None
        for at in range(0, len(samples), step):
            part = to_float(samples[at : at + step])
            yield self._at_its_rate(part, piece.rate, at + step >= len(samples))

    def _at_its_rate(self, block: Block, rate: int, over: bool) -> Block:
        if rate == DIARIZATION_SAMPLE_RATE:
            return block
        if self._resample is None:
            import soxr

            self._resample = soxr.ResampleStream(rate, DIARIZATION_SAMPLE_RATE, 1, dtype="float32")
        found: Block = self._resample.resample_chunk(block, last=over)
        return found

    def _speakers(self) -> DiarizedSpeakers:
        turns, _ = self._known()
        heard = self._diarizer.speakers()

        def passages(stretches: Sequence[tuple[float, float]]) -> Sequence[SpeakerVector | None]:
            begin_s = self._start_s or 0.0
            assert heard.passages is not None
            return heard.passages([(one - begin_s, other - begin_s) for one, other in stretches])

        return replace(heard, turns=turns, passages=passages)

    def _known(self) -> tuple[list[SpeakerTurn], float]:
        while self._fed:
            self._fed.pop().result()  # done by now; errors are raised here
        start_s = self._start_s or 0.0
        heard_s = float("inf") if self._finished else start_s + self._diarizer.heard_s
        turns = [
            SpeakerTurn(turn.start + start_s, turn.end + start_s, turn.label)
            for turn in self._diarizer.turns
        ]
        return turns, heard_s
