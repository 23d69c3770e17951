"""Text as it is set: how wide it is, and where it may be cut. Pure.

In languages with spaces between words and without.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

_WIDE = ("W", "F")
_OPENS = frozenset("([{（［｛「『【〔〈《“‘¿¡")
"""Stand with what follows them."""


def width(text: str) -> int:
    """Columns that ``text`` takes: two for what East Asian fonts set full width, none for marks
    that stand on another character."""
    return sum(map(_columns, text))


def is_wide(character: str) -> bool:
    """Whether it is one of a script that is set full width and has no spaces."""
    return unicodedata.east_asian_width(character) in _WIDE


def atoms(text: str) -> list[str]:
    """The pieces of ``text`` between which it may be cut; together they are ``text``.

    Each word with the space behind it; of what is full width each character, with the marks that
    may not begin a line, or end one, beside it.
    """
    found: list[str] = []
    for character in text:
        if found and not _may_part(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def chunks(text: str, most: int) -> list[str]:
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


def pieces_of(text: str, words: Sequence[str]) -> list[str]:
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


def placed(pieces: Sequence[str], start: float, end: float) -> Iterator[tuple[float, float]]:
    """When each piece is said if all columns from ``start`` to ``end`` take the same time."""
    widths = [max(1, width(piece)) for piece in pieces]
    a_column = (end - start) / max(1, sum(widths))
    done = 0
    for columns in widths:
        yield start + done * a_column, min(end, start + (done + columns) * a_column)
        done += columns


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return int(character.isspace())
    return 2 if is_wide(character) else 1


def _may_part(before: str, after: str) -> bool:
    last = before[-1]
    if after.isspace() or not _columns(after):
        return False
    if last.isspace():
        return True
    if not (is_wide(last) or is_wide(after)) or last in _OPENS:
        return False
    return after in _OPENS or not unicodedata.category(after).startswith("P")


def one_line(text: str) -> str:
    """``text`` as a line: without control characters, halves of surrogate pairs, and space that
    nobody sees."""
    plain = (" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in text)
    return " ".join("".join(plain).split())
