"""Detection of repetition loops in generated text, and recovery from them. Pure.

On music and long noise the model may repeat itself until its token limit. The guard checks each
token and each segment as it comes. It reports a loop, and how many of the last segments belong to
it. People repeat themselves too, so some repeated words are not enough: the words must exceed what
their claimed time can hold, the times must stand still, or there must be `SPOKEN_COPIES`.
"""

import json
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.transcripts import transcript
from sidecar.transcripts.vibevoice_output import OpenSegment, VibeVoiceOutputParser

COPIES = 3
"""Number of copies that make a repetition: the first one and two more."""

CHARACTERS_PER_S = 25.0
"""Maximum rate of speech: 300 English words a minute; conversation has 12 to 16."""

SPEECH_RATE_SLACK_S = 2.0
"""Tolerance of times, before a text counts as too long for them."""

WINDOW = 128
"""Tokens that are searched for repetitions; a longer period inside a text is not found."""

MIN_REPEATED_TOKENS = 16
"""Minimum tokens of a repetition: people say `No, no, no, no.`, and numbers have zeros."""

SPOKEN_COPIES = 44
"""Number of copies in one text that nobody speaks, however much time they claim."""

FEW_TOKENS = 24
"""Maximum number of different tokens in a window of a loop. Plain speech has 70 and more."""

MAX_SPAN_S = 30.0
"""Maximum span of a text that is believed; segments last seconds, seldom half of it."""
STRAY_TOKENS = 256
"""Maximum tokens outside any text without a new segment; the JSON of one takes about 24."""
MAX_CYCLE_SEGMENTS = 12
"""Maximum segments in a repeated verse."""
STILL_SEGMENTS = 6
"""Segments in a row with neither a later start nor a new second: time stands still."""
MAX_LOOPED_S = 60.0
"""The first copy in a loop is removed if it is longer: its end would hide the rest of the audio.
Also the maximum seconds that one segment covers."""
MIN_STEP_S = 0.05
"""Minimum progress of a repeated segment, however short its text."""
MIN_SKIP_S = 5.0
FIRST_SKIP_S = 15.0
MAX_SKIP_S = 60.0
"""Limits of a skip in seconds. Four first skips are a minute: a bad minute costs that minute. In
longer ranges a skip is a quarter of the audio already lost, so that little is lost after their
end."""
MIN_RECOVERIES, RECOVERY_INTERVAL_S = 16, 5.0
"""Recoveries from loops in one answer: a base, and one more for each interval of audio."""
WORTH_DECODING_S = 1.0
"""Minimum rest of the audio, in seconds, that is worth another attempt."""
OPENING = "assistant\n["
"""Beginning of an answer."""
LOOP_RECOVERED = transcript.Notice(
    "loop_recovered",
    "The model repeated itself; the repetition was removed and transcription resumed.",
)
OUTPUT_TRUNCATED = transcript.Notice(
    transcript.TRUNCATED, "The output of the model ended early; its complete segments are here."
)


def exceeds_speech_rate(characters: int, seconds: float) -> bool:
    """Return whether a text is too long to be spoken in ``seconds`` seconds."""
    return characters > CHARACTERS_PER_S * (seconds + SPEECH_RATE_SLACK_S)


