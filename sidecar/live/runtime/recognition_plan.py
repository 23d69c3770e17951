"""Plan of the recognition of live speech: tasks, urgency, context, agreement, pace. Pure.

The plan recognizes a segment that has ended up to its end, a paused one up to the pause, and an
open one at intervals. Each of these has its urgency.

An engine that cannot be stopped within a segment delays a final until its current segment is done.
If that takes long, the plan leaves out all work that can wait: there are finals only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from sidecar.interfaces.live_events import ContextUtterance, Final
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.interfaces.recognition import (
    PartialSchedule,
    PrecedingContext,
    RecognitionHypothesis,
)
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.transcripts.word_timing import common_prefix_length

_MARKS = ".,;:!?…\"'-—()[]"
MAX_PARTIAL_WORK_S = 1.0
"""Work of a partial that may delay a final; one that takes longer comes too late anyway."""
RETRY_AFTER_S = 60.0
"""Seconds until a slow kind of work is tried again: the machine may have been busy."""
_LATEST_WEIGHT = 0.5
"""Weight of the latest value in the mean."""
MAX_CONTEXT_GAP_S = 1.0
"""Gap beyond which the previous segment is no context, and its audio is not kept."""


class RecognitionUrgency(IntEnum):
    """Urgency of a recognition, the most urgent first."""

    FINAL = 0
    SPECULATIVE = 1
    """The segment may have ended: a result from the pause need not be computed after it."""
    PARTIAL = 2
    VOICE = 3


TurnOrder = tuple[bool, RecognitionUrgency, float, float]


def turn_order(
    client: str,
    urgency: RecognitionUrgency,
    since: float,
    served: Mapping[str, float],
    *,
    ahead: bool = False,
) -> TurnOrder:
    """Return the key of a recognition, by which the most urgent one comes first.

    ``since``: the seconds since when it waits; ``served``: the time of each client's last
    recognition that was not a final. ``ahead``: its audio comes faster than it is spoken, so
    nobody waits for it as somebody at a microphone does.
    """
    if urgency is RecognitionUrgency.FINAL:
        return ahead, urgency, since, 0.0
    return ahead, urgency, served.get(client, float("-inf")), since


@dataclass(frozen=True, slots=True)
class PartialText:
    """Hypothesis in parts: ``text`` is worth showing and begins with ``stable``, which is not taken
    back; ``tail`` follows ``text``."""

    text: str
    stable: str
    tail: str


class HypothesisAgreement:
    """Agreement of the hypotheses of one segment. Words are compared without case and marks."""

    def __init__(self) -> None:
        self._before: list[str] | None = None
        self._agreed: list[str] = []

    def update(self, text: str) -> PartialText:
        """Add a hypothesis, of more audio than the previous one."""
        words = text.split()
        compared = [word.strip(_MARKS).casefold() for word in words]
        first = self._before is None
        if self._before is not None:
            same = common_prefix_length(self._before, compared)
            self._agreed += words[len(self._agreed) : same]
        self._before = compared
        stable = " ".join(self._agreed)
        if first:
            return PartialText(" ".join(words[:-1]), stable, " ".join(words[-1:]))
        return PartialText(stable, stable, " ".join(words[len(self._agreed) :]))


@dataclass(eq=False, slots=True)
class SpeechSegment:
    """Segment of speech, on the session's clock in samples; ``end`` is None while it is open."""

    number: int
    turn: int
    start: int
    opened: int
    """Time when it was known to have begun, which may be a little later."""
    options: LiveOptions = field(default_factory=LiveOptions)
    """Options at its begin, by which it is recognized."""
    end: int | None = None
    since: float = 0.0
    """Time when it was known to have ended."""
    paused: int | None = None
    """Start of the current pause, which may be its end."""
    early_hypothesis: RecognitionHypothesis | None = None
    """Text of the segment if that pause is its end."""
    draft_hypothesis: RecognitionHypothesis | None = None
    asked: int = 0
    """End of the audio of the last task for it."""
    agreement: HypothesisAgreement = field(default_factory=HypothesisAgreement)
    final: Final | None = None
    cancelled: bool = False
    diarize: bool = False
    """True if its speaker label is requested and possible."""
    shed: bool = False
    """True if it is not recognized because of load shedding."""
    counted: int = 0
    """End of the audio that the measured cost includes."""


