"""One recording on its way to a transcript: stretches of speech into lines, lines into segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sidecar.engine import AudioStream
from sidecar.engines.moonshine.library import SAMPLE_RATE
from sidecar.engines.moonshine.listener import FORCED_END_S, Listener
from sidecar.engines.moonshine.recent import RecentAudio
from sidecar.engines.moonshine.recognizer import Recognizer, quietest
from sidecar.speakers import changes, dominant, in_order_of_appearance, tightened
from sidecar.transcript import Event, Progress, Segment, SegmentReady

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


class Transcription:
    """Iterate `events`, then ask for `segments`."""

    def __init__(
        self,
        recognizer: Recognizer,
        listener: Listener,
        audio: RecentAudio,
        source: AudioStream,
        *,
        diarize: bool,
    ) -> None:
        self._recognizer = recognizer
        self._listener = listener
        self._audio = audio
        self._source = source
        self._diarize = diarize
        self._open: tuple[float, float] | None = None
        self._ready = 0
        self._unsettled: list[Line] = []
        self._settled: list[Segment] = []

    def events(self) -> Iterator[Event]:
        """Progress, and lines as they end; speakers may still be revised in `segments`."""
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

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of them, once `events` has ended."""
        return tuple(in_order_of_appearance(self._settled))
