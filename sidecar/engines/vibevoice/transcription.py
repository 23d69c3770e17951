"""One recording through the model: window by window, with a second try where memory ran out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import torch

from sidecar import errors
from sidecar.audio import Block
from sidecar.engine import AUTO, AudioStream, Cancelled, Precision, TranscribeOptions
from sidecar.engines.vibevoice.answer import Answer
from sidecar.engines.vibevoice.listening import SAMPLE_RATE
from sidecar.engines.vibevoice.model import Model, NotFinite, token_limit
from sidecar.engines.vibevoice.output import settled
from sidecar.engines.vibevoice.recovery import LOOP, Sampling
from sidecar.transcript import (
    Event,
    Finished,
    Notice,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)

log = logging.getLogger(__name__)

NAME = "vibevoice"
WINDOW_S = 3600.0
"""What the model takes at once (model card: 60 minutes)."""
TOP_P = 0.95


class _Stopped(Exception):
    """The request was cancelled between two steps."""


class Transcription:
    """The events of one request. Ends early, without `Finished`, once it is cancelled."""

    def __init__(
        self, model: Model, audio: AudioStream, options: TranscribeOptions, cancelled: Cancelled
    ) -> None:
        self._model = model
        self._audio = audio
        self._options = options
        self._cancelled = cancelled
        self._segments: list[Segment] = []
        self._speakers: dict[int, int] = {}
        self._notices: dict[str, Notice] = {}

    def events(self) -> Iterator[Event]:
        """Run it."""
        try:
            with torch.inference_mode():
                yield from self._events()
        except _Stopped:
            return
        except torch.AcceleratorError as error:
            log.critical("the GPU is in a state that only a fresh process gets out of: %s", error)
            raise errors.DeviceLost() from None

    def _events(self) -> Iterator[Event]:
        done_s = 0.0
        for samples in windows(self._audio, WINDOW_S):
            yield from self._window(samples, done_s)
            done_s += len(samples) / SAMPLE_RATE
        if self._cancelled():
            return
        yield Progress(done_s, done_s)
        options = self._options
        yield Finished(
            Transcript(
                segments=tuple(settled(self._segments)),
                language=options.language if options.language != AUTO else AUTO,
                duration=done_s,
                engine=NAME,
                precision=self._model.loaded.precision.value,
                diarized=options.diarize,
                notices=tuple(self._notices.values()),
            )
        )

    def _window(self, samples: Block, offset_s: float) -> Iterator[Event]:
        """One window, with the smaller plan where the first one ran out of memory."""
        before = len(self._segments)
        try:
            yield from self._attempt(samples, offset_s)
        except torch.OutOfMemoryError as error:
            if self._options.memory_fallback is None:
                raise errors.GpuOutOfMemory() from None
            log.warning("out of memory, again with the smaller plan: %s", error)
        else:
            return
        del self._segments[before:]
        self._options = dataclasses.replace(
            self._options, memory=self._options.memory_fallback, memory_fallback=None
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._note("smaller_memory_plan", "Memory ran out once; a smaller plan was used.")
        yield from self._window(samples, offset_s)

    def _attempt(self, samples: Block, offset_s: float) -> Iterator[Event]:
        try:
            answer = self._model.answer(samples, self._options, self._check)
        except NotFinite:
            if self._model.loaded.precision is not Precision.FP16:
                raise errors.EngineFailed("The model's numbers are not finite.") from None
            self._model.widen()
            self._note("fp16_overflow", "This checkpoint overflows in fp16; bf16 was used.")
            answer = self._model.answer(samples, self._options, self._check)
        temperature = self._options.temperature
        sampling = Sampling(temperature, TOP_P) if temperature else None
        limit = token_limit(len(samples) / SAMPLE_RATE, self._options)
        first = len(self._segments)
        for index in answer.run(sampling, limit, self._cancelled):
            segment = self._placed(answer.segments[index], offset_s)
            self._segments[first + index :] = [segment]
            yield SegmentReady(first + index, segment)
            yield self._progress(offset_s + len(samples) / SAMPLE_RATE)
        self._check()
        self._segments[first:] = [self._placed(one, offset_s) for one in answer.segments]
        self._tell(answer)

    def _progress(self, known_s: float) -> Progress:
        total = self._audio.total_s or known_s
        return Progress(min(max(one.end for one in self._segments), total), total)

    def _placed(self, segment: Segment, offset_s: float) -> Segment:
        """A segment on the recording's clock, its speaker numbered by appearance."""
        speaker = segment.speaker if self._options.diarize else None
        if speaker is not None:
            speaker = self._speakers.setdefault(speaker, len(self._speakers))
        return dataclasses.replace(
            segment,
            start=segment.start + offset_s,
            end=segment.end + offset_s,
            speaker=speaker,
        )

    def _check(self) -> None:
        if self._cancelled():
            raise _Stopped

    def _tell(self, answer: Answer) -> None:
        """What the reader should know of how this window went."""
        lost = [one for one in answer.segments if LOOP in one.flags]
        if lost:
            seconds = sum(one.end - one.start for one in lost)
            self._note(
                "loop_skipped",
                f"The model repeated itself; {seconds:.0f} s were left out (flagged 'loop').",
            )
        elif answer.loops:
            self._note("loop_recovered", "The model repeated itself and was brought back.")
        if answer.truncated:
            self._note("output_truncated", "The answer broke off; its whole segments are here.")

    def _note(self, code: str, message: str) -> None:
        self._notices[code] = Notice(code, message)


def windows(audio: AudioStream, window_s: float) -> Iterator[Block]:
    """The recording in pieces of at most ``window_s`` seconds, float32 at the engine's rate."""
    size = round(window_s * SAMPLE_RATE)
    claimed = round((audio.total_s or 0.0) * SAMPLE_RATE) + SAMPLE_RATE
    held, count = np.empty(min(size, claimed), np.float32), 0
    for block in audio:
        while len(block):
            part, block = block[: size - count], block[size - count :]
            if count + len(part) > len(held):
                held = np.resize(held, min(size, 2 * (count + len(part))))
            held[count : count + len(part)] = part
            count += len(part)
            if count == size:
                yield held
                held, count = np.empty(size, np.float32), 0
    if count:
        yield held[:count]
