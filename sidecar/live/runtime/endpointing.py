"""Endpointing of utterances from speech probabilities. Pure.

Time is counted in samples at 16 kHz since the beginning of the session and advances with each
frame; there is no clock. The recognizer gets four events: an utterance begins; it pauses, so that
recognizing it early is worthwhile; it resumes; it ends.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from sidecar.interfaces.live_options import LIVE_RATE, QUIET_SPEECH, EndpointingOptions

FRAME_SAMPLES = 512
"""Samples of a frame, which has one speech probability: 32 ms."""

EndReason: TypeAlias = Literal["silence", "cut", "commit", "finish"]
"""Reason of an end: a pause; the maximum length, or other settings; a commit of the client; the end
of the session."""


@dataclass(frozen=True, slots=True)
class UtteranceBegan:
    """Begin of an utterance; ``at`` lies a little in the past."""

    at: int


@dataclass(frozen=True, slots=True)
class UtterancePaused:
    """Short silence: if it goes on, the utterance ends at ``at``."""

    at: int


@dataclass(frozen=True, slots=True)
class UtteranceResumed:
    """Speech from ``at`` on: the paused utterance continues."""

    at: int


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """End of an utterance: the start of its last pause, if no speech followed."""

    at: int
    reason: EndReason


EndpointEvent: TypeAlias = UtteranceBegan | UtterancePaused | UtteranceResumed | UtteranceEnded


class Endpointer:
    """Endpointer of one session: takes the speech probability of each frame and returns events.

    ``at`` is the position of the first frame; audio before ``keep_from`` is in no utterance. No
    sample is in two utterances, and none is longer than the settings allow.
    """

    def __init__(
        self, options: EndpointingOptions, at: int = 0, keep_from: int | None = None
    ) -> None:
        self._options = self._wanted = options
        self.position = at
        """End of the audio that was processed."""
        self.keep_from = at if keep_from is None else keep_from
        """Start of the audio that an open or later utterance may need."""
        self.given_to = at
        """End of the audio that an engine cannot take back: the utterance is cut behind it."""
        self.speaking = False
        self._run = self._sure_run = 0
        self._quiet: int | None = None  # first frame without speech since the last with speech
        self._paused = False
        self._lowest, self._lowest_at = 2.0, at
        self._began = self._speech_end = at
        """Start of the open utterance, before its cuts; end of the last speech, however quiet."""

    def use(self, options: EndpointingOptions) -> tuple[EndpointEvent, ...]:
        """Change the settings: between utterances at once, else after the open one. One that no
        silence can end is cut here if there is silence. If it has speech, the next silence ends it
        where ``options`` know one."""
        self._wanted = options
        events: tuple[EndpointEvent, ...] = ()
        if self.speaking and not self._options.neg_threshold:
            if options.neg_threshold and self._speech_end > self._began:
                longest_s = max(options.longest_s, self._options.longest_s)  # it may be that long
                self._options = replace(options, longest_s=longest_s)
            elif self._speech_end < self.position:
                events = (self._closed(self.position, "cut"),)
        if not self.speaking:
            self._options = options
            self._run = self._sure_run = 0
        return events

    def feed(self, probability: float) -> tuple[EndpointEvent, ...]:
        """Return the events of the next frame, given its probability of speech."""
        self.position += FRAME_SAMPLES
        if probability >= QUIET_SPEECH.threshold:
            self._speech_end = self.position
        return self._within(probability) if self.speaking else self._between(probability)

    def stop(self, reason: EndReason, at: int | None = None) -> tuple[EndpointEvent, ...]:
        """End the open utterance; ``at`` counts a part of the next frame, too.

        Raises:
            ValueError: ``at`` is not within the next frame.
        """
        at = self.position if at is None else at
        if not self.position <= at < self.position + FRAME_SAMPLES:
            raise ValueError(f"{at} is not between {self.position} and the end of the next frame")
        if not self.speaking:
            return ()
        return (self._closed(at if self._quiet is None else self._quiet_end(), reason),)

    def _between(self, probability: float) -> tuple[EndpointEvent, ...]:
        options = self._options
        if not self._run:
            reach = self.position - FRAME_SAMPLES - _samples(options.pre_roll_s)
            self.keep_from = max(self.keep_from, reach)
        if not probability >= options.threshold:
            self._run = self._sure_run = 0
            return ()
        self._run += FRAME_SAMPLES
        is_sure = probability >= options.sure_threshold
        self._sure_run = self._sure_run + FRAME_SAMPLES if is_sure else 0
        sure = 0 < self._sure_run >= _samples(options.min_sure_speech_s)
        if self._run < _samples(options.min_speech_s) and not sure:
            return ()
        self._began = self.keep_from
        return (self._opened(self.keep_from),)

    def _within(self, probability: float) -> tuple[EndpointEvent, ...]:
        options, begin = self._options, self.position - FRAME_SAMPLES
        full = self.position + FRAME_SAMPLES > self.keep_from + _samples(options.longest_s)
        if probability >= options.threshold and self._quiet is not None:
            return self._gone_on(begin, full)
        if probability < options.neg_threshold and self._quiet is None:
            self._quiet = begin
        longest = _samples(options.longest_s)
        late = self.keep_from + longest // 2 <= begin and self.position <= self.keep_from + longest
        if late and probability < self._lowest:
            self._lowest, self._lowest_at = probability, begin + FRAME_SAMPLES // 2
        if self._quiet is not None:
            return self._still()
        if full:
            cut = min(max(self._lowest_at, self.given_to), begin)
            return self._closed(cut, "cut"), self._opened(cut)
        return ()

    def _gone_on(self, begin: int, full: bool) -> tuple[EndpointEvent, ...]:
        """Continue the utterance after silence, or begin another if it would be too long."""
        if full:
            ended = self._closed(self._quiet_end(), "cut")
            reach = begin - _samples(self._options.pre_roll_s)
            return ended, self._opened(max(ended.at, reach))
        was_paused, self._paused, self._quiet = self._paused, False, None
        return (UtteranceResumed(begin),) if was_paused else ()

    def _still(self) -> tuple[EndpointEvent, ...]:
        """Return the end of the utterance or its pause, if the silence is long enough."""
        options, silence = self._options, self.position - (self._quiet or 0)
        if silence >= _samples(options.silence_s):
            return (self._closed(self._quiet_end(), "silence"),)
        if not self._paused and silence >= _samples(max(options.pause_s, options.post_roll_s)):
            self._paused = True
            return (UtterancePaused(self._quiet_end()),)
        return ()

    def _quiet_end(self) -> int:
        """Return the end of the utterance if no speech follows."""
        assert self._quiet is not None
        reach = self._quiet + _samples(self._options.post_roll_s)
        return min(reach, self.keep_from + _samples(self._options.longest_s), self.position)

    def _opened(self, at: int) -> UtteranceBegan:
        self.speaking, self.keep_from = True, at
        self._run = self._sure_run = 0
        self._lowest, self._lowest_at = 2.0, at + _samples(self._options.longest_s) // 2
        return UtteranceBegan(at)

    def _closed(self, at: int, reason: EndReason) -> UtteranceEnded:
        self.speaking, self.keep_from = False, at
        self._paused, self._quiet = False, None
        if reason != "cut":  # an utterance that continues after a cut keeps its settings
            self._options = self._wanted
        return UtteranceEnded(at, reason)


def _samples(seconds: float) -> int:
    return round(seconds * LIVE_RATE)
