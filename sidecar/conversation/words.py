"""Words as they are compared: without case, marks and the ways to spell a hesitation. Pure."""

from __future__ import annotations

import unicodedata


def bare(text: str) -> list[str]:
    """The words of ``text``, in order: lower case, letters and digits alone."""
    found = (
        "".join(one for one in word if _counts(one))
        for word in unicodedata.normalize("NFKC", text).casefold().split()
    )
    return [word for word in found if word]


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def among(words: str) -> frozenset[str]:
    """The words listed in ``words``, as `bare` would give them, each in one piece: "uh_huh" is
    "uhhuh"."""
    return frozenset("".join(bare(word)) for word in words.split())
