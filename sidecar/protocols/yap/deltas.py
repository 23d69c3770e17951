"""What to add to the words that a client has, so that nothing is ever taken back. Pure.

A client puts deltas one behind the other. So of a piece that goes on only what is stable is told,
and of its final what is behind as many words; where the final says the told ones otherwise, the
text at the end of the utterance is what counts.
"""

from __future__ import annotations


class Deltas:
    """Those of one utterance, which is told piece by piece, in order."""

    def __init__(self) -> None:
        self._piece: int | None = None
        """The one that goes on; None before the first."""
        self._told = 0
        """Words of it."""
        self._any = False
        self._begin: float | None = None

    def begins(self, at: float) -> None:
        """Where its first piece begins: one behind that may be told of before it."""
        self._begin = at

    def partial(self, piece: int, stable: str, start: float = 0.0) -> str:
        """What is new in the stable beginning of a piece, which begins at ``start``; nothing while
        one before it has not ended."""
        if self._piece is None:
            if self._begin is not None and start > self._begin:
                return ""
            self._piece = piece
        if piece != self._piece:
            return ""
        words = stable.split()
        fresh = words[self._told :]
        self._told += len(fresh)
        return self._behind(fresh)

    def final(self, piece: int, text: str) -> str:
        """What is new in a piece that has ended."""
        words = text.split()
        if self._piece is None or piece >= self._piece:
            words = words[self._told if piece == self._piece else 0 :]
            self._piece, self._told = piece + 1, 0
        return self._behind(words)

    def _behind(self, words: list[str]) -> str:
        text = " ".join(words)
        if text and self._any:
            text = f" {text}"
        self._any = self._any or bool(text)
        return text
