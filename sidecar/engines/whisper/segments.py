"""Words into segments: where a sentence ends, where somebody pauses, and never too long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sidecar.engines.whisper.windows import Window
from sidecar.transcripts.transcript import BY_ATTENTION, Segment, Word

PAUSE_S = 0.7
"""Who is silent for so long begins another segment (`diarization.lines.JOIN_S`)."""
SENTENCE_S = 5.0
"""A segment of so many seconds ends with its sentence."""
LONGEST_S = 12.0
_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")


def placed(words: Iterable[Word], window: Window) -> list[Word]:
    """Words of a window on the recording's clock; their text keeps the space before it."""
    found: list[Word] = []
    for word in words:
        start, end = window.placed(word.start, word.end)
        if found:  # an alignment that goes back at the border of two pieces
            start = max(start, found[-1].start)
        found.append(Word(round(start, 2), round(max(start, end), 2), word.text))
    return found


def segments_of(words: Sequence[Word]) -> list[Segment]:
    """The words as segments, nobody's yet."""
    found: list[Segment] = []
    held: list[Word] = []
    for word in words:
        if held and _ends(held, word):
            found.append(_segment(held))
            held = []
        held.append(word)
    if held:
        found.append(_segment(held))
    return [segment for segment in found if segment.text]


def _ends(held: Sequence[Word], word: Word) -> bool:
    if word.start - held[-1].end >= PAUSE_S or word.end - held[0].start > LONGEST_S:
        return True
    closed = held[-1].text.rstrip(" \"'”’»)").endswith(_ENDS)
    return closed and held[-1].end - held[0].start >= SENTENCE_S


def _segment(words: Sequence[Word]) -> Segment:
    text = "".join(word.text for word in words).strip()
    said = tuple(Word(word.start, word.end, word.text.strip()) for word in words)
    return Segment(
        words[0].start, max(word.end for word in words), text, words=said, words_by=BY_ATTENTION
    )
