"""One recording through Whisper: turns into windows, windows into words, words to turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from math import inf

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.quiet import quietest
from sidecar.audio.recent import RecentAudio
from sidecar.diarization.attribution import attributed
from sidecar.diarization.background_diarization import ASKED_S, Follower, followed
from sidecar.diarization.speaker_identification import recognised_by
from sidecar.engines.whisper.model import SAMPLE_RATE, Heard, Model, Wish
from sidecar.engines.whisper.segments import placed, segments_of
from sidecar.engines.whisper.windows import Packing, Window
from sidecar.interfaces.engine import AUTO, AudioStream, Cancelled, TranscribeOptions, Windowing
from sidecar.transcripts.speaker_turns import Turn, in_order_of_appearance
from sidecar.transcripts.transcript import (
    LOOP,
    NON_SPEECH,
    UNINTELLIGIBLE,
    Event,
    Finished,
    Notice,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)

NAME = "whisper"
_STEP = SAMPLE_RATE
_PAUSE_S = 0.1


class Everything:
    """A follower for where nobody tells speech from silence: all of it is speech."""

    def __init__(self) -> None:
        self._samples = 0

    @property
    def told_s(self) -> float:
        """All that was fed."""
        return self._samples / SAMPLE_RATE

    @property
    def turns(self) -> Sequence[Turn]:
        """One, from the begin to here."""
        return [Turn(0.0, self.told_s, 0)]

    def feed(self, block: Block) -> None:
        """More of the recording."""
        self._samples += len(block)

    def finish(self) -> None:
        """It is over."""


class Transcription:
    """The events of one request. Ends early, without `Finished`, once it is cancelled.

    ``thread``: where the model works, one window at a time. Nothing can stop CTranslate2 within a
    window: who is cancelled leaves it to itself, and who comes next waits for it to end.
    """

    def __init__(
        self,
        model: Model,
        thread: ThreadPoolExecutor,
        follower: Follower,
        source: AudioStream,
        options: TranscribeOptions,
        cancelled: Cancelled,
    ) -> None:
        self._model = model
        self._thread = thread
        self._follower = follower
        self._source = source
        self._options = options
        self._cancelled = cancelled
        self._audio = RecentAudio(SAMPLE_RATE)
        self._packing = Packing(self._quiet)
        self._diarize = options.diarize and not isinstance(follower, Everything)
        self._segments: list[Segment] = []
        self._ready = 0
        self._languages: Counter[str] = Counter()
        self._last: str | None = None
        self._tokens = 0
        self._done_s = 0.0
        self._notices: dict[str, Notice] = {}
        self._lost_s = 0.0

    def events(self) -> Iterator[Event]:
        """Run it."""
        seen: Sequence[Turn] | None = None
        for heard in followed(self._follower, self._blocks(), cancelled=self._cancelled):
            if self._cancelled():
                return
            if heard.turns is seen and heard.told_s != inf:
                continue
            seen = heard.turns
            for window in self._packing.take(heard.turns, heard.told_s):
                if (said := self._hear(window)) is None:
                    return
                yield from self._said(window, said, heard.turns)
            self._audio.forget(self._packing.needed_s)
        if self._cancelled():
            return
        yield Progress(self._audio.end_s, self._audio.end_s)
        yield Finished(recognised_by(self._follower, self._transcript(), self._options))

    def _blocks(self) -> Iterator[tuple[float, Block]]:
        for block in self._source:
            for start in range(0, len(block), _STEP):
                if self._cancelled():
                    return
                piece = block[start : start + _STEP]
                self._audio.append(piece)
                yield self._audio.end_s, piece

    def _quiet(self, start: float, end: float) -> float:
        sound = self._audio.between(start, end)
        return start + quietest(sound, SAMPLE_RATE, _PAUSE_S) / SAMPLE_RATE

    def _hear(self, window: Window) -> Heard | None:
        """What a window says; None once it is cancelled."""
        import numpy as np

        left = self._options.max_tokens
        if left is not None:
            left -= self._tokens
            if left <= 0:
                return Heard((), None, truncated=True)
        samples = np.concatenate([self._audio.between(*piece) for piece in window.pieces])
        language = self._options.language.split("-")[0].lower()
        wish = Wish(
            None if language == AUTO else language,
            self._options.prompt,
            self._options.temperature,
            left,
            self._options.translate,
        )
        hearing: Future[Heard] = self._thread.submit(self._model.hear, samples, wish, self._last)
        while not self._cancelled():
            if wait([hearing], ASKED_S).done:
                return _result(hearing)
        hearing.cancel()
        return None

    def _said(self, window: Window, said: Heard, turns: Sequence[Turn]) -> Iterator[Event]:
        """Take in what a window says."""
        self._tokens += said.tokens
        self._tell(said)
        words = placed(said.words, window)
        found = segments_of(words)
        if said.language is not None and words:
            self._languages[said.language] += round(100 * window.length_s)
            self._last = said.language if said.sure else self._last
        if said.lost_s is not None:
            start, end = window.placed(said.lost_s, said.lost_s)[0], window.end_s
            self._lost_s += max(0.0, end - start)
            found.append(Segment(start, end, UNINTELLIGIBLE, flags=(NON_SPEECH, LOOP)))
            message = (
                f"The model repeated itself; {self._lost_s:.0f} s were left out (flagged 'loop')."
            )
            self._notices["loop_skipped"] = Notice("loop_skipped", message)
        self._segments += found
        for segment in self._given(found, turns):
            yield SegmentReady(self._ready, segment)
            self._ready += 1
            yield self._progress(segment.end)
        yield self._progress(window.end_s)

    def _given(self, segments: Sequence[Segment], turns: Sequence[Turn]) -> Sequence[Segment]:
        return attributed(segments, turns) if self._diarize else segments

    def _progress(self, done_s: float) -> Progress:
        self._done_s = max(self._done_s, done_s)
        total = self._source.total_s
        return Progress(self._done_s, None if total is None else max(total, self._done_s))

    def _tell(self, said: Heard) -> None:
        if said.retried:
            message = "The model repeated itself and was brought back."
            self._notices["loop_recovered"] = Notice("loop_recovered", message)
        if said.truncated:
            message = "The answer broke off at the limit of tokens."
            self._notices["output_truncated"] = Notice("output_truncated", message)

    def _transcript(self) -> Transcript:
        segments = self._given(self._segments, self._follower.turns)
        given = self._options.language
        heard = self._languages.most_common()
        language = given if given != AUTO else (heard[0][0] if heard else AUTO)
        if len(heard) > 1:
            parts = ", ".join(f"{code} {hundredths / 100:.0f} s" for code, hundredths in heard)
            message = f"Several languages were heard: {parts}."
            self._notices["several_languages"] = Notice("several_languages", message)
        if self._options.windows is Windowing.PARALLEL:
            message = "The recording was heard in one window at a time."
            self._notices["windows_not_parallel"] = Notice("windows_not_parallel", message)
        if self._options.diarize and not self._diarize:
            message = "The models that tell voices apart are not here."
            self._notices["speakers_unavailable"] = Notice("speakers_unavailable", message)
        return Transcript(
            segments=tuple(in_order_of_appearance(segments)),
            language=language,
            duration=self._audio.end_s,
            engine=NAME,
            precision=self._model.precision.value,
            diarized=self._diarize,
            notices=tuple(self._notices.values()),
            model=self._model.name,
        )


def _result(hearing: Future[Heard]) -> Heard:
    try:
        return hearing.result()
    except RuntimeError as error:  # CTranslate2 has no other
        if "out of memory" in str(error):
            raise errors.GpuOutOfMemory() from None
        raise
