"""Times of words by a rule, where an engine tells none: all characters take as long. Pure."""

from __future__ import annotations

from dataclasses import replace

from sidecar.transcripts.lettering import atoms, placed
from sidecar.transcripts.transcript import (
    BY_RULE,
    Checkpoint,
    Event,
    Finished,
    Segment,
    SegmentReady,
    Word,
)


def spread(segment: Segment) -> Segment:
    """The segment with words, flagged as guessed, if it is speech and has none."""
    if segment.words or not segment.is_speech or not segment.text.strip():
        return segment
    text = " ".join(segment.text.split())
    pieces = atoms(text)
    times = placed(pieces, segment.start, max(segment.start, segment.end))
    words = tuple(
        Word(round(start, 3), round(end, 3), piece.strip())
        for piece, (start, end) in zip(pieces, times, strict=True)
    )
    return replace(segment, words=words, words_by=BY_RULE)


def with_words(event: Event) -> Event:
    """The event with words in all of its segments."""
    match event:
        case SegmentReady():
            return replace(event, segment=spread(event.segment))
        case Checkpoint():
            return replace(event, segments=tuple(map(spread, event.segments)))
        case Finished(transcript):
            segments = tuple(map(spread, transcript.segments))
            return Finished(replace(transcript, segments=segments))
    return event
