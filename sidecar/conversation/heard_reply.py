"""Part of a reply that the user heard, from playback position and word times. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.conversation.tts_text import TtsPhrase
from sidecar.interfaces.engine_interface import SynthesizedAudio, WordMark
from sidecar.transcripts.word_timing import split_atoms, spread_over_time, text_columns

DEFAULT_CHARACTERS_PER_S = 15.0
"""Columns a second: how fast a voice is taken to speak of which too little was heard to know."""
ELLIPSIS = "…"
_SLACK_S = 0.005


@dataclass(slots=True)
class ReplyPart:
    """Phrase and its audio as far as it is made: ``seconds`` from ``start`` of the reply's on.
    ``whole``: no more comes; ``broken``: though there is more of its text."""

    piece: TtsPhrase
    start: float | None = None
    seconds: float = 0.0
    whole: bool = False
    marks: list[WordMark] = field(default_factory=list)
    silent: bool = False
    broken: bool = False

    @property
    def awaits_audio(self) -> bool:
        """Return whether more of its audio is to come."""
        return not (self.silent or self.whole)

    def heard(self, until: float) -> int:
        """Return how many characters of the text were heard when its audio had played to
        ``until``: the words whose middle was."""
        count = 0
        for end, begins, ends in self._words():
            if (begins + ends) / 2 > until + _SLACK_S:
                break
            count = end
        return count

    def _words(self) -> Iterator[tuple[int, float, float]]:
        """Return the end of each word in the text, and its begin and end in the audio."""
        text = self.piece.text
        if not self.marks:
            words, end = split_atoms(text), 0
            times = spread_over_time(words, 0.0, self._lasts())
            for word, (begins, ends) in zip(words, times, strict=True):
                end += len(word)
                yield end, begins, ends
            return
        for mark, after in zip(self.marks, [*self.marks[1:], None], strict=True):
            if after is not None:
                yield after.character, mark.start, after.start
                continue
            rest = text[mark.character :]
            known = len(rest) if self.whole and not self.broken else len(split_atoms(rest)[0])
            yield mark.character + known, mark.start, self._lasts(mark)

    def _lasts(self, last: WordMark | None = None) -> float:
        """Return the duration of its audio, or its estimate; that of the ``last`` word that is
        marked yet."""
        if self.whole and not self.broken:
            return self.seconds
        text, start = self.piece.text, 0.0
        if last is not None:
            text, start = split_atoms(text[last.character :])[0], last.start
        return max(self.seconds, start + text_columns(text.rstrip()) / DEFAULT_CHARACTERS_PER_S)


class ReplyText:
    """One reply as it grows."""

    def __init__(self) -> None:
        self.parts: list[ReplyPart] = []
        self.made_s = 0.0
        """Seconds of sound there are."""
        self.limited = False
        """It was to be longer."""

    def add(self, piece: TtsPhrase, *, silent: bool) -> None:
        """One more piece, ``silent`` if no voice is to say it."""
        self.parts.append(ReplyPart(piece, silent=silent or not piece.text))

    def sounded(self, number: int, sound: SynthesizedAudio) -> bool:
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
        """Record that there is no more audio of phrase ``number``."""
        self.parts[number].whole = True

    def mute(self) -> None:
        """Mark that no more of it gets audio."""
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
        """Return the text that was heard after ``seconds`` of its audio: cut at a word, with an
        ellipsis there. Text without audio counts with the text before it."""
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
            found += _shown_text(part.piece, count)
            last = ends and count == len(part.piece.text)
            later = any(one.piece.shown.strip() for one in self.parts[at + last :])
            return _cut_text(found) if later else found.strip()
        return _cut_text(found) if self.limited else found.strip()

    def around(self, seconds: float, before: float = 6.0, after: float = 1.0) -> str:
        """Return the text around that moment of its audio, piece by piece."""
        near = (
            part.piece.text
            for part in self.parts
            if part.start is not None
            and part.start <= seconds + after
            and part.start + part.seconds >= seconds - before
        )
        return " ".join(near)


def _shown_text(piece: TtsPhrase, characters: int) -> str:
    """Return the displayed text of ``piece`` whose first so many spoken characters were heard. The
    two differ by markup alone, so the words are searched one after the other."""
    at = 0
    for word in piece.text[:characters].split():
        bare = re.search(r"\w(?:.*\w)?", word)
        for form in (word, *([bare[0]] if bare else [])):
            found = piece.shown.find(form, at)
            if found >= 0:
                at = found + len(form)
                break
    return piece.shown[:at]


def _cut_text(text: str) -> str:
    text = text.strip().rstrip(",;:、，；：-–— ")
    if not text:
        return ""
    if text.endswith(ELLIPSIS):
        return text
    return f"{text} {ELLIPSIS}" if text[-1] in ".!?。！？؟।" else f"{text}{ELLIPSIS}"