@dataclass(eq=False, slots=True)
class RecognitionTask:
    """Work item of recognition: a segment from its start up to ``to``."""

    segment: SpeechSegment
    to: int
    urgency: RecognitionUrgency
    since: float
    pause: int | None = None
    late_s: float = 0.0
    """Seconds of audio that had come, when it began, behind the place where a partial is due."""

    @property
    def obsolete(self) -> bool:
        """Return whether its result is of no use any more."""
        segment = self.segment
        if segment.cancelled or segment.final is not None:
            return True
        over = segment.end is not None or segment.paused is not None
        return self.urgency is RecognitionUrgency.PARTIAL and over


class RecognitionPlan:
    """Work of an engine for one session. ``schedule``: how it recognizes an open segment."""

    def __init__(self, schedule: PartialSchedule) -> None:
        self._schedule = schedule
        self._going: list[RecognitionTask] = []
        self._since = float("-inf")
        """Time of the last final: the next one waits since then, so that sessions take turns."""

    @property
    def busy(self) -> bool:
        """Return whether a recognition is running."""
        return bool(self._going)

    def next_task(
        self,
        ended_segments: Iterable[SpeechSegment],
        open_segment: SpeechSegment | None,
        processed_to: int,
        options: LiveOptions,
    ) -> RecognitionTask | None:
        """Return the next task: the first of the ``ended_segments`` that have no final yet, else
        ``open_segment``. Audio up to the sample ``processed_to`` is processed so far."""
        for segment in ended_segments:
            if segment.final is None:
                if self._busy(segment) or self._growing(segment):
                    return None
                assert segment.end is not None
                since = max(segment.since, self._since)
                return RecognitionTask(segment, segment.end, RecognitionUrgency.FINAL, since)
        if open_segment is None or open_segment.shed:
            return None
        if open_segment.paused is not None:
            if (
                self._schedule.grows
                or open_segment.early_hypothesis is not None
                or self._busy(open_segment)
            ):
                return None
            pause = open_segment.paused
            return RecognitionTask(open_segment, pause, RecognitionUrgency.SPECULATIVE, 0.0, pause)
        if not (options.partials or self._schedule.grows):
            return None
        return self._partial(open_segment, processed_to, options)

    def began(self, task: RecognitionTask) -> None:
        """Note that a recognition has begun."""
        self._going.append(task)
        if task.urgency is not RecognitionUrgency.FINAL:
            task.segment.asked = task.to

    def over(self, task: RecognitionTask, now: float) -> None:
        """Note that a recognition has ended, whatever its result."""
        self._going.remove(task)
        if task.urgency is RecognitionUrgency.FINAL:
            self._since = now

    def _partial(
        self, segment: SpeechSegment, processed_to: int, options: LiveOptions
    ) -> RecognitionTask | None:
        schedule = self._schedule
        after_s = schedule.step_s if segment.asked > segment.start else schedule.first_s
        due = segment.asked + math.ceil(after_s * LIVE_RATE)
        to = processed_to - self._held_back(options)
        if self._going or to < due:
            return None
        since = max(due, segment.opened) / LIVE_RATE
        if schedule.turns:  # what it is given depends on the audio alone
            to = due
        return RecognitionTask(segment, to, RecognitionUrgency.PARTIAL, since)

    def _held_back(self, options: LiveOptions) -> int:
        """Return the samples that may turn out to lie behind the end of the open segment: an engine
        that continues its draft could not take them back."""
        ends = options.endpointing
        if not self._schedule.grows:
            return 0
        return round(max(0.0, ends.pause_s - ends.post_roll_s) * LIVE_RATE) + FRAME_SAMPLES

    def _growing(self, segment: SpeechSegment) -> bool:
        """Return whether a draft is being continued, for which a final waits."""
        return self._schedule.grows and any(
            self._schedule.turns or one.segment is segment for one in self._going
        )

    def _busy(self, segment: SpeechSegment) -> bool:
        """Return whether a segment is being recognized up to its end or up to its current pause."""
        return any(
            one.segment is segment
            and (
                one.urgency is RecognitionUrgency.FINAL
                or (one.pause is not None and one.pause == segment.paused)
            )
            for one in self._going
        )