class TokenRepetition:
    """Length of the repetition at the end of the tokens, for every period in a window.

    The cost of a token is the number of its occurrences in the window: few in speech, all in a
    loop.
    """

    def __init__(self) -> None:
        self._count = 0
        self._window: deque[Hashable] = deque()
        self._positions: dict[Hashable, deque[int]] = {}
        self._runs: dict[int, int] = {}

    def add(self, token: Hashable) -> None:
        """Add one token, or its ID."""
        if len(self._window) == WINDOW:
            oldest = self._window.popleft()
            self._positions[oldest].popleft()
            if not self._positions[oldest]:
                del self._positions[oldest]
        positions = self._positions.setdefault(token, deque())
        periods = (self._count - position for position in positions)
        self._runs = {period: self._runs.get(period, 0) + 1 for period in periods}
        positions.append(self._count)
        self._window.append(token)
        self._count += 1

    def copied(self, longest: int = WINDOW) -> int:
        """Return the tokens at the end that copy those before, in a repetition of at least
        `MIN_REPEATED_TOKENS`, of a sequence of at most ``longest``; 0 if there is none."""
        runs = (
            run
            for period, run in self._repetitions()
            if period <= longest and run + period >= MIN_REPEATED_TOKENS
        )
        return max(runs, default=0)

    @property
    def copies(self) -> int:
        """Return the number of copies at the end; 0 if there are fewer than `COPIES`."""
        return max((1 + run // period for period, run in self._repetitions()), default=0)

    def _repetitions(self) -> Iterator[tuple[int, int]]:
        runs = self._runs.items()
        return ((period, run) for period, run in runs if run >= (COPIES - 1) * period)

    @property
    def different(self) -> int:
        """Return the number of different tokens in a full window; before it is full, `WINDOW`."""
        return len(self._positions) if len(self._window) == WINDOW else WINDOW


def tokens_before_loop(
    tokens: Sequence[int], text: str, seconds: float, *, ended: bool
) -> int | None:
    """Return the number of tokens to keep of output with a repetition loop; `None` if there is no
    loop.

    ``text``: text of the tokens. ``seconds``: length of the window. ``ended``: the model ended the
    output. The first copy of what is repeated is kept.
    """
    if ended and not exceeds_speech_rate(len(text), seconds):
        return None
    seen = TokenRepetition()
    for token in tokens:
        seen.add(token)
    if copied := seen.copied():
        return len(tokens) - copied
    return 0 if seen.different <= FEW_TOKENS else None


class LoopReason(StrEnum):
    """Reason why a loop was detected."""

    REPEATED_TOKENS = "repeated_tokens"
    FEW_WORDS = "few_words"
    TOO_MUCH_TEXT = "too_much_text"
    NO_SEGMENT = "no_segment"
    REPEATED_SEGMENTS = "repeated_segments"
    SEEN_BEFORE = "seen_before"
    NO_NEW_TIME = "no_new_time"


@dataclass(frozen=True, slots=True)
class RepetitionLoop:
    """Loop that was detected: its reason, and how many of the last segments to cut.

    The remaining segments are valid; a segment that is still open is never among them.
    """

    why: LoopReason
    cut: int = 0


class LoopGuard:
    """Guard of one output stream. After a cut, create a new one with the segments that were kept.

    ``duration_s``: end of the audio, on the clock of the segments; None if unknown.
    """

    def __init__(
        self, duration_s: float | None, kept_segments: Iterable[transcript.Segment] = ()
    ) -> None:
        self._duration = duration_s
        self._segments: list[transcript.Segment] = []
        self._texts: list[tuple[str, int | None]] = []
        self._sound: list[bool] = []
        self._seen: set[transcript.Segment] = set()
        self._latest_start = -1.0
        self._latest_end = 0.0
        self._covered_seconds: set[int] = set()
        self._still = 0
        self._again = 0
        self._tokens = TokenRepetition()
        self._stray = 0
        for segment in kept_segments:
            self.segment(segment)

    def token(self, token_id: int, segment: OpenSegment | None) -> RepetitionLoop | None:
        """Check one token; ``segment`` is the text that is open after it, as the parser has it.

        The parser reads a token first, then this function gets it, then `segment` what it closed.
        """
        self._tokens.add(token_id)
        if segment is None:
            self._stray += 1
            if self._tokens.copied():
                return RepetitionLoop(LoopReason.REPEATED_TOKENS)
            return RepetitionLoop(LoopReason.NO_SEGMENT) if self._stray > STRAY_TOKENS else None
        left = self._left_s(segment)
        if segment.characters > CHARACTERS_PER_S * (left + MAX_SPAN_S):
            return RepetitionLoop(LoopReason.TOO_MUCH_TEXT)
        if not exceeds_speech_rate(segment.characters, self._claimed_s(segment, left)):
            spoken = self._tokens.copies < SPOKEN_COPIES
            return None if spoken else RepetitionLoop(LoopReason.REPEATED_TOKENS)
        if self._tokens.copied():
            return RepetitionLoop(LoopReason.REPEATED_TOKENS)
        few = self._tokens.different <= FEW_TOKENS
        return RepetitionLoop(LoopReason.FEW_WORDS) if few else None

    def segment(self, segment: transcript.Segment) -> RepetitionLoop | None:
        """Check one closed segment."""
        length = segment.end - segment.start
        first = int(segment.start)
        seconds = set(range(first, first + math.ceil(min(length, MAX_LOOPED_S))))
        moves = segment.start > self._latest_start or not seconds <= self._covered_seconds
        self._still = 0 if moves else self._still + 1
        self._again = self._again + 1 if segment in self._seen else 0
        self._latest_start = max(self._latest_start, segment.start)
        self._latest_end = max(self._latest_end, segment.end)
        self._covered_seconds |= seconds
        self._seen.add(segment)
        self._segments.append(segment)
        self._texts.append((" ".join(segment.text.casefold().split()), segment.speaker))
        self._sound.append(moves and 0 < length <= MAX_LOOPED_S)
        self._tokens = TokenRepetition()
        self._stray = 0
        if cycle := self._stuck_cycle():
            sound = self._sound[-COPIES * cycle :][:cycle]
            kept = sound.index(False) if False in sound else cycle
            return RepetitionLoop(LoopReason.REPEATED_SEGMENTS, COPIES * cycle - kept)
        if self._again >= COPIES:
            return RepetitionLoop(LoopReason.SEEN_BEFORE, self._again)
        if self._still >= STILL_SEGMENTS:
            return RepetitionLoop(LoopReason.NO_NEW_TIME, self._still)
        return None

    def _stuck_cycle(self) -> int:
        """Return the number of segments that the last ones repeat in too little time; 0 if they do
        not."""
        for cycle in range(1, min(MAX_CYCLE_SEGMENTS, len(self._segments) // COPIES) + 1):
            texts = self._texts[-COPIES * cycle :]
            if texts[cycle:] == texts[:-cycle] and self._moved_s(cycle) < (COPIES - 1) * max(
                _shortest_s(segment) for segment in self._segments[-cycle:]
            ):
                return cycle
        return 0

    def _moved_s(self, cycle: int) -> float:
        """Return the seconds from the first copy of the last segment to its last, by start or by
        end."""
        last, first = self._segments[-1], self._segments[-1 - (COPIES - 1) * cycle]
        return min(last.start - first.start, last.end - first.end)

    def _left_s(self, segment: OpenSegment) -> float:
        """Return the seconds of audio after the start of a text, or after its earliest possible
        start."""
        if self._duration is None:
            return float("inf")
        begins = self._latest_end if segment.start is None else segment.start
        return max(0.0, self._duration - begins)

    def _claimed_s(self, segment: OpenSegment, left_s: float) -> float:
        """Return the seconds that a text claims, else ``left_s``; at most `MAX_SPAN_S`."""
        claimed = left_s
        if segment.start is not None and segment.end is not None:
            claimed = segment.end - segment.start
        return min(claimed, MAX_SPAN_S)


def _shortest_s(segment: transcript.Segment) -> float:
    """Return the minimum seconds of a segment: half of what speech takes, as times are rounded."""
    if transcript.NON_SPEECH_FLAG in segment.flags:
        return MIN_STEP_S
    return max(MIN_STEP_S, len(segment.text) / CHARACTERS_PER_S / 2)


class GuardedAnswer:
    """Answer of VibeVoice-ASR as it grows, with its parser and its guard. It goes on from ``text``,
    and appends to ``segments``, which are those of the text."""

    def __init__(self, duration_s: float, text: str, segments: list[transcript.Segment]) -> None:
        self.text, self.segments = text, segments
        self.parser = VibeVoiceOutputParser(duration_s)
        self.parser.feed(text)
        self._guard = LoopGuard(duration_s, segments)

    def take(
        self, token_id: int, piece: str
    ) -> tuple[list[transcript.Segment], RepetitionLoop | None]:
        """Add a token and its text; return the segments that it closes up to a loop, and the loop
        that it or the last of them closes."""
        self.text += piece
        first, closed = len(self.segments), self.parser.feed(piece)
        loop = self._guard.token(token_id, self.parser.open_content)
        for segment in closed:
            if loop is None:
                self.segments.append(segment)
                loop = self._guard.segment(segment)
        return self.segments[first:], loop

    def text_until(self, count: int) -> str:
        """Return the text of its first ``count`` segments, without the turns that follow the last
        of them in its item: those before are then items of their own."""
        closed = self.parser.closed_at
        whole = bisect_left(closed, closed[count]) if count < len(closed) else count
        text = self.text[: closed[whole - 1]] if whole else ""
        for turn in self.segments[whole:count]:
            text = with_item(text, turn)
        return text


def with_item(text: str, segment: transcript.Segment) -> str:
    """Return the text of an answer with a segment more, in the form and rounding (centiseconds) of
    the model."""
    times = {"Start": _number(segment.start), "End": _number(segment.end)}
    speaker = {} if segment.speaker is None else {"Speaker": segment.speaker}
    item = {**times, **speaker, "Content": segment.text}
    written = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    return f"{text},{written}" if text else OPENING + written


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Sampling of a token: ``temperature`` above 0, among the likeliest that make ``top_p``."""

    temperature: float
    top_p: float


RETRIES = (SamplingOptions(0.2, 0.95), SamplingOptions(0.3, 0.95), SamplingOptions(0.4, 0.95))
"""Sampling of the retries: those of the model's own recovery test, in its order."""


def max_recoveries(duration_s: float) -> int:
    """Return the maximum number of skips in a recording before its answer is given up."""
    return MIN_RECOVERIES + round(duration_s / RECOVERY_INTERVAL_S)


def retry_sampling(tried: int, lost_s: float = 0.0) -> SamplingOptions | None:
    """Return the sampling after ``tried`` retries at this position; None: skip.

    ``lost_s``: seconds skipped directly before this position. If audio was skipped there, the rest
    is not retried: a long song costs one attempt for each skip.
    """
    return RETRIES[tried] if tried < len(RETRIES) and not lost_s else None


@dataclass(frozen=True, slots=True)
class SkippedAudio:
    """Skipped audio, in seconds of the audio that the model gets."""

    start: float
    end: float

    def segment(self, offset_s: float = 0.0) -> transcript.Segment:
        """Return it as a flagged segment of the recording."""
        start, end = self.start + offset_s, self.end + offset_s
        return transcript.Segment(
            start,
            end,
            transcript.UNINTELLIGIBLE,
            flags=(transcript.NON_SPEECH_FLAG, transcript.LOOP_FLAG),
        )


def next_skipped_audio(
    stuck_s: float, duration_s: float, lost_s: float = 0.0, claimed_end_s: float | None = None
) -> SkippedAudio | None:
    """Return the audio to skip from ``stuck_s``, the end of the last valid segment.

    ``lost_s``: seconds skipped directly before. ``claimed_end_s``: end that the looping segment
    claimed, if any; the first skip uses it. None: too little audio is left.
    """
    if duration_s - stuck_s < WORTH_DECODING_S:
        return None
    length = FIRST_SKIP_S
    if lost_s:
        length = min(max(FIRST_SKIP_S, lost_s / 4), MAX_SKIP_S)
    elif claimed_end_s is not None and claimed_end_s > stuck_s:
        length = min(max(MIN_SKIP_S, claimed_end_s - stuck_s), MAX_SKIP_S)
    return SkippedAudio(stuck_s, min(stuck_s + length, duration_s))


def _number(seconds: float) -> int | float:
    rounded = round(seconds, 2)
    return int(rounded) if rounded.is_integer() else rounded


def loop_skipped_notice(lost_s: float) -> transcript.Notice:
    """Return the notice of ``lost_s`` seconds that were left out."""
    said = f"The model repeated itself; {lost_s:.0f} s were left out (flagged 'loop')."
    return transcript.Notice(transcript.LOOP_SKIPPED, said)


def loop_notices(
    segments: Iterable[transcript.Segment], loops: int, *, truncated: bool
) -> tuple[transcript.Notice, ...]:
    """Return the notices about loops in an answer and about a truncated end."""
    lost = [one.end - one.start for one in segments if transcript.LOOP_FLAG in one.flags]
    found = [loop_skipped_notice(sum(lost))] if lost else [LOOP_RECOVERED] if loops else []
    return (*found, OUTPUT_TRUNCATED) if truncated else tuple(found)
