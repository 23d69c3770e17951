"""A line with other words: the times of those that stay, and a guess for the rest. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import takewhile

from sidecar.transcripts.lettering import atoms, placed
from sidecar.transcripts.transcript import BY_RULE, LOOP, NON_SPEECH, Segment, Word

MOST_COMPARED = 250_000
"""Words before times words after that are compared with each other (some 0.1 s at the worst);
beyond that, all between the first and the last change get their times by the rule."""

_Span = tuple[str, int, int, int, int]
"""As difflib has them: what became of the words from one to before the other."""


def reworded(segment: Segment, text: str) -> Segment:
    """The segment with another text. Somebody wrote it, so it is no loop of the model's, and speech
    unless it is a note in brackets, as `[Music]`."""
    flags = [flag for flag in segment.flags if flag not in (LOOP, NON_SPEECH)]
    if text.startswith("[") and text.endswith("]"):
        flags.append(NON_SPEECH)
    changed = replace(segment, text=text, flags=tuple(flags))
    if not segment.words:
        return changed
    words = tuple(_timed(segment, [piece.strip() for piece in atoms(text)]))
    known = {(word.start, word.end) for word in segment.words}
    guessed = any((word.start, word.end) not in known for word in words)
    return replace(changed, words=words, words_by=BY_RULE if guessed else segment.words_by)


def _timed(segment: Segment, fresh: Sequence[str]) -> Iterator[Word]:
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
        times = placed(fresh[begin:end], since, until)
        for text, (start, stop) in zip(fresh[begin:end], times, strict=True):
            yield Word(round(start, 3), round(stop, 3), text)


def _spans(old: Sequence[str], fresh: Sequence[str]) -> Iterator[_Span]:
    before, after = [_key(text) for text in old], [_key(text) for text in fresh]
    head = _alike(before, after)
    tail = _alike(before[head:][::-1], after[head:][::-1])
    yield "equal", 0, head, 0, head
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    if len(left) * len(right) > MOST_COMPARED:
        yield "replace", head, head + len(left), head, head + len(right)
    else:
        for tag, a, b, c, d in SequenceMatcher(None, left, right).get_opcodes():
            yield tag, head + a, head + b, head + c, head + d
    yield "equal", len(old) - tail, len(old), len(fresh) - tail, len(fresh)


def _alike(some: Sequence[str], others: Sequence[str]) -> int:
    """How many are the same from the beginning."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False))
    )


def _key(text: str) -> str:
    """By which a word is the same: capitals and marks change no time."""
    return "".join(one for one in text.casefold() if one.isalnum()) or text.strip()