class WorkPace:
    """Measured pace of an engine, by urgency: decides which work is worth its cost."""

    def __init__(self) -> None:
        self._means: dict[RecognitionUrgency, float] = {}
        self._again: dict[RecognitionUrgency, float] = {}

    def took(self, urgency: RecognitionUrgency, work_s: float, now: float) -> None:
        """Record that a segment took ``work_s`` seconds. A speculative recognition costs as much as
        a final."""
        if urgency is RecognitionUrgency.FINAL:
            urgency = RecognitionUrgency.SPECULATIVE
        mean = self._means.get(urgency, work_s)
        self._means[urgency] = mean + _LATEST_WEIGHT * (work_s - mean)
        self._again[urgency] = now + RETRY_AFTER_S

    def allows(self, urgency: RecognitionUrgency, now: float) -> bool:
        """Return whether a task is worth its cost; finals always are."""
        if urgency is RecognitionUrgency.FINAL:
            return True
        slow = self._means.get(urgency, 0.0) > MAX_PARTIAL_WORK_S
        return not slow or now >= self._again[urgency]

    def tried(self, urgency: RecognitionUrgency, now: float) -> None:
        """Record that a task begins: if its kind was too slow before, only one runs at a time."""
        if self._means.get(urgency, 0.0) > MAX_PARTIAL_WORK_S:
            self._again[urgency] = now + RETRY_AFTER_S


class RecognitionContext:
    """Context of one session: its last segments, each near the one before it."""

    def __init__(self, utterances: Sequence[ContextUtterance] = ()) -> None:
        """``utterances``: the context of another engine, which this one continues."""
        self._utterances = deque(utterances)

    @property
    def utterances(self) -> tuple[ContextUtterance, ...]:
        """Return the context segments, in order."""
        return tuple(self._utterances)

    def settled(self, segment: SpeechSegment, hypothesis: RecognitionHypothesis | None) -> None:
        """Note the result of a segment; None if recognition failed."""
        assert segment.end is not None
        understood = hypothesis is not None and hypothesis.text
        if not understood or (self._utterances and not _is_near(self._utterances[-1], segment)):
            self.forget()
        if hypothesis is not None and understood:
            start, end = segment.start / LIVE_RATE, segment.end / LIVE_RATE
            self._utterances.append(ContextUtterance(start, end, hypothesis.tokens))

    def forget(self) -> None:
        """Drop the context: the words were cancelled or not recognized."""
        self._utterances.clear()

    def of(self, task: RecognitionTask, longest: int) -> PrecedingContext | None:
        """Return the context of a segment, with at most ``longest`` samples in all. Partials are
        replaced soon: they are recognized alone."""
        if task.urgency is RecognitionUrgency.PARTIAL or not self._utterances:
            return None
        if not _is_near(self._utterances[-1], task.segment):
            return None
        told = [one for one in self._utterances if task.to - _sample(one.start) <= longest]
        if not told:
            return None
        samples = task.segment.start - _sample(told[0].start)
        return PrecedingContext(tuple(token for one in told for token in one.tokens), samples)

    def keep_from(self, settled: int, longest: int) -> int:
        """Return the first sample that is still needed; audio from ``settled`` on is still to be
        recognized."""
        while self._utterances and settled - _sample(self._utterances[0].start) > longest:
            self._utterances.popleft()
        return min(settled, _sample(self._utterances[0].start)) if self._utterances else settled


def _sample(seconds: float) -> int:
    return round(seconds * LIVE_RATE)


def _is_near(utterance: ContextUtterance, segment: SpeechSegment) -> bool:
    return 0 <= segment.start - _sample(utterance.end) <= MAX_CONTEXT_GAP_S * LIVE_RATE
