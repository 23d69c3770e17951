"""Subtitle cues of a transcript. Pure.

A cue has at most two lines of 42 columns (full-width characters take two). It is shown for as long
as it takes to read it at 17 columns a second, but at most until the next: no two overlap. It is cut
at the end of a sentence, else at another mark, else at a pause or before a conjunction. It never
has words of two segments, so a change of speaker starts a new cue. Times are those of the words; in
a segment without word times its characters are spread evenly over it. Control characters and
surrogates are removed from the text.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, zip_longest
from math import inf

from sidecar.transcripts import word_timing
from sidecar.transcripts.scripts import is_unspaced
from sidecar.transcripts.sentence_ends import CLOSING_MARKS, ends_sentence, needs_more
from sidecar.transcripts.transcript import Segment, Transcript, Word
from sidecar.transcripts.word_timing import text_columns

MAX_LINE_COLUMNS = 42
"""Maximum columns of a line; a cue has two (BBC's and Netflix's guides, for Latin letters)."""
MAX_WORD_COLUMNS = 16
"""Columns of a longer word of an engine, in a script without spaces, that may be several words."""
STAYS_WITH_WORD = "ฯๆຯໆ។៕៖ៗ៘៙៚၊။"
"""Marks and signs of repetition that begin no line, in scripts without spaces."""
MAX_PREFIX_COLUMNS = 32
"""Maximum columns of the speaker's name in a line."""
READING_COLUMNS_PER_S = 17.0
"""Columns a second that people read with ease (Netflix for adults; 8.5 full-width characters)."""
MIN_CUE_S, MAX_CUE_S = 1.0, 7.0
"""Minimum time of a cue, if there is time, and its maximum."""
MAX_DISPLAY_DELAY_S = 1.5
"""Maximum delay of a cue after its words, if it overlaps the cue before."""
PAUSE_S = 0.35
"""Minimum pause that ends a phrase."""

_CLAUSE_MARKS = frozenset(",;:–—、，；：،؛")
_CONJUNCTIONS = frozenset((
    "and", "but", "or", "nor", "so", "yet", "because", "that", "which", "who", "whose", "where",
    "when", "while", "if", "though", "although", "unless", "until", "since", "as", "than",
    "und", "aber", "oder", "denn", "weil", "dass", "wenn", "ob", "als", "während", "sondern",
    "et", "mais", "ou", "donc", "car", "que", "qui", "quand", "si", "comme", "parce",
    "y", "pero", "o", "porque", "cuando", "aunque", "sino", "e", "ma", "perché", "quando",
))  # fmt: skip
_CUE_COST = 3.0
_BREAK_ANYWHERE_COST, _BREAK_BEFORE_CONJUNCTION_COST = 8.0, 4.0
_BREAK_AFTER_TITLE_COST = 40.0
_BREAK_AT_PAUSE_COST = _BREAK_AT_CLAUSE_COST = 2.0
"""Cost of a cue, and of a cut at each place; a cut at the end of a sentence costs nothing."""
_SHORT_CUE_COST, _LONG_PAUSE_S, _CUE_OVER_PAUSE_COST = 3.0, 1.0, 6.0
"""Extra cost of a cue that is too short, or that spans a long pause."""


@dataclass(frozen=True, slots=True)
class SubtitleCue:
    """Subtitle from ``start_ms`` to ``end_ms``; ``segment`` is its source.

    ``words``: of each line, in parts that are not broken and may end in a space. ``prefix``: text
    before the first.
    """

    start_ms: int
    end_ms: int
    words: tuple[Sequence[Word], ...]
    segment: Segment
    prefix: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the text of each line."""
        first, *others = ("".join(word.text for word in line).strip() for line in self.words)
        return (f"{self.prefix}{first}", *others)


class _SegmentLayout:
    """Layout of a segment's atoms: texts that are not broken, and may end in a space. ``room``:
    columns of a cue's first line. ``language``: of the text, '' if unknown."""

    def __init__(self, words: Sequence[Word], room: int, language: str) -> None:
        self.atoms = words
        self.room = room
        self.language = language
        self._columns = [0, *accumulate(text_columns(atom.text) for atom in words)]
        self._spaces = [len(atom.text) - len(atom.text.rstrip()) for atom in words]
        long_pauses = (
            after.start - before.end >= _LONG_PAUSE_S for before, after in pairwise(words)
        )
        self._long_pauses = [0, 0, *accumulate(long_pauses)]

    def columns(self, first: int, last: int) -> int:
        """Return the columns of the atoms from ``first`` to before ``last`` on one line."""
        return self._columns[last] - self._columns[first] - self._spaces[last - 1]

    def cost(self, first: int, last: int) -> float:
        """Return the cost of a cue of the atoms from ``first`` to before ``last`` by itself."""
        pauses = self._long_pauses[last] - self._long_pauses[first + 1]
        short = self.atoms[last - 1].end - self.atoms[first].start < MIN_CUE_S
        return _CUE_COST + _SHORT_CUE_COST * short + _CUE_OVER_PAUSE_COST * pauses


