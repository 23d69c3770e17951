"""The embedded engine: moonshine-voice, recognition and speaker identification, weights inside.

Runs on any CPU, English only. A recording goes through in windows, so that memory is flat at any
length; within a window it goes through in chunks, so that segments come while it works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.engine import AudioStream, Cancelled, EngineSpec, Precision, TranscribeOptions
from sidecar.engines.moonshine import recognizer as recognition
from sidecar.engines.moonshine.listener import FORCED_END_S, WINDOW_S, Listener, cadence
from sidecar.engines.moonshine.recent import RecentAudio
from sidecar.engines.moonshine.recognizer import Recognizer, quietest
from sidecar.speakers import changes, dominant, in_order_of_appearance, tightened
from sidecar.transcript import (
    Event,
    Finished,
    Notice,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

SAMPLE_RATE = 16_000
SPEC = EngineSpec(
    name="moonshine",
    title="Embedded CPU engine (moonshine tiny-en)",
    sample_rate=SAMPLE_RATE,
    precisions=(Precision.INT8,),  # the wheel's weights are quantized to 8 bits
    languages=("en",),
    diarizes=True,
    requires=("moonshine_voice",),
)
MIN_PIECE_S = 0.5
"""A voice that has the floor for less inside another's line does not cut the line."""
LONGEST_LINE_S = 12.0
KEPT_S = 30.0
"""Audio from before the open window that is kept for lines which began in it."""
_JOIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance; times in seconds from the start of the recording."""

    start: float
    end: float
    text: str


def load_library(options: dict[str, str]) -> Transcriber:
    """A transcriber of the library over the weights in its wheel.

    Raises:
        errors.ModelLoadFailed: the library or its weights are not there.
    """
    try:
        from moonshine_voice import ModelArch, MoonshineError, get_model_path
        from moonshine_voice.transcriber import Transcriber
    except (ImportError, OSError) as error:
        raise errors.ModelLoadFailed(
            f"The library moonshine-voice does not load: {error}.",
            hint="pip install --force-reinstall moonshine-voice==0.0.73",
        ) from None
    try:
        return Transcriber(
            get_model_path("tiny-en"),
            ModelArch.TINY,
            options={"return_audio_data": "false", **options},
        )
    except MoonshineError as error:
        raise errors.ModelLoadFailed(str(error)) from None


class MoonshineEngine:
    """Lines from the recognizer, voices from the speaker tracker, joined into segments."""

    def __init__(self) -> None:
        self._recognizer: Recognizer | None = None

    def load(self, precision: Precision) -> None:
        """Bring the recognition model into memory (about 0.2 s)."""
        self._recognizer = Recognizer(load_library(recognition.OPTIONS))

    def transcribe(
        self, audio: AudioStream, options: TranscribeOptions, cancelled: Cancelled
    ) -> Iterator[Event]:
        """Segments chunk by chunk; their speakers are settled window by window."""
        assert self._recognizer is not None
        run = _Run(self._recognizer, audio, options)
        for event in run.events():
            if cancelled():
                break
            yield event
        run.close()

    def unload(self) -> None:
        """Free the model."""
        if self._recognizer is not None:
            self._recognizer.close()
            self._recognizer = None


class _Run:
    """One transcription."""

    def __init__(
        self, recognizer: Recognizer, source: AudioStream, options: TranscribeOptions
    ) -> None:
        self._recognizer = recognizer
        self._source = source
        self._diarize = options.diarize
        length_s = min(source.total_s or WINDOW_S, WINDOW_S)
        self._audio = RecentAudio(SAMPLE_RATE)
        self._listener = Listener(
            load_library,
            self._audio,
            cadence(options.diarization, length_s) if options.diarize else None,
        )
        self._open: tuple[float, float] | None = None
        self._ready = 0
        self._unsettled: list[Line] = []
        self._settled: list[Segment] = []

    def close(self) -> None:
        self._listener.close()

    def events(self) -> Iterator[Event]:
        for block in self._source:
            for start in range(0, len(block), SAMPLE_RATE):
                self._audio.append(block[start : start + SAMPLE_RATE])
                for stretch in self._listener.listen():
                    yield from self._recognize(stretch)
                self._settle(self._listener.settled_s)
                yield self._progress()
        for stretch in self._listener.finish():
            yield from self._recognize(stretch)
        yield from self._recognize(None)
        self._settle(float("inf"))
        yield self._finished()

    def _progress(self) -> Progress:
        done, total = self._audio.end_s, self._source.total_s
        return Progress(done, None if total is None else max(total, done))

    def _recognize(self, stretch: tuple[float, float] | None) -> Iterator[Event]:
        """Lines out of a stretch of speech (None: there are no more), as soon as they are there.

        A stretch that ended for its length and not for a pause may go on in the next one.
        """
        if self._open is not None:
            if stretch is not None and stretch[0] - self._open[1] < _JOIN_S:
                stretch = self._open[0], stretch[1]
            else:
                yield from self._announce(*self._open)
            self._open = None
        if stretch is None:
            return
        start, end = stretch
        goes_on = end - start >= FORCED_END_S - _JOIN_S
        while end - start > LONGEST_LINE_S:
            audio = self._audio.between(start, start + LONGEST_LINE_S)
            cut = start + quietest(audio, LONGEST_LINE_S / 2, LONGEST_LINE_S)
            yield from self._announce(start, cut)
            start = cut
        if goes_on:
            self._open = start, end
        else:
            yield from self._announce(start, end)

    def _announce(self, start: float, end: float) -> Iterator[Event]:
        line = self._line(start, end)
        if line.text:
            self._unsettled.append(line)
            yield SegmentReady(self._ready, self._segment(line))
            self._ready += 1

    def _line(self, start: float, end: float) -> Line:
        return Line(start, end, self._recognizer.text(self._audio.between(start, end)))

    def _settle(self, until_s: float) -> None:
        """Lines whose speakers will not change any more; one that holds two voices is cut."""
        while self._unsettled and self._unsettled[0].end <= until_s:
            line = self._unsettled.pop(0)
            self._settled += [self._segment(piece) for piece in self._cut(line)]
        if until_s < float("inf"):
            oldest = [line.start for line in self._unsettled[:1]]
            self._audio.forget(min([until_s, *oldest]) - KEPT_S)

    def _cut(self, line: Line) -> list[Line]:
        cuts = changes(self._listener.turns, line.start, line.end, MIN_PIECE_S)
        if not cuts:
            return [line]
        pieces = [self._line(start, end) for start, end in pairwise((line.start, *cuts, line.end))]
        return pieces if all(piece.text for piece in pieces) else [line]

    def _segment(self, line: Line) -> Segment:
        if not self._diarize:
            return Segment(line.start, line.end, line.text)
        turns = self._listener.turns
        speaker = dominant(turns, line.start, line.end) or 0
        start, end = tightened(turns, speaker, line.start, line.end)
        return Segment(start, end, line.text, speaker)

    def _finished(self) -> Finished:
        notices = []
        if self._source.truncated:
            notices.append(
                Notice("audio_truncated", "The recording was cut off; this is what is there.")
            )
        return Finished(
            Transcript(
                segments=tuple(in_order_of_appearance(self._settled)),
                language="en",
                duration=self._audio.end_s,
                engine=SPEC.name,
                precision=Precision.INT8.value,
                diarized=self._diarize,
                notices=tuple(notices),
            )
        )
