"""One recording through the model: window by window, with a second try where memory ran out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

import torch

from sidecar import errors
from sidecar.audio import Block
from sidecar.engine import AUTO, AudioStream, Cancelled, Precision, TranscribeOptions
from sidecar.engines.vibevoice.answer import Answer
from sidecar.engines.vibevoice.language import language_of
from sidecar.engines.vibevoice.listening import SAMPLE_RATE
from sidecar.engines.vibevoice.model import Model, NotFinite, token_limit
from sidecar.engines.vibevoice.output import settled
from sidecar.engines.vibevoice.recovery import LOOP, Sampling
from sidecar.engines.vibevoice.stitching import Stitching
from sidecar.engines.vibevoice.voices import Voices, speech
from sidecar.engines.vibevoice.windows import Window, Windows
from sidecar.speakers import in_order_of_appearance
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
TOP_P = 0.95


class _Stopped(Exception):
    """The request was cancelled between two steps."""


class _Watched:
    """A recording that can be stopped while it is still being read: an hour takes its time."""

    def __init__(self, audio: AudioStream, check: Callable[[], None]) -> None:
        self._audio = audio
        self._check = check

    @property
    def total_s(self) -> float | None:
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        for block in self._audio:
            self._check()
            yield block


class Transcription:
    """The events of one request. Ends early, without `Finished`, once it is cancelled."""

    def __init__(
        self, model: Model, audio: AudioStream, options: TranscribeOptions, cancelled: Cancelled
    ) -> None:
        self._model = model
        self._audio = audio
        self._options = options
        self._cancelled = cancelled
        watched = _Watched(audio, self._check)
        self._windows = Windows(watched, SAMPLE_RATE, options.memory.window_s, speech)
        self._whole = Stitching(Voices(SAMPLE_RATE) if options.diarize else None)
        self._notices: dict[str, Notice] = {}
        self._announced = 0
        self._done_s = 0.0

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
        for window in self._windows:
            yield from self._window(window)
        if self._cancelled():
            return
        done_s = self._windows.end_s
        yield Progress(done_s, done_s)
        options, segments = self._options, in_order_of_appearance(settled(self._whole.segments))
        yield Finished(
            Transcript(
                segments=tuple(segments),
                language=options.language if options.language != AUTO else language_of(segments),
                duration=done_s,
                engine=NAME,
                precision=self._model.loaded.precision.value,
                diarized=options.diarize,
                notices=tuple(self._notices.values()),
            )
        )

    def _window(self, window: Window) -> Iterator[Event]:
        """One window; where memory runs out it comes again, by the smaller plan."""
        try:
            yield from self._attempt(window)
        except torch.OutOfMemoryError as error:
            if self._options.memory_fallback is None:
                raise errors.GpuOutOfMemory() from None
            log.warning("out of memory, again with the smaller plan: %s", error)
        else:
            return
        self._options = dataclasses.replace(
            self._options, memory=self._options.memory_fallback, memory_fallback=None
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._note("smaller_memory_plan", "Memory ran out once; a smaller plan was used.")
        self._windows.again(self._options.memory.window_s)

    def _attempt(self, window: Window) -> Iterator[Event]:
        samples = window.samples
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
        self._whole.begin(window)
        places = [self._announced]
        for index in answer.run(sampling, limit, self._cancelled):
            segment = self._whole.place(self._placed(answer.segments[index], window.start_s))
            places[index + 1 :] = [places[index] + (segment is not None)]
            if segment is not None:
                yield SegmentReady(places[index], segment)
                yield self._progress(segment, window.start_s + len(samples) / SAMPLE_RATE)
        self._check()
        self._announced = places[-1]
        self._whole.end(window, [self._placed(one, window.start_s) for one in answer.segments])
        self._tell(answer)

    def _progress(self, segment: Segment, known_s: float) -> Progress:
        total = self._audio.total_s or known_s
        self._done_s = min(max(self._done_s, segment.end), total)
        return Progress(self._done_s, total)

    def _placed(self, segment: Segment, offset_s: float) -> Segment:
        """A segment on the recording's clock."""
        return dataclasses.replace(
            segment,
            start=segment.start + offset_s,
            end=segment.end + offset_s,
            speaker=segment.speaker if self._options.diarize else None,
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
