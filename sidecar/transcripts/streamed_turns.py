"""Turns of speakers in the text of VibeVoice-ASR-Streaming. Pure.

The text of a session comes in chunks of audio and goes on over their borders. A turn begins with
``Speaker N:``. The model writes no times: a border inside a chunk lies in proportion to its
characters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sidecar.transcripts.sentence_ends import ends_sentence
from sidecar.transcripts.word_timing import split_atoms

_MARK = re.compile(r"(?:(?<=\s)|^)Speaker (\d{1,3}):\s?")
_PART_OF_MARK = re.compile(r"(?:(?<=\s)|^)S(?:p(?:e(?:a(?:k(?:e(?:r(?: (?:\d{1,3})?)?)?)?)?)?)?)?$")
LONG_S, LONGEST_S = 12.0, 30.0
"""A turn is cut at the end of a sentence after the first, anywhere between words after the
second, so that readers of a monologue get its segments while it goes on."""


@dataclass(frozen=True, slots=True)
class StreamedTurn:
    """Text of one speaker, start and end in seconds. ``speaker``: None before the first mark.
    ``likelihoods``: natural logarithms of the probabilities of its tokens, as far as chunks are
    told apart."""

    start: float
    end: float
    speaker: int | None
    text: str
    likelihoods: tuple[float, ...] = ()


class StreamedTurns:
    """Turns of one session, as its chunks come; ``open`` is the one that goes on."""

    def __init__(self) -> None:
        self.open: StreamedTurn | None = None
        self._speaker: int | None = None
        self._held = ""
        self._end = 0.0

    def feed(
        self, text: str, start: float, end: float, likelihoods: tuple[float, ...] = ()
    ) -> Iterator[StreamedTurn]:
        """Add the text of a chunk from ``start`` to ``end``; yield the turns that it closes."""
        self._end = end
        text = self._held + text
        part = _PART_OF_MARK.search(text)
        self._held = text[part.start() :] if part else ""
        first, *rest = _MARK.split(text[: len(text) - len(self._held)])
        spoken = [first, *rest[1::2]]
        second = (end - start) / max(1, sum(map(len, spoken)))
        at = begin = start
        for speaker, words in zip([None, *rest[::2]], spoken, strict=True):
            if speaker is not None:
                yield from self.close()
                self._speaker = int(speaker)
            self._say(words, at, at + len(words.rstrip()) * second, likelihoods)
            begin, at = at, at + len(words) * second
        pauses = not "".join(spoken).strip()
        if self.open is not None and (pauses or self._is_long(self.open)):
            yield from self.close()
        elif self.open is not None and self.open.end - self.open.start > LONGEST_S:
            yield from self._close_before_last_word(self.open, begin, len(words), likelihoods)

    def close(self) -> Iterator[StreamedTurn]:
        """End the open turn: the next text begins another one, of the same speaker."""
        turn, self.open = self.open, None
        if turn is not None:
            yield replace(turn, text=turn.text.strip())

    def _close_before_last_word(
        self, turn: StreamedTurn, begin: float, count: int, likelihoods: tuple[float, ...]
    ) -> Iterator[StreamedTurn]:
        """End the open turn, but for its last word: the next chunk may go on with it. The last
        ``count`` characters are of the last chunk, from ``begin`` on, with ``likelihoods``."""
        *before, last = split_atoms(turn.text)
        if not before or last[-1].isspace():
            yield from self.close()
            return
        if len(last) <= count:
            at = turn.end - (turn.end - begin) * len(last) / count
        else:  # the word begins in a chunk before
            earlier = len(turn.text) - count
            at = begin - (begin - turn.start) * (len(last) - count) / earlier
        self.open = replace(turn, end=at, text="".join(before))
        yield from self.close()
        self.open = StreamedTurn(at, turn.end, turn.speaker, last, likelihoods)

    def finish(self) -> Iterator[StreamedTurn]:
        """End the text."""
        if held := self._held:
            self._held = ""
            at = self.open.end if self.open is not None else self._end
            self._say(held, at, at, ())
        yield from self.close()

    def _say(self, text: str, start: float, end: float, likelihoods: tuple[float, ...]) -> None:
        """Add text of the present speaker."""
        if self.open is not None:
            self.open = replace(
                self.open,
                end=max(end, self.open.end),
                text=self.open.text + text,
                likelihoods=self.open.likelihoods + likelihoods,
            )
        elif text.strip():
            self.open = StreamedTurn(start, end, self._speaker, text.lstrip(), likelihoods)

    @staticmethod
    def _is_long(turn: StreamedTurn) -> bool:
        return turn.end - turn.start > LONG_S and ends_sentence(turn.text)
