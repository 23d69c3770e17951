"""Names in the edits of a transcript. Pure."""

import re
from collections.abc import Iterator

from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_edits import (
    DiarizeAgain,
    EditHistory,
    RenameSpeaker,
    RewriteSegment,
    SplitSegments,
)

MIN_LETTERS = 3
"""Shorter words, such as 'I' and 'OK', are no names."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_PRONOUN = "I'", "I’"
_SENTENCE_ENDS = ".?!…:。？！"
_OPENING = " \t\n\"'“”‘’«»„([¿¡–—-"


def corrected_names(history: EditHistory, transcript: Transcript) -> list[str]:
    """Return the names that edits in effect gave to speakers, and wrote into texts, each the latest
    first.

    A name in a text is a word with a capital inside a sentence, if the text lacked the word before
    its first edit, and has it after its last one. ``transcript``: after all edits.
    """
    given: list[str] = []
    written: list[str] = []
    first, last = dict[int, str](), dict[int, str]()
    for entry in history.entries[: history.applied]:
        texts = {index: segment.text for index, segment in entry.before.segments}
        for operation in entry.operations:
            match operation:
                case RenameSpeaker(_, str(name)) | SplitSegments(_, str(name)):
                    given.append(name)
                case RewriteSegment(index, text) if index in texts:
                    first.setdefault(index, texts[index])
                    last[index] = text
                case DiarizeAgain():  # from here on the indexes are others
                    written += _new_names(first, last)
                    first, last = {}, {}
    written += _new_names(first, last)
    there = {one.name for one in transcript.voices}
    speakers = (name for name in reversed(given) if name in there)
    return [*dict.fromkeys((*speakers, *reversed(written)))]


def _new_names(first: dict[int, str], last: dict[int, str]) -> Iterator[str]:
    """Yield the names in the last texts of segments that their first texts lack."""
    for index, text in last.items():
        known = {word.casefold() for word in _WORD.findall(first[index])}
        for match in _WORD.finditer(text):
            word, lead = match[0], text[: match.start()].rstrip(_OPENING)
            inside = bool(lead) and lead[-1] not in _SENTENCE_ENDS
            capital = word[0].isupper() and len(word) >= MIN_LETTERS and word[:2] not in _PRONOUN
            if inside and capital and word.casefold() not in known:
                yield word
