"""Word times, if an engine gives none or an edit changes words, and places to break text. Pure.

It supports languages with and without spaces between words. Characters are those that people see:
the code points that belong together by Unicode's grapheme clusters (UAX 29), without its rarest.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from operator import eq

from sidecar.transcripts.scripts import is_ideographic, is_unspaced, is_wide
from sidecar.transcripts.transcript import (
    WORDS_BY_RULE,
    Segment,
    TranscriptionEvent,
    Word,
    map_segments,
    mean_confidence,
    words_confidence,
)

_JOINER = "\u200d"
"""Joins emoji, and the letters of some scripts."""
_EXTENDING = frozenset("\u200c\u200d\u0e33\u0eb3\uff9e\uff9f")
"""Characters that belong to the one before without being marks by their category."""
_VIRAMA = 9
"""Combining class of the sign that joins two consonants."""
_OPENING_MARKS = frozenset("([{（［｛「『【〔〈《“‘¿¡")
"""Marks that stay with the following character."""


def characters(text: str) -> Iterator[str]:
    """Yield the characters of a text, each with all of its code points."""
    found = ""
    for one in text:
        if found and not belongs_to(found, one):
            yield found
            found = ""
        found += one
    if found:
        yield found


def belongs_to(before: str, after: str) -> bool:
    """Return whether the code point ``after`` belongs to the last character of ``before``."""
    if after < "\u0300":
        return False
    last, category = before[-1], unicodedata.category(after)
    if category in ("Mn", "Me", "Mc") or after in _EXTENDING or _is_modifier(after):
        return True
    if last == _JOINER:
        return category in ("Lo", "So")
    if category == "Lo":
        tail = before[-2:]  # letters of one Hangul syllable are one character when composed
        composed = [len(unicodedata.normalize("NFC", one)) for one in (tail, tail + after)]
        return unicodedata.combining(last) == _VIRAMA or composed[0] == composed[1]
    if _is_half_flag(after):
        halves = sum(1 for _ in takewhile(_is_half_flag, reversed(before)))
        return halves % 2 == 1
    return False


def text_columns(text: str) -> int:
    """Return the columns of ``text``: two for an East Asian full-width character, none for a
    combining mark."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(map(character_columns, characters(text)))


def character_columns(character: str) -> int:
    """Return the columns of a character with all of its code points."""
    return 2 if any(map(is_wide, character)) else sum(map(_columns, character))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return int(character.isspace())
    return 2 if is_wide(character) else 1


def _is_half_flag(character: str) -> bool:
    """Return whether it is a regional indicator: two of them are a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_modifier(character: str) -> bool:
    """Return whether it is a skin tone of an emoji, or part of a region's flag."""
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f"


