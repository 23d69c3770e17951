"""Changes of speakers within an utterance: two people may speak without a pause between them.

The segmentation of the file's diarizer hears each utterance of a session when it is recognized to
its end. A final is cut where it hears another speaker, and each part has an embedding of its own.
Cost: one window of ten seconds for each utterance that is long enough for two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sidecar.audio import Block
from sidecar.diarization.word_attribution import attribute_words, dominant_turns
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, Word
from sidecar.transcripts.word_timing import estimate_word_times

if TYPE_CHECKING:
    from sidecar.diarization.speaker_models import SpeakerModels

MIN_SPEAKER_S = 0.8
"""Minimum speech of a speaker within an utterance: of less no embedding tells who it is."""


def turns_within(models: SpeakerModels, audio: Block) -> list[SpeakerTurn]:
    """Return the turns within an utterance at 16 kHz, shape (samples,), in seconds. Whoever speaks
    at the border of two windows of ten seconds speaks on; all others are others in the next one.
    Speakers with less than `MIN_SPEAKER_S` are left out."""
    from sidecar.diarization.clustering import turns_from_activity
    from sidecar.diarization.window_embeddings import (
        MAX_WINDOW_SPEAKERS,
        WINDOW_SAMPLES,
        segment_speakers,
    )

    found = list[SpeakerTurn]()
    if len(audio) < 2 * MIN_SPEAKER_S * LIVE_RATE:
        return found
    for number, begin in enumerate(range(0, len(audio), WINDOW_SAMPLES)):
        part = audio[begin : begin + WINDOW_SAMPLES]
        window = np.zeros(WINDOW_SAMPLES, np.float32)
        window[: len(part)] = part
        ((activity, _),) = segment_speakers(models, [window])
        turns = turns_from_activity(activity, 0, len(part) / LIVE_RATE)
        labels = {turn.label: number * MAX_WINDOW_SPEAKERS + turn.label for turn in turns}
        if found and turns:
            labels[turns[0].label] = max(found, key=lambda turn: turn.end).label
        at_s = begin / LIVE_RATE
        found += [
            SpeakerTurn(at_s + turn.start, at_s + turn.end, labels[turn.label]) for turn in turns
        ]
    spoken_s = defaultdict[int, float](float)
    for turn in found:
        spoken_s[turn.label] += turn.end - turn.start
    return [turn for turn in found if spoken_s[turn.label] >= MIN_SPEAKER_S]


def divided_at_changes(
    hypothesis: RecognitionHypothesis, start: int, end: int
) -> RecognitionHypothesis:
    """Return the hypothesis of an utterance with the words of its earlier ``turns`` as ``earlier``.

    The utterance has the samples from ``start`` to ``end`` of the session. Without times of words,
    these are estimated: a cut is then at an end of a sentence near by.
    """
    changes = [
        (one.end + other.start) / 2
        for one, other in pairwise(dominant_turns(hypothesis.turns))
        if one.label != other.label
    ]
    said = Segment(
        0.0,
        (end - start) / LIVE_RATE,
        hypothesis.text.strip(),
        words=hypothesis.words,
        language=hypothesis.language,
    )
    parts = attribute_words([estimate_word_times(said)], hypothesis.turns) if changes else [said]
    borders = [(one.end + other.start) / 2 for one, other in pairwise(parts)]
    cuts = [_nearest(changes, at) for at in borders]
    texts = [
        replace(
            hypothesis,
            text=part.text,
            words=_words_from(begin, part.words) if hypothesis.words else (),
        )
        for begin, part in zip((0.0, *cuts), parts, strict=True)
    ]
    earlier = [
        (start + round(cut * LIVE_RATE), replace(text, confidence=Confidence(), draft=None))
        for cut, text in zip(cuts, texts[:-1], strict=True)
    ]
    return replace(texts[-1], earlier=tuple(earlier)) if earlier else hypothesis


def _words_from(begin: float, words: Sequence[Word]) -> tuple[Word, ...]:
    """Return words with times from ``begin``."""
    return tuple(
        replace(one, start=max(0.0, one.start - begin), end=max(0.0, one.end - begin))
        for one in words
    )


def _nearest(times: Sequence[float], at: float) -> float:
    return min(times, key=lambda one: abs(one - at))
