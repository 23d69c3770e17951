"""Word times where an engine gives none or an edit changes words; width of text. Pure.

In languages with spaces between words and without.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise, takewhile
from operator import eq

from sidecar.transcripts.transcript import (
    LOOP_FLAG,
    NON_SPEECH_FLAG,
    WORDS_BY_RULE,
    Checkpoint,
    Finished,
    Segment,
    SegmentReady,
    TranscriptionEvent,
    Word,
)

_WIDE = ("W", "F")
_OPENING_MARKS = frozenset("([{（［｛「『【〔〈《“‘¿¡")
"""Stand with what follows them."""


def text_columns(text: str) -> int:
    """Columns that ``text`` takes: two for what East Asian fonts set full width, none for marks
    that stand on another character."""
    return sum(map(_columns, text))


def is_wide(character: str) -> bool:
    """Return whether it is a full-width character of a script without spaces."""
    return unicodedata.east_asian_width(character) in _WIDE


def split_atoms(text: str) -> list[str]:
    """The pieces of ``text`` between which it may be cut; together they are ``text``.

    Each word with the space behind it; of what is full width each character, with the marks that
    may not begin a line, or end one, beside it.
    """
    found: list[str] = []
    for character in text:
        if found and not _may_break(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def split_columns(text: str, most: int) -> list[str]:
    """``text`` in pieces of at most ``most`` columns, cut wherever that is, but never between a
    character and its marks."""
    found: list[str] = []
    taken = 0
    for character in text:
        columns = _columns(character)
        if found and (taken + columns <= most or not columns):
            found[-1] += character
            taken += columns
        else:
            found.append(character)
            taken = columns
    return found


def split_at_words(text: str, words: Sequence[str]) -> list[str]:
    """``text`` in as many pieces as there are words, each with its word in it.

    What stands between two words, marks and space, belongs to the one before; an engine may list
    its words without either, and some languages write none between them. Where a word is not found
    in the text the pieces are the words, with a space between them.
    """
    starts: list[int] = []
    at = 0
    for word in words:
        found = text.find(word.strip(), at)
        if found < 0:
            return [f"{word.strip()} " for word in words]
        starts.append(found)
        at = found + len(word.strip())
    return [text[first:last] for first, last in pairwise([0, *starts[1:], len(text)])]


def spread_over_time(
    pieces: Sequence[str], start: float, end: float
) -> Iterator[tuple[float, float]]:
    """Return the times of each part if all columns from ``start`` to ``end`` take the same time."""
    widths = [max(1, text_columns(piece)) for piece in pieces]
    a_column = (end - start) / max(1, sum(widths))
    done = 0
    for columns in widths:
        yield start + done * a_column, min(end, start + (done + columns) * a_column)
        done += columns


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return int(character.isspace())
    return 2 if is_wide(character) else 1


def _may_break(before: str, after: str) -> bool:
    last = before[-1]
    if after.isspace() or not _columns(after):
        return False
    if last.isspace():
        return True
    if not (is_wide(last) or is_wide(after)) or last in _OPENING_MARKS:
        return False
    return after in _OPENING_MARKS or not unicodedata.category(after).startswith("P")


def one_line(text: str) -> str:
    """``text`` as a line: without control characters, halves of surrogate pairs, and space that
    nobody sees."""
    plain = (" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in text)
    return " ".join("".join(plain).split())


MAX_COMPARED_PAIRS = 250_000
"""Words before times words after that are compared with each other (some 0.1 s at the worst);
beyond that, all between the first and the last change get their times by the rule."""

_Span = tuple[str, int, int, int, int]
"""As difflib has them: what became of the words from one to before the other."""


def replace_segment_text(segment: Segment, text: str) -> Segment:
    """The segment with another text. Somebody wrote it, so it is no loop of the model's, and speech
    unless it is a note in brackets, as `[Music]`."""
    flags = [flag for flag in segment.flags if flag not in (LOOP_FLAG, NON_SPEECH_FLAG)]
    if text.startswith("[") and text.endswith("]"):
        flags.append(NON_SPEECH_FLAG)
    changed = replace(segment, text=text, flags=tuple(flags))
    if not segment.words:
        return changed
    words = tuple(_transfer_word_times(segment, [piece.strip() for piece in split_atoms(text)]))
    known = {(word.start, word.end) for word in segment.words}
    guessed = any((word.start, word.end) not in known for word in words)
    return replace(changed, words=words, words_by=WORDS_BY_RULE if guessed else segment.words_by)


def _transfer_word_times(segment: Segment, fresh: Sequence[str]) -> Iterator[Word]:
    """The words that are ``fresh``, in order, none outside of the segment."""
    old = segment.words
    for tag, first, last, begin, end in _spans([word.text for word in old], fresh):
        if tag == "equal":
            for word, text in zip(old[first:last], fresh[begin:end], strict=True):
                yield replace(word, text=text)
            continue
        inside = old[first:last]
        before = old[first - 1].end if first else segment.start
        behind = old[last].start if last < len(old) else segment.end
        since = inside[0].start if inside else before
        until = max(since, inside[-1].end if inside else behind)
        times = spread_over_time(fresh[begin:end], since, until)
        for text, (start, stop) in zip(fresh[begin:end], times, strict=True):
            yield Word(round(start, 3), round(stop, 3), text)


def _spans(old: Sequence[str], fresh: Sequence[str]) -> Iterator[_Span]:
    before, after = list(map(_comparison_key, old)), list(map(_comparison_key, fresh))
    head = common_prefix_length(before, after)
    tail = common_prefix_length(before[head:][::-1], after[head:][::-1])
    yield "equal", 0, head, 0, head
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    if len(left) * len(right) > MAX_COMPARED_PAIRS:
        yield "replace", head, head + len(left), head, head + len(right)
    else:
        for tag, a, b, c, d in SequenceMatcher(None, left, right).get_opcodes():
            yield tag, head + a, head + b, head + c, head + d
    yield "equal", len(old) - tail, len(old), len(fresh) - tail, len(fresh)


def common_prefix_length(some: Sequence[str], others: Sequence[str]) -> int:
    """Return how many items are the same from the beginning."""
    return sum(takewhile(bool, map(eq, some, others)))


def _comparison_key(text: str) -> str:
    """By which a word is the same: capitals and marks change no time."""
    return "".join(one for one in text.casefold() if one.isalnum()) or text.strip()


def estimate_word_times(segment: Segment) -> Segment:
    """The segment with words, flagged as guessed, if it is speech and has none."""
    if segment.words or not segment.is_speech or not segment.text.strip():
        return segment
    text = " ".join(segment.text.split())
    pieces = split_atoms(text)
    times = spread_over_time(pieces, segment.start, max(segment.start, segment.end))
    timed = zip(pieces, times, strict=True)
    words = tuple(Word(round(at, 3), round(end, 3), one.strip()) for one, (at, end) in timed)
    return replace(segment, words=words, words_by=WORDS_BY_RULE)


def with_word_times(event: TranscriptionEvent) -> TranscriptionEvent:
    """The event with words in all of its segments."""
    match event:
        case SegmentReady():
            return replace(event, segment=estimate_word_times(event.segment))
        case Checkpoint():
            return replace(event, segments=tuple(map(estimate_word_times, event.segments)))
        case Finished(transcript):
            segments = tuple(map(estimate_word_times, transcript.segments))
            return Finished(replace(transcript, segments=segments))
    return event