def build_cues(
    transcript: Transcript, segment_prefix: Callable[[Segment], str] = lambda segment: ""
) -> list[SubtitleCue]:
    """Return the cues by their start; each starts before it ends, and ends before the next starts.

    ``segment_prefix``: returns the prefix of a segment in each of its cues. It counts in the line
    and has at most `MAX_PREFIX_COLUMNS` columns.
    """
    found: list[SubtitleCue] = []
    for segment in transcript.segments:
        language = segment.language or transcript.language
        found += _segment_cues(segment, segment_prefix(segment), language)
    ordered = sorted(found, key=lambda cue: (cue.start_ms, cue.end_ms))
    return _separate_cues(ordered, to_ms(transcript.duration))


def _segment_cues(segment: Segment, prefix: str, language: str) -> Iterable[SubtitleCue]:
    held = _segment_atoms(segment)
    room = max(MAX_LINE_COLUMNS - MAX_PREFIX_COLUMNS, MAX_LINE_COLUMNS - text_columns(prefix))
    parts = [part for atom in held for part in _wrap_atom(atom, room)]
    text = _SegmentLayout(parts, room, language)
    for first, last in _break_into_cues(text):
        inside = text.atoms[first:last]
        lines = _break_into_lines(text, first, last)
        start, end = inside[0].start, max(atom.end for atom in inside)
        yield SubtitleCue(to_ms(start), to_ms(min(end, start + MAX_CUE_S)), lines, segment, prefix)


def _segment_atoms(segment: Segment) -> list[Word]:
    """Return a segment's text as atoms with times, also if it is not speech.

    A word of an engine is an atom in a script without spaces, too, unless it is long.
    """
    text = " ".join(printable_text(segment.text).split())
    if not segment.words:
        segment = replace(segment, text=text, flags=())
    timed = word_timing.estimate_word_times(segment).words
    words = [replace(word, text=printable_text(word.text)) for word in timed]
    words = [word for word in words if word.text.strip()]
    if not words:
        return []
    found: list[Word] = []
    before = segment.start
    for word, piece in zip(
        words, word_timing.split_at_words(text, [word.text for word in words]), strict=True
    ):
        start = max(before, word.start)
        parts = [" ".join(piece.split()) + " " * piece.endswith(" ")]
        if " " in parts[0][:-1] or text_columns(parts[0]) > MAX_WORD_COLUMNS:
            parts = word_timing.split_atoms(parts[0])
        times = word_timing.spread_over_time(parts, start, max(start, word.end))
        for part, (begin, end) in zip(parts, times, strict=True):
            if found and not _may_break(found[-1].text, part[0]):
                whole = found[-1]
                least = min(
                    (one.confidence for one in (whole, word) if one.confidence), default=None
                )
                found[-1] = Word(whole.start, end, whole.text + part, least)
            else:
                found.append(Word(begin, end, part, word.confidence))
        before = start
    return found


def _may_break(before: str, after: str) -> bool:
    """Return whether text may be broken between a word and the character ``after`` it."""
    thai = is_unspaced(before[-1]) and is_unspaced(after) and after not in STAYS_WITH_WORD
    return word_timing.may_break(before, after) or (
        thai and not word_timing.belongs_to(before, after)
    )


def _wrap_atom(word: Word, most: int) -> list[Word]:
    """Split an atom into parts that fit into a line: some words are web addresses."""
    if text_columns(word.text.rstrip()) <= most:
        return [word]
    parts = word_timing.split_columns(word.text.rstrip(), most)
    parts[-1] += " " * word.text.endswith(" ")
    times = word_timing.spread_over_time(parts, word.start, word.end)
    return [Word(*time, part, word.confidence) for part, time in zip(parts, times, strict=True)]


def _break_into_cues(text: _SegmentLayout) -> list[tuple[int, int]]:
    """Return start and end of each cue: the cheapest way through all atoms."""
    count = len(text.atoms)
    best = [0.0] + [inf] * count
    came = [0] * (count + 1)
    breaks = [0.0, *(_break_cost(text, last) for last in range(1, count + 1))]
    for first in range(count):
        for last in _possible_ends(text, first):
            cost = best[first] + text.cost(first, last) + breaks[last]
            if cost < best[last]:
                best[last], came[last] = cost, first
    edges = [count]
    while edges[-1] > 0:
        edges.append(came[edges[-1]])
    edges.reverse()
    return list(pairwise(edges))


