"""Scripts that are written without spaces between words. Pure."""

import unicodedata

_WITHOUT_SPACES = ("THAI", "LAO", "KHMER", "MYANMAR", "TAI", "NEW")
"""First words of the names of letters in scripts whose lines end between words, which only a
dictionary tells (class SA of UAX #14)."""

_NARROW_MARKS = "…—“”‘’·"


def is_wide(character: str) -> bool:
    """Return whether it is a full-width character."""
    return unicodedata.east_asian_width(character) in ("W", "F")


def is_ideographic(character: str) -> bool:
    """Return whether text may be broken beside it without a space (class ID of UAX #14): it is
    full-width, and not Hangul, as Korean has spaces between words."""
    return is_wide(character) and not unicodedata.name(character, "").startswith("HANGUL")


def are_joined(before: str, after: str) -> bool:
    """Return whether two characters have no space between them where one text ends and the next
    begins: Chinese and Japanese have none, also beside marks that are not full-width."""
    return any(map(is_ideographic, (before, after))) and all(
        is_ideographic(one) or one in _NARROW_MARKS for one in (before, after)
    )


def is_unspaced(character: str) -> bool:
    """Return whether it is of Thai or another script whose words are not told apart by spaces."""
    return character > "\u0e00" and unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
