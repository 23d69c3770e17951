"""Diarization of a chunk for another service, parallel to its recognition.

The front, which has the whole recording, diarizes it with the embeddings from here
(`TranscribeOptions.local_voices`). The engine transcribes the same audio.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces.engine_interface import AudioStream, DiarizationEffort
from sidecar.transcripts.speaker_embeddings import EncodedWindowEmbeddings, WindowEmbeddingsRequest
from sidecar.transcripts.transcript import Finished, TranscriptionEvent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger(__name__)

NumberedEvent = tuple[int, TranscriptionEvent | errors.SidecarError]
"""Event of one recording of a batch, with its number."""


class DiarizationTee:
    """`AudioStream` for the engine; iterating it feeds the diarization.

    Diarization runs on its own thread and may be behind: its pending audio is held as 16 bits a
    sample, the format of chunks. If it fails, the transcript has no embeddings.
    """

    def __init__(
        self,
        audio: AudioStream,
        rate: int,
        request: WindowEmbeddingsRequest,
        effort: DiarizationEffort,
        unwanted: Callable[[], bool],
        *,
        same: bool = False,
    ) -> None:
        """``same``: as `EncodedWindowEmbeddings`."""
        self._audio = audio
        self._rate = rate
        self._request = request
        self._effort = effort
        self._unwanted = unwanted
        self._encoded_same = same
        self._closed = self._whole = False
        self._reading: Iterator[Block] | None = None
        self._samples: queue.SimpleQueue[npt.NDArray[np.int16] | None] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, "local voices")
        self._result: Future[EncodedWindowEmbeddings | None] = self._thread.submit(self._embed)

    @property
    def total_s(self) -> float | None:
        """Return the seconds to transcribe, as far as is known."""
        total_s = self._audio.total_s
        return None if total_s is None else min(total_s, self._request.words_s)

    def __iter__(self) -> Iterator[Block]:
        self._reading = self._read()
        return self._reading

    def _read(self) -> Iterator[Block]:
        """Yield the audio to transcribe; pass all audio to the diarization."""
        from sidecar.upstream.audio_chunks import to_16_bit

        left = round(self._request.words_s * self._rate)
        for block in self._audio:
            self._samples.put(to_16_bit(block))
            if left > 0 and len(block):
                yield block[:left]
            left -= len(block)
        self._whole = True
        self._samples.put(None)

    @property
    def done(self) -> bool:
        """Return whether `join_diarization` need not wait."""
        return self._result.done()

    def drain(self) -> None:
        """Read the audio that the engine did not read: the margin behind the words."""
        for _ in self._reading or self._read():
            pass
        self._samples.put(None)

    def completed(self, event: TranscriptionEvent) -> TranscriptionEvent:
        """Return the event; the last one with the embeddings, once they are computed."""
        from sidecar.diarization.diarizer import wait_unless_cancelled

        if not isinstance(event, Finished):
            return event
        self.drain()
        found = wait_unless_cancelled(self._result, self._unwanted)
        return Finished(replace(event.transcript, local_voices=found))

    def close(self) -> None:
        """Stop, whether all audio was processed or not."""
        self._closed = True
        self._samples.put(None)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self) -> EncodedWindowEmbeddings | None:
        from sidecar.diarization.diarizer import STEPS_S
        from sidecar.diarization.speaker_models import available_speaker_models
        from sidecar.diarization.window_embeddings import embed_windows, encode_windows

        step_s = STEPS_S[self._effort]
        try:
            if (models := available_speaker_models()) is None:
                return None
            windows = embed_windows(models, self._blocks(), self._request, step_s, self._stopped)
        except Exception:  # the front computes them itself then
            log.exception("internal error in the diarization of a chunk")
            return None
        if not windows or not self._whole:
            return None
        return encode_windows(windows, same=self._encoded_same)

    def _stopped(self) -> bool:
        return self._closed or self._unwanted()

    def _blocks(self) -> Iterator[Block]:
        """Yield the queued audio at 16 kHz."""
        import numpy as np

        from sidecar.diarization.speaker_models import SAMPLE_RATE
        from sidecar.upstream.audio_chunks import to_float

        resample: Any = None
        if self._rate != SAMPLE_RATE:
            import soxr

            resample = soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32")
        while (samples := self._samples.get()) is not None:
            block = to_float(samples)
            yield block if resample is None else resample.resample_chunk(block)
        if resample is not None:
            yield resample.resample_chunk(np.empty(0, np.float32), last=True)


def join_diarization(
    events: Iterable[NumberedEvent], tees: Sequence[DiarizationTee | None]
) -> Iterator[NumberedEvent]:
    """Yield the events of a batch; delay each last event until its embeddings are there, but no
    other."""
    held: list[tuple[int, DiarizationTee, Finished]] = []
    for index, event in events:
        tee = tees[index]
        if tee is not None and isinstance(event, Finished):
            tee.drain()
            held.append((index, tee, event))
        else:
            yield index, event
        for one in [one for one in held if one[1].done]:
            held.remove(one)
            yield one[0], one[1].completed(one[2])
    for index, tee, end in held:
        yield index, tee.completed(end)
