"""Speech in which the recognition of a window found no words: where it is, and whose. Pure.

Whisper writes down the loudest of several speakers, and often stops before quiet speech that
follows loud speech. The diarizer finds both. What has no words is recognized once more, alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import groupby, pairwise

from sidecar.diarization.word_attribution import MIN_BACKCHANNEL_S, context_span
from sidecar.transcripts.speaker_turns import Span, SpeakerTurn, turns_within, uncovered_spans
from sidecar.transcripts.transcript import Word

WORD_REACH_S = 0.5
"""Seconds around a word in which no words are missed: its times are read from attention."""
LONGEST_WORD_S = 1.5
"""No word is spoken longer: of 646 words in six clips the longest has 1.32 s."""
DRAWN_WORD_S = 0.75
"""Seconds from which a word beside one that is too long is too long as well; of the same words
2 % have them."""
INSTANT_S, MAX_INSTANT = 0.05, 0.1
"""Where more than this part of the words lasts no longer, the times are wrong, and say nothing of
what was skipped. Of `base` 0 to 2.4 % do, of the tiny models of the tests 28 to 80 %."""
MAX_REPEATED = 0.5
"""Part of the words from which on they are those of the other speaker, heard again."""


def turns_without_words(
    turns: Sequence[SpeakerTurn], words: Sequence[Word], after_s: float, until_s: float
) -> list[SpeakerTurn]:
    """Return the parts of ``turns``, of at least `MIN_BACKCHANNEL_S`, that have no words.

    ``turns``: of the dominant speakers. ``words``: those recognized from ``after_s`` to ``until_s``
    (seconds), in order.
    """
    found: list[SpeakerTurn] = []
    for line in turns_within(turns, after_s, until_s):
        own = [word for word in words if word.end > line.start and word.start < line.end]
        reached = [(word.start - WORD_REACH_S, word.end + WORD_REACH_S) for word in own]
        gaps = uncovered_spans(line.start, line.end, reached)
        found += [replace(line, start=start, end=end) for start, end in gaps]
    return [part for part in found if part.end - part.start >= MIN_BACKCHANNEL_S]


def stretched_words(words: Sequence[Word]) -> list[Word]:
    """Return the words, in order, that are longer than any is spoken, and long ones beside them.

    Whisper skipped speech there, and read its times into the words around it.
    """
    found: list[Word] = []
    if sum(one.end - one.start <= INSTANT_S for one in words) > MAX_INSTANT * len(words):
        return found
    for _, run in groupby(words, key=lambda word: word.end - word.start >= DRAWN_WORD_S):
        drawn = list(run)
        found += drawn if max(one.end - one.start for one in drawn) > LONGEST_WORD_S else []
    return found


def with_overlooked(
    words: Sequence[Word], stretched: Sequence[Word], turn: SpeakerTurn, own: Sequence[Word]
) -> list[Word]:
    """Return the words, in order, with those that were recognized of a turn alone: in the place of
    the stretched words in it, unless those have more letters, or nothing but what is said anyway
    was heard: then the times are wrong, or a word was drawn.

    ``own``: of the turn; none of them is in ``words``.
    """
    there = [one for one in stretched if turn.start <= (one.start + one.end) / 2 < turn.end]
    old, new = (_letters("".join(one.text for one in each)) for each in (there, own))
    if len(new) < len(old) or (there and _are_said(own, words)):
        return [*words]
    kept = [one for one in words if one not in there]
    return sorted([*kept, *own], key=lambda word: word.start)


def audio_span(turn: SpeakerTurn, turns: Iterable[SpeakerTurn], pieces: Sequence[Span]) -> Span:
    """Return the audio to recognize for a turn, with silence around it but nothing of another one:
    what a neighbour says is in words already.

    ``turns``: of the dominant speakers. ``pieces``: of the audio that may be recognized, in order.
    """
    others = [one for one in turns if not one.overlap(turn.start, turn.end)]
    before = [one for one in others if one.end <= turn.start]
    start, end = context_span([*before, turn, *others[len(before) :]], len(before))
    return max(start, pieces[0][0]), min(end, pieces[-1][1])


def repeats(found_words: Sequence[Word], words: Iterable[Word]) -> bool:
    """Return whether words that were found on their own are mostly among ``words`` of their time:
    they are the other speaker's then."""
    near = [
        word
        for word in words
        if word.end > found_words[0].start - WORD_REACH_S
        and word.start < found_words[-1].end + WORD_REACH_S
    ]
    ours, theirs = ([_letters(word.text) for word in each] for each in (found_words, near))
    same = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return sum(block.size for block in same) >= MAX_REPEATED * len(ours)


def _are_said(own: Sequence[Word], words: Sequence[Word]) -> bool:
    """Return whether of the pairs of words that follow each other most are among ``words``."""
    ours, theirs = (list(pairwise(_letters(word.text) for word in each)) for each in (own, words))
    return bool(ours) and sum(pair in theirs for pair in ours) >= MAX_REPEATED * len(ours)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