def split_atoms(text: str) -> list[str]:
    """Split ``text`` where it may be broken; the results together are ``text``.

    A word stays with the space after it. Each full-width character but Hangul is separate, except
    for marks that must not begin or end a line.
    """
    found: list[str] = []
    for character in text:
        if found and not may_break(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def split_columns(text: str, most: int) -> list[str]:
    """Split ``text`` into parts of at most ``most`` columns, at any character."""
    found: list[str] = []
    taken = 0
    for character in characters(text):
        columns = character_columns(character)
        if found and (taken + columns <= most or not columns):
            found[-1] += character
            taken += columns
        else:
            found.append(character)
            taken = columns
    return found


def split_at_words(text: str, words: Sequence[str]) -> list[str]:
    """Split ``text`` into one part for each word, each part with its word in it.

    Marks and space between two words belong to the first of them. An engine may list words without
    either, and some languages write no space between them. If a word is not in the text, the parts
    are the words, each with a space after it.
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


def cut_at_words(segment: Segment, cuts: Iterable[int]) -> list[Segment]:
    """Return the pieces of a segment with words, cut before the words with the indexes ``cuts``;
    the first and the last keep its start and end."""
    words = segment.words
    texts = split_at_words(segment.text, [word.text for word in words])
    found: list[Segment] = []
    for first, last in pairwise([0, *cuts, len(words)]):
        inside = words[first:last]
        found.append(
            replace(
                segment,
                start=segment.start if first == 0 else inside[0].start,
                end=segment.end if last == len(words) else max(word.end for word in inside),
                text="".join(texts[first:last]).strip(),
                words=inside,
                confidence=words_confidence(inside) or segment.confidence,
            )
        )
    return found


def spread_over_time(
    pieces: Sequence[str], start: float, end: float
) -> Iterator[tuple[float, float]]:
    """Yield the times of each part if all columns from ``start`` to ``end`` take the same time."""
    widths = [max(1, text_columns(piece)) for piece in pieces]
    a_column = (end - start) / max(1, sum(widths))
    done = 0
    for columns in widths:
        yield start + done * a_column, min(end, start + (done + columns) * a_column)
        done += columns


def may_break(before: str, after: str) -> bool:
    """Return whether text may be broken between ``before`` and the character ``after``."""
    last = before[-1]
    if after.isspace() or not _columns(after) or belongs_to(before, after):
        return False
    if last.isspace():
        return True
    if not (is_ideographic(last) or is_ideographic(after)) or last in _OPENING_MARKS:
        return False
    return after in _OPENING_MARKS or not unicodedata.category(after).startswith("P")


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters, lone surrogates and redundant
    space."""
    plain = (" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in text)
    return " ".join("".join(plain).split())


def unsent_text(whole: str, sent: str) -> str:
    """Return the text after the words that were ``sent`` of it, which it may have revised, with the
    space before it. The last word of Thai and the like may have grown: words have no space between
    them."""
    if whole.startswith(sent) and any(map(is_unspaced, whole[len(sent) :][:1])):
        return whole[len(sent) :]
    words = split_atoms(whole)[: len(split_atoms(sent))]
    return whole[len("".join(words).rstrip()) :]


def common_prefix_length(some: Sequence[object], others: Sequence[object]) -> int:
    """Return the number of items that are the same from the start."""
    return sum(takewhile(bool, map(eq, some, others)))


def estimate_word_times(segment: Segment) -> Segment:
    """Return the segment with estimated word times, if it is speech and has none."""
    if segment.words or not segment.is_speech or not segment.text.strip():
        return segment
    text = " ".join(segment.text.split())
    pieces = split_atoms(text)
    times = spread_over_time(pieces, segment.start, max(segment.start, segment.end))
    timed = zip(pieces, times, strict=True)
    words = tuple(Word(round(at, 3), round(end, 3), one.strip()) for one, (at, end) in timed)
    return replace(segment, words=words, words_by=WORDS_BY_RULE)


def with_word_times(event: TranscriptionEvent) -> TranscriptionEvent:
    """Return the event with words in all of its segments."""
    return map_segments(event, estimate_word_times)


def words_of_tokens(
    text: str, pieces: Sequence[str], at: Sequence[tuple[float, float, float]]
) -> Iterator[Word]:
    """Yield the words of ``text``, each from its first character to its last.

    ``pieces``: text of each token; ``at``: its span in seconds and the logarithm of its likelihood.
    They contain the same characters as ``text`` except for commas and spaces; a mark that stands
    alone belongs to the word before it.
    """
    times = [when for piece, when in zip(pieces, at, strict=True) for _ in _kept_characters(piece)]
    done = 0
    word: Word | None = None
    for part in text.split():
        count = sum(1 for _ in _kept_characters(part))
        if not count:
            word = word and replace(word, text=f"{word.text} {part}")
            continue
        if word is not None:
            yield word
        spans = times[done : done + count]
        done += count
        begin = spans[0][0] if word is None else max(spans[0][0], word.start)
        likely = mean_confidence(one[2] for one in dict.fromkeys(spans))
        word = Word(begin, max(begin, spans[-1][1]), part, likely)
    if word is not None:
        yield word


def _kept_characters(text: str) -> Iterator[str]:
    """Return the characters that normalization does not change."""
    return (one for one in text if one != "," and not one.isspace())
