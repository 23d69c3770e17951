"""Turns of speakers in the text of VibeVoice-ASR-Streaming. Pure.

The text of a session comes in chunks of audio and goes on over their borders. A turn begins with
``Speaker N:``. A phrase in brackets is a sound, and no words of anybody; ``[Silence]`` is a pause.
The model writes no times: a border inside a chunk lies in proportion to its characters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sidecar.transcripts.loop_guard import TokenRepetition
from sidecar.transcripts.sentence_ends import ends_sentence
from sidecar.transcripts.vibevoice_output import SILENCE, canonical_tag
from sidecar.transcripts.word_timing import split_atoms

_SOUND = re.compile(r"\[{1,2}[^\[\]]{1,40}\]{1,2}")
_MARK = re.compile(
    r"(?:\b|\[)Speaker\s{0,2}(\d{1,3})\s{0,2}\]?\s{0,2}[:：]\s?" rf"|({_SOUND.pattern})",
    re.IGNORECASE,
)
"""Who speaks, written as freely as the released code reads it; or a sound."""
_PART_OF_MARK = re.compile(
    r"(?:\bS(?:p(?:e(?:a(?:k(?:e(?:r\s{0,2}(?:\d{1,3}\s{0,2})?)?)?)?)?)?)?|\[{1,2}[^\[\]]{0,40})$",
    re.IGNORECASE,
)
LONG_S, LONGEST_S = 12.0, 30.0
"""A turn is cut at the end of a sentence after the first, anywhere between words after the
second, so that readers of a monologue get its segments while it goes on."""


@dataclass(frozen=True, slots=True)
class StreamedTurn:
    """Text of one speaker, start and end in seconds. ``speaker``: None before the first mark.
    ``likelihoods``: natural logarithms of the probabilities of its tokens, as far as chunks are
    told apart. ``is_sound``: the text is a tag, such as ``[Music]``, and nobody's."""

    start: float
    end: float
    speaker: int | None
    text: str
    likelihoods: tuple[float, ...] = ()
    is_sound: bool = False


class LoopOverChunks:
    """Detection of words that the model repeats from chunk to chunk, each with audio of its own. A
    pause or a sound parts what is repeated. What takes longer than two chunks is no loop: songs,
    prayers and announcements come again."""

    def __init__(self) -> None:
        self._words = TokenRepetition()
        self._before = 0

    def words_before(self, text: str) -> str:
        """Return the text of the next chunk up to where it goes on with the third copy, or a
        later one, of at least `MIN_REPEATED_TOKENS` words; all of it if it does not."""
        if not _SOUND.sub("", text).strip():
            self._words, self._before = TokenRepetition(), 0
            return text
        atoms = split_atoms(text)
        for atom in atoms:
            self._words.add(atom.strip().casefold())
        longest, self._before = self._before + len(atoms), len(atoms)
        copied = min(len(atoms), self._words.copied(longest))
        return "".join(atoms[: len(atoms) - copied])


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
        pieces = _MARK.split(text[: len(text) - len(self._held)])
        spoken, marks = pieces[::3], zip([None, *pieces[1::3]], [None, *pieces[2::3]], strict=True)
        second = (end - start) / max(1, sum(map(len, filter(None, [*spoken, *pieces[2::3]]))))
        at = begin = start
        for (speaker, tag), words in zip(marks, spoken, strict=True):
            if tag is not None:
                yield from self._hear(canonical_tag(tag), at, at := at + len(tag) * second)
            elif speaker is not None:
                yield from self.close()
                self._speaker = int(speaker)
            yield from self._say(words, at, at + len(words.rstrip()) * second, likelihoods)
            begin, at = at, at + len(words) * second
        if not text.strip():
            yield from self.close()
        elif self.open is not None and not self.open.is_sound:
            length = self.open.end - self.open.start
            if length > LONG_S and ends_sentence(self.open.text):
                yield from self.close()
            elif length > LONGEST_S:
                yield from self._close_before_last_word(self.open, begin, len(words), likelihoods)

    def close(self) -> Iterator[StreamedTurn]:
        """End the open turn: the next text begins another one, of the same speaker."""
        turn, self.open = self.open, None
        if turn is not None:
            yield replace(turn, text=turn.text.strip())

    def _hear(self, tag: str, start: float, end: float) -> Iterator[StreamedTurn]:
        """Add a sound: it goes on, or ends the open turn. Silence has no turn."""
        if self.open is not None and self.open.is_sound and self.open.text == tag:
            self.open = replace(self.open, end=end)
            return
        yield from self.close()
        if tag != SILENCE:
            self.open = StreamedTurn(start, end, None, tag, is_sound=True)

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
            yield from self._say(held, at, at, ())
        yield from self.close()

    def _say(
        self, text: str, start: float, end: float, likelihoods: tuple[float, ...]
    ) -> Iterator[StreamedTurn]:
        """Add text of the present speaker, which ends a sound."""
        if self.open is not None and self.open.is_sound and text.strip():
            yield from self.close()
        if self.open is None and text.strip():
            self.open = StreamedTurn(start, end, self._speaker, text.lstrip(), likelihoods)
        elif self.open is not None and not self.open.is_sound:
            self.open = replace(
                self.open,
                end=max(end, self.open.end),
                text=self.open.text + text,
                likelihoods=self.open.likelihoods + likelihoods,
            )