def _possible_ends(text: _SegmentLayout, first: int) -> Iterator[int]:
    """Yield the possible ends of a cue that starts with atom ``first``; at least the end of that
    atom."""
    held, lower = text.atoms, first + 1
    for last in range(first + 1, len(held) + 1):
        if text.columns(first, last) <= text.room:
            lower = last
        elif text.columns(lower, last) > MAX_LINE_COLUMNS:
            return
        if last > first + 1 and held[last - 1].end - held[first].start > MAX_CUE_S:
            return
        yield last


def _break_cost(text: _SegmentLayout, at: int) -> float:
    """Return the cost of a cut before atom ``at``."""
    if at == len(text.atoms):
        return 0.0
    cost = _break_cost_between(text, at)
    paused = text.atoms[at].start - text.atoms[at - 1].end >= PAUSE_S
    return min(cost, _BREAK_AT_PAUSE_COST) if paused and cost <= _BREAK_ANYWHERE_COST else cost


def _break_cost_between(text: _SegmentLayout, at: int) -> float:
    before, after = text.atoms[at - 1].text, text.atoms[at].text
    said = before.rstrip().rstrip(CLOSING_MARKS)
    if needs_more(said, after, text.language):
        return _BREAK_AFTER_TITLE_COST
    if ends_sentence(said, after, text.language):
        return 0.0
    if said[-1:] in _CLAUSE_MARKS:
        return _BREAK_AT_CLAUSE_COST
    word = after.strip().strip("\"'“‘«(").lower()
    return _BREAK_BEFORE_CONJUNCTION_COST if word in _CONJUNCTIONS else _BREAK_ANYWHERE_COST


def _break_into_lines(text: _SegmentLayout, first: int, last: int) -> tuple[Sequence[Word], ...]:
    """Return the atoms of a cue on one line or two, as even as a sensible cut allows."""
    if text.columns(first, last) <= text.room:
        return (text.atoms[first:last],)
    fitting = [
        at
        for at in range(first + 1, last)
        if text.columns(first, at) <= text.room and text.columns(at, last) <= MAX_LINE_COLUMNS
    ]
    at = min(fitting, key=lambda at: _unevenness(text, first, at, last))
    return text.atoms[first:at], text.atoms[at:last]


def _unevenness(text: _SegmentLayout, first: int, at: int, last: int) -> float:
    apart = abs(text.columns(first, at) - text.columns(at, last)) / 2
    return apart + _break_cost_between(text, at)


def _separate_cues(cues: Sequence[SubtitleCue], duration_ms: int) -> list[SubtitleCue]:
    """Return the cues without overlap, each shown for as long as it needs if there is time before
    the next and the end of the recording."""
    found: list[SubtitleCue] = []
    last = -1
    for cue in cues:
        start = cue.start_ms
        if found:
            wanted = min(
                last + to_ms(MIN_CUE_S),
                start + to_ms(MAX_DISPLAY_DELAY_S),
                max(start, duration_ms - to_ms(MIN_CUE_S)),
            )
            start = max(start, wanted if _overlaps(found[-1], cue) else start, last + 1)
        last = start
        found.append(replace(cue, start_ms=start))
    pairs = zip_longest(found, [cue.start_ms for cue in found[1:]])
    ended = [replace(cue, end_ms=_display_end(cue, next_ms)) for cue, next_ms in pairs]
    return [
        replace(cue, end_ms=min(cue.end_ms, duration_ms)) if cue.start_ms < duration_ms else cue
        for cue in ended
    ]


def _overlaps(earlier_cue: SubtitleCue, cue: SubtitleCue) -> bool:
    """Return whether two speakers talk at once: the later cue is then delayed, so that both
    can be read."""
    return cue.segment is not earlier_cue.segment and cue.start_ms < earlier_cue.end_ms


def _display_end(cue: SubtitleCue, next_ms: int | None) -> int:
    columns = sum(map(text_columns, cue.lines))
    needed = max(to_ms(MIN_CUE_S), -(-columns * 1000 // int(READING_COLUMNS_PER_S)))
    end = max(cue.end_ms, cue.start_ms + min(needed, to_ms(MAX_CUE_S)))
    return end if next_ms is None else min(end, next_ms)


def printable_text(text: str) -> str:
    """Remove characters that control a terminal or a parser; replace line breaks and tabs by
    spaces."""
    return "".join(
        " " if one.isspace() else "" if unicodedata.category(one) in ("Cc", "Cs") else one
        for one in text
    )


def to_ms(seconds: float) -> int:
    """Convert seconds to whole milliseconds, at least 0."""
    return max(0, round(seconds * 1000))
