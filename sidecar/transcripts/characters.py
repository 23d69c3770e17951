"""Characters as people see them: code points that belong together, and their width. Pure.

The rules are those of Unicode's grapheme clusters (UAX 29), without its rarest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import takewhile

_JOINER = "\u200d"
"""Joins emoji, and the letters of some scripts."""
_EXTENDING = frozenset("\u200c\u200d\u0e33\u0eb3\uff9e\uff9f")
"""Characters that belong to the one before without being marks by their category."""
_VIRAMA = 9
"""Combining class of the sign that joins two consonants."""
_WIDE = ("W", "F")
_L, _V, _T = "L", "V", "T"


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
        return unicodedata.combining(last) == _VIRAMA or _is_one_syllable(last, after)
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


def is_wide(character: str) -> bool:
    """Return whether it is a full-width character of a script without spaces."""
    return unicodedata.east_asian_width(character) in _WIDE


def is_invisible(character: str) -> bool:
    """Return whether a code point takes no column."""
    return not _columns(character)


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


def _is_one_syllable(last: str, after: str) -> bool:
    """Return whether Hangul letters are of one syllable."""
    before, behind = _hangul_kinds(last), _hangul_kinds(after)
    if before[-1:] == _L:
        return behind[:1] in (_L, _V)
    if before[-1:] == _V:
        return behind in (_V, _T)
    return before[-1:] == _T and behind == _T


def _hangul_kinds(character: str) -> str:
    """Return the kinds of the letters in a Hangul character: leading consonant, vowel, trailing
    consonant; '' if it is none."""
    code = ord(character)
    if 0xAC00 <= code <= 0xD7A3:
        return _L + _V if (code - 0xAC00) % 28 == 0 else _L + _V + _T
    if 0x1100 <= code <= 0x115F or 0xA960 <= code <= 0xA97C:
        return _L
    if 0x1160 <= code <= 0x11A7 or 0xD7B0 <= code <= 0xD7C6:
        return _V
    return _T if 0x11A8 <= code <= 0x11FF or 0xD7CB <= code <= 0xD7FB else ""
