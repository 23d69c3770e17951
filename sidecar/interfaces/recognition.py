"""What an engine is asked to recognize of speech, and its answer: request, hypothesis, schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.interfaces.live_options import LiveOptions
from sidecar.transcripts import chinese_script
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import WORDS_BY_ATTENTION, Word

FIRST_PARTIAL_S, PARTIAL_STEP_S = 0.6, 1.0
"""Seconds of a segment until its first partial, and from one to the next. Half the step costs twice
as much and takes twice as many words back."""


@dataclass(frozen=True, slots=True)
class PrecedingContext:
    """Context before a span: the audio begins with ``samples`` samples of speech, whose text is
    ``said``, as the engine's tokens."""

    said: tuple[int, ...]
    samples: int


@dataclass(slots=True)
class SessionState:
    """What an engine keeps for a session, from segment to segment."""

    kept: object = None


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """Segment to recognize: its audio, shape (samples,) at the engine's rate, and its options. A
    language in these is what the client requested.

    ``draft_hypothesis``: of its beginning. ``preceding_context``: that with which the audio begins;
    the result is the text of the segment alone, with word times from its start. ``cancelled``: the
    result is not wanted any more. ``start``: of the audio, in such samples of the session.
    """

    audio: Block
    options: LiveOptions
    draft_hypothesis: RecognitionHypothesis | None = None
    preceding_context: PrecedingContext | None = None
    cancelled: CancelCheck = lambda: False
    start: int = 0
    session: SessionState = field(default_factory=SessionState)


@dataclass(frozen=True, slots=True)
class RecognitionHypothesis:
    """Hypothesis of a segment; ``draft`` is the engine's state for the next one.

    ``words``: times in seconds from the beginning of the segment; empty if not requested or not
    available. ``language``: '' if the engine does not report it; ``sure``: it is certain, so that
    the engine need not detect it again. ``tokens``: the text as the engine's tokens, if it is the
    context of the next segment. ``confidence``: of an engine for one language only.
    ``likelihood`` and ``no_speech``: the confidence of a `Segment`, of any engine, and its
    probability of no speech. ``earlier``: of an engine that tells speakers apart, the turns of
    other speakers before this text, each with its end in samples of the session at `LIVE_RATE`;
    ``turns``: of another, those that were heard in the audio, in seconds from its beginning.
    ``unheard``: recognition was stopped before the end of the audio.
    """

    text: str
    words: tuple[Word, ...] = ()
    words_by: str = WORDS_BY_ATTENTION
    language: str = ""
    draft: object = None
    sure: bool = False
    tokens: tuple[int, ...] = ()
    confidence: Confidence = field(default_factory=Confidence)
    likelihood: float | None = None
    no_speech: float | None = None
    earlier: tuple[tuple[int, RecognitionHypothesis], ...] = ()
    turns: tuple[SpeakerTurn, ...] = ()
    unheard: bool = False


def in_chinese_script(
    hypothesis: RecognitionHypothesis, script: chinese_script.ChineseScript, *, open_: bool
) -> RecognitionHypothesis:
    """Return a hypothesis in a script, unless it is in another language; ``open_``: its text goes
    on, and what was said of it stays."""
    whole = partial(chinese_script.in_script, script=script)
    by_character = partial(chinese_script.in_script_by_character, script=script)
    earlier = tuple((at, _changed(one, whole)) for at, one in hypothesis.earlier)
    return replace(_changed(hypothesis, by_character if open_ else whole), earlier=earlier)


def _changed(
    hypothesis: RecognitionHypothesis, change: Callable[[str], str]
) -> RecognitionHypothesis:
    if not chinese_script.may_be_chinese(hypothesis.language):
        return hypothesis
    text, words = chinese_script.text_and_words(hypothesis.text, hypothesis.words, change)
    return replace(hypothesis, text=text, words=words)


@dataclass(frozen=True, slots=True)
class PartialSchedule:
    """Schedule of partials: first after ``first_s``, then each ``step_s``.

    ``grows``: the engine continues from the end of its draft and takes nothing back. So all of its
    text is stable. It recognizes a segment step by step even if partials are off, and a final is
    the draft and the rest. Recognizing a pause early would gain nothing. ``turns``: its hypotheses
    may have turns of several speakers (`RecognitionHypothesis.earlier`).
    """

    first_s: float = FIRST_PARTIAL_S
    step_s: float = PARTIAL_STEP_S
    grows: bool = False
    turns: bool = False


DEFAULT_SCHEDULE = PartialSchedule()
