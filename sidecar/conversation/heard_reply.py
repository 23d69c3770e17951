"""Part of a reply that the user heard, from playback position and word times. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.conversation.tts_text import TtsPhrase
from sidecar.interfaces.engine_interface import SynthesizedAudio, WordMark
from sidecar.transcripts.word_timing import split_atoms, spread_over_time, text_columns

DEFAULT_CHARACTERS_PER_S = 15.0
"""Speed of speech in text columns per second if too little audio is known to measure it."""
ELLIPSIS = "…"
_SLACK_S = 0.005


@dataclass(slots=True)
class ReplyPart:
    """Phrase and its audio so far: ``seconds``, from position ``start`` of the reply's audio on.
    ``whole``: no more audio comes. ``broken``: it ended before the end of the text."""

    piece: TtsPhrase
    start: float | None = None
    seconds: float = 0.0
    whole: bool = False
    marks: list[WordMark] = field(default_factory=list)
    silent: bool = False
    broken: bool = False

    @property
    def awaits_audio(self) -> bool:
        """Return whether more audio is to come."""
        return not (self.silent or self.whole)

    def heard(self, until: float) -> int:
        """Return how many characters were heard once its audio had played to ``until``: up to the
        last word of which half was played."""
        count = 0
        for end, begins, ends in self._words():
            if (begins + ends) / 2 > until + _SLACK_S:
                break
            count = end
        return count

    def _words(self) -> Iterator[tuple[int, float, float]]:
        """Yield the end of each word in the text, and its start and end in the audio."""
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
        """Return the duration of its audio, estimated while it is incomplete. With ``last`` the
        estimate reaches to the end of that word, the last that has a mark."""
        if self.whole and not self.broken:
            return self.seconds
        text, start = self.piece.text, 0.0
        if last is not None:
            text, start = split_atoms(text[last.character :])[0], last.start
        return max(self.seconds, start + text_columns(text.rstrip()) / DEFAULT_CHARACTERS_PER_S)


class ReplyText:
    """Text and audio of one reply as it grows."""

    def __init__(self) -> None:
        self.parts: list[ReplyPart] = []
        self.made_s = 0.0
        """Seconds of audio so far."""
        self.limited = False
        """The reply was cut: more was to come."""

    def add(self, piece: TtsPhrase, *, silent: bool) -> None:
        """Add a phrase; ``silent`` if it is not synthesized."""
        self.parts.append(ReplyPart(piece, silent=silent or not piece.text))

    def sounded(self, number: int, sound: SynthesizedAudio) -> None:
        """Add audio of phrase ``number``."""
        part = self.parts[number]
        if part.start is None:
            part.start = self.made_s
        part.seconds += sound.seconds
        part.marks += sound.marks
        self.made_s += sound.seconds

    def said(self, number: int) -> None:
        """Record that there is no more audio of phrase ``number``."""
        self.parts[number].whole = True

    def mute(self) -> None:
        """Mark that no more audio comes for any phrase."""
        for part in self.parts:
            part.silent = part.silent or part.start is None
            part.broken = part.broken or not part.whole
            part.whole = True

    def limit(self, number: int) -> None:
        """End the reply within phrase ``number``: drop all that was to come after its audio so
        far."""
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
        """Return the phrases from ``before`` seconds before that position of the audio to ``after``
        seconds after it."""
        near = (
            part.piece.text
            for part in self.parts
            if part.start is not None
            and part.start <= seconds + after
            and part.start + part.seconds >= seconds - before
        )
        return " ".join(near)


def _shown_text(piece: TtsPhrase, characters: int) -> str:
    """Return the displayed text up to the end of the first ``characters`` of the spoken text. The
    two differ only by markup, so the words are searched one after the other."""
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
