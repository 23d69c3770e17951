"""What the machine says in one turn, and how much of it was heard. Pure.

A reply is pieces, one behind the other; each is shown as it was written, and said by a voice, or
not at all (code, a table's rule). How much was heard is a number of seconds of all its sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.conversation.sentences import Piece
from sidecar.interfaces.voice import Mark, Sound
from sidecar.transcripts.lettering import atoms, placed, width

PACE = 15.0
"""Columns a second: how fast a voice is taken to speak of which too little was heard to know."""
ELLIPSIS = "…"
_SLACK_S = 0.005


@dataclass(slots=True)
class Part:
    """A piece and its sound as far as there is some: ``seconds`` from ``start`` of the reply's on.
    ``whole``: no more comes; ``broken``: though there is more of its text."""

    piece: Piece
    start: float | None = None
    seconds: float = 0.0
    whole: bool = False
    marks: list[Mark] = field(default_factory=list)
    silent: bool = False
    broken: bool = False

    def heard(self, until: float) -> int:
        """So many characters of what is said were heard when its sound had played to ``until``: the
        words whose middle was."""
        count = 0
        for end, begins, ends in self._words():
            if (begins + ends) / 2 > until + _SLACK_S:
                break
            count = end
        return count

    def _words(self) -> Iterator[tuple[int, float, float]]:
        """Where each word ends in the text, and when it begins and ends in the sound."""
        text = self.piece.text
        if not self.marks:
            words, end = atoms(text), 0
            for word, (begins, ends) in zip(words, placed(words, 0.0, self._lasts()), strict=True):
                end += len(word)
                yield end, begins, ends
            return
        for mark, after in zip(self.marks, [*self.marks[1:], None], strict=True):
            if after is not None:
                yield after.character, mark.start, after.start
                continue
            rest = text[mark.character :]
            known = len(rest) if self.whole and not self.broken else len(atoms(rest)[0])
            yield mark.character + known, mark.start, self._lasts(mark)

    def _lasts(self, last: Mark | None = None) -> float:
        """How long its sound is, or will be as far as one can tell; that of the ``last`` word that
        is marked yet."""
        if self.whole and not self.broken:
            return self.seconds
        text, start = self.piece.text, 0.0
        if last is not None:
            text, start = atoms(text[last.character :])[0], last.start
        return max(self.seconds, start + width(text.rstrip()) / PACE)


class Reply:
    """One reply as it grows."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.made_s = 0.0
        """Seconds of sound there are."""
        self.limited = False
        """It was to be longer."""

    def add(self, piece: Piece, *, silent: bool) -> None:
        """One more piece, ``silent`` if no voice is to say it."""
        self.parts.append(Part(piece, silent=silent or not piece.text))

    def sounded(self, number: int, sound: Sound) -> bool:
        """Piece ``number`` sounds on; whether that is how it began."""
        part = self.parts[number]
        began = part.start is None
        if part.start is None:
            part.start = self.made_s
        part.seconds += sound.seconds
        part.marks += sound.marks
        self.made_s += sound.seconds
        return began

    def said(self, number: int) -> None:
        """There is no more sound of piece ``number``."""
        self.parts[number].whole = True

    def mute(self) -> None:
        """What has no sound yet gets none, and what has some no more."""
        for part in self.parts:
            part.silent = part.silent or part.start is None
            part.broken = part.broken or not part.whole
            part.whole = True

    def limit(self, number: int) -> None:
        """It ends within piece ``number``: what was to come after its sound so far never comes."""
        self.limited = True
        del self.parts[number if self.parts[number].start is None else number + 1 :]
        for part in self.parts[number:]:
            part.whole = part.broken = True

    def heard(self, seconds: float) -> str:
        """What was heard when ``seconds`` of its sound had played, as it is shown: cut at a word,
        with an ellipsis there. What no voice says counts with what stands before it."""
        found = ""
        for at, part in enumerate(self.parts):
            if part.silent:
                found += part.piece.shown
                continue
            until = seconds - part.start if part.start is not None else 0.0
            count = part.heard(until) if part.start is not None and until > 0 else 0
            ends = part.whole and not (self.limited and part.broken)
            if ends and until >= part.seconds - _SLACK_S:
                found += part.piece.shown
                continue
            found += _shown(part.piece, count)
            last = ends and count == len(part.piece.text)
            later = any(one.piece.shown.strip() for one in self.parts[at + last :])
            return _cut(found) if later else found.strip()
        return _cut(found) if self.limited else found.strip()

    def around(self, seconds: float, before: float = 6.0, after: float = 1.0) -> str:
        """What is said about that moment of its sound, piece by piece."""
        near = (
            part.piece.text
            for part in self.parts
            if part.start is not None
            and part.start <= seconds + after
            and part.start + part.seconds >= seconds - before
        )
        return " ".join(near)


def _shown(piece: Piece, characters: int) -> str:
    """What is shown of ``piece`` when so many characters of what is said were heard. The two differ
    by marks alone, so the words are looked for one behind the other."""
    at = 0
    for word in piece.text[:characters].split():
        bare = re.search(r"\w(?:.*\w)?", word)
        for form in (word, *([bare[0]] if bare else [])):
            found = piece.shown.find(form, at)
            if found >= 0:
                at = found + len(form)
                break
    return piece.shown[:at]


def _cut(text: str) -> str:
    text = text.strip().rstrip(",;:、，；：-–— ")
    if not text:
        return ""
    if text.endswith(ELLIPSIS):
        return text
    return f"{text} {ELLIPSIS}" if text[-1] in ".!?。！？؟।" else f"{text}{ELLIPSIS}"
