"""Speech of a window that none of its segments covers, and the windows to transcribe it again.

The model may close its list minutes before the end, leave holes, or write an empty list. The
detector of `sidecar.diarization` listens only where segments are missing. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_windows import (
    VAD_LEAD_S,
    SpeechDetector,
    VibeVoiceWindow,
    VibeVoiceWindows,
)
from sidecar.transcripts.speaker_turns import clipped_spans, uncovered_spans
from sidecar.transcripts.transcript import LOOP_FLAG, Segment

MIN_MISSED_S = 2.0
"""Seconds of speech that are missed at least: the model leaves out sounds such as "mm-hm", and its
times are off by some tenths of a second."""
MARGIN_S = 0.3
"""Seconds before and after the detected speech that are transcribed with it."""
MAX_AGAIN_S = 300.0
"""Maximum length of a window of missed speech: the model loses less in shorter windows."""
LEAST_AGAIN_S = 20.0
"""Length below which a window of missed speech is not divided once more."""


@dataclass(frozen=True, slots=True)
class MissedSpeech:
    """Samples with missed speech, shape (samples,), that begin at ``start_s``.

    ``speech_s``: seconds of speech in it. ``window_s``: length of the window that missed it.
    ``looped``: some of it was skipped because of a loop.
    """

    start_s: float
    samples: Block
    speech_s: float
    window_s: float
    looped: bool = False

    def windows(self, rate: int, listen: SpeechDetector) -> Iterator[VibeVoiceWindow]:
        """Yield the windows to transcribe it again, which meet in pauses; samples are valid until
        the next.

        They are at most half as long as the window before: of the same input the model would write
        the same.
        """
        audio = _Samples(self.samples, len(self.samples) / rate)
        longest_s, at = min(MAX_AGAIN_S, self.window_s / 2), 0.0
        for window in VibeVoiceWindows(audio, rate, longest_s, listen):
            end = audio.total_s if window.border_s is None else window.border_s
            first, last = (round((edge - window.start_s) * rate) for edge in (at, end))
            yield VibeVoiceWindow(self.start_s + at, window.samples[first:last], None)
            at = end


@dataclass(frozen=True, slots=True)
class _Samples:
    """Samples as a stream."""

    samples: Block
    total_s: float

    def __iter__(self) -> Iterator[Block]:
        yield self.samples


def missed_speech(
    window: VibeVoiceWindow,
    segments: Sequence[Segment],
    rate: int,
    listen: SpeechDetector,
    *,
    last: bool = False,
) -> Iterator[MissedSpeech]:
    """Yield the speech before a window's border that no segment covers.

    ``segments`` are those of the window and of earlier ones, on the recording's clock. Audio that
    was skipped because of a loop is not covered, unless this was the ``last`` attempt.
    """
    skipped = [one for one in segments if LOOP_FLAG in one.flags and not last]
    length_s = len(window.samples) / rate
    end_s = length_s if window.border_s is None else window.border_s - window.start_s
    covered = (
        (one.start - window.start_s, one.end - window.start_s)
        for one in segments
        if one not in skipped
    )
    for begin, end in uncovered_spans(0.0, end_s, covered):
        if end - begin < MIN_MISSED_S:
            continue
        lead = max(0.0, begin - VAD_LEAD_S)
        spans = listen(window.samples[round(lead * rate) : round(end * rate)], rate)
        placed = sorted((lead + start, lead + stop) for start, stop in spans)
        speech = clipped_spans(placed, begin, end)
        seconds = sum(stop - start for start, stop in speech)
        if seconds >= MIN_MISSED_S:
            first, stop = max(begin, speech[0][0] - MARGIN_S), min(end, speech[-1][1] + MARGIN_S)
            samples = window.samples[round(first * rate) : round(stop * rate)]
            start_s, end_s = window.start_s + first, window.start_s + stop
            looped = any(one.start < end_s and one.end > start_s for one in skipped)
            yield MissedSpeech(start_s, samples, seconds, length_s, looped)
