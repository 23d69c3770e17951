"""Another diarization of a transcript, with another number of speakers, from what was kept.

The words stay as they are, edits included; the result says of which parts of the old segments the
new ones are made (`transcripts.diarized_pieces`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from operator import attrgetter

from sidecar.diarization import speaker_identification, word_attribution
from sidecar.diarization.clustering import SpeakerCount
from sidecar.diarization.kept_diarization import KeptDiarization
from sidecar.transcripts.diarized_pieces import (
    DiarizedPiece,
    DiarizedPieces,
    SegmentPart,
    WordRange,
)
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    number_speakers_by_appearance,
    speaker_turns_of,
)
from sidecar.transcripts.transcript import (
    OVERLAP_FLAG,
    Segment,
    SpeakerProfile,
    Transcript,
    Word,
    words_confidence,
)
from sidecar.transcripts.transcript_edits import replace_segment_text
from sidecar.transcripts.word_timing import split_at_words, split_atoms


@dataclass(frozen=True, slots=True)
class DiarizedAgain:
    """Result of another diarization; ``lost_names``: names that no speaker has now."""

    result: DiarizedPieces
    lost_names: tuple[str, ...]


def diarize_again(
    kept: KeptDiarization,
    transcript: Transcript,
    word_ranges: Sequence[WordRange],
    count: SpeakerCount | None,
) -> DiarizedAgain:
    """Cluster the speakers anew, and attribute the words to them as they are in ``transcript``,
    with all edits of text. A name goes to the speaker who has most of the time of the one that had
    it.

    ``word_ranges``: of the segments of ``transcript``. ``count``: None for the default.
    """
    kept.window_speakers.cluster_anew(count)
    turns = kept.window_speakers.turns(kept.end_s)
    utterances = list(_current_utterances(kept, transcript.segments, word_ranges))
    labelled = _attributed(utterances, turns, fitted=kept.fitted)
    numbered = number_speakers_by_appearance([segment for segment, _, _ in labelled])
    pieces = [
        replace(utterance.piece(units), start=one.start, end=one.end, speaker=one.speaker)
        for one, (_, utterance, units) in zip(numbered, labelled, strict=True)
    ]
    labels = {
        one.speaker: segment.speaker
        for one, (segment, _, _) in zip(numbered, labelled, strict=True)
        if one.speaker is not None and segment.speaker is not None
    }
    named, lost = _carried_names(transcript, numbered)
    voices = _profiles(kept, transcript, labels, named)
    return DiarizedAgain(DiarizedPieces(tuple(pieces), voices), lost)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Word as it is now: its time, where it stands in the text, and the number ``at`` of the
    recognized word that it comes from or stands behind."""

    word: Word
    part: SegmentPart
    at: int


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Segments that are one utterance, with the words as they are now. ``last``: the recognized
    word after it. ``of``: the segments by their numbers."""

    number: int
    segment: Segment
    units: Sequence[_Unit]
    last: int
    of: Mapping[int, Segment]

    def piece(self, units: slice) -> DiarizedPiece:
        """Return some of the utterance as a piece, without its times and its speaker."""
        inside = self.units[units]
        parts = [
            _merged(list(one))
            for _, one in groupby((one.part for one in inside), attrgetter("segment"))
        ]
        last = self.units[units.stop].at if units.stop < len(self.units) else self.last
        first, own = parts[0], self.of[parts[0].segment]
        confidence = own.confidence
        if len(parts) > 1 or first.end - first.begin < len(own.text):
            sure = all(self.of[part.segment].confidence is not None for part in parts)
            confidence = words_confidence(one.word for one in inside) if sure else None
        word_range = WordRange(self.number, inside[0].at, last)
        return DiarizedPiece(0.0, 0.0, None, confidence, word_range, tuple(parts))


def _merged(parts: Sequence[SegmentPart]) -> SegmentPart:
    return replace(parts[0], end=parts[-1].end, last=parts[-1].last)


def _current_utterances(
    kept: KeptDiarization, segments: Sequence[Segment], word_ranges: Sequence[WordRange]
) -> Iterator[_Utterance]:
    """Yield the utterances with the words as they are now. What somebody marked as no speech stands
    alone."""
    numbered = zip(range(len(segments)), segments, word_ranges, strict=True)
    for (number, _, _), group in groupby(
        numbered,
        lambda one: (
            one[2].utterance,
            one[1].is_speech,
            bool(kept.uncut_segments[one[2].utterance].words),
        ),
    ):
        run, uncut = list(group), kept.uncut_segments[number]
        texts = split_at_words(uncut.text, [word.text for word in uncut.words])
        spaces = [True, *(text[-1:].isspace() for text in texts)]
        units = [
            unit
            for at, segment, (_, first, last) in run
            for unit in _units(at, segment, uncut.words[first:last], first, space=spaces[first])
        ]
        whole = run[0][2].first == 0 and run[-1][2].last == len(uncut.words)
        words = tuple(unit.word for unit in units) if uncut.words else ()
        start, end = (uncut.start, uncut.end) if whole else (run[0][1].start, run[-1][1].end)
        if words:  # a segment that was fitted to its turn may begin or end within its words
            start = min(start, words[0].start)
            end = max(end, *(word.end for word in words))
        flags = [flag for _, one, _ in run for flag in one.flags if flag != OVERLAP_FLAG]
        segment = Segment(
            *(start, end, " ".join(one.text for one in words), uncut.speaker, words),
            tuple(dict.fromkeys(flags)),
        )
        of = {at: one for at, one, _ in run}
        yield _Utterance(number, segment, units, run[-1][2].last, of)


def _units(
    at: int, segment: Segment, recognized_words: Sequence[Word], first: int, *, space: bool
) -> Iterator[_Unit]:
    """Yield the words of a segment as they are now; ``recognized_words``: those that were, the
    first of which has the number ``first`` in its utterance."""
    words, texts = _timed_words(segment, recognized_words)
    same = len(words) == len(recognized_words)
    begin = 0
    for number, (word, text) in enumerate(zip(words, texts, strict=True)):
        end = begin + len(text)
        of = (number, number + 1) if len(words) == len(segment.words) else (0, len(segment.words))
        origin = number
        if number and not same:  # the first stands for all up to it, so that none is left out
            origin = sum(one.start < word.start for one in recognized_words)
        yield _Unit(
            replace(word),  # of its own: words are told apart by identity
            SegmentPart(at, begin, end, *of, space and not begin),
            first + origin,
        )
        begin = end


def _timed_words(
    segment: Segment, recognized_words: Sequence[Word]
) -> tuple[Sequence[Word], list[str]]:
    """Return the words of a segment as they are now with their times, and its text cut at them."""
    known = segment.words or recognized_words
    if not known:
        return [Word(segment.start, segment.end, segment.text)], [segment.text]
    texts = split_at_words(segment.text, [word.text for word in known])
    atoms = split_atoms(segment.text)
    as_recognized = segment.words or "".join(segment.text.split()) == "".join(
        word.text.strip() for word in known
    )
    # In corrected text a recognized word may be found within another one: "am" in "came".
    whole = {*accumulate(map(len, atoms))}.issuperset(accumulate(map(len, texts)))
    if "".join(texts) == segment.text and (as_recognized or whole):
        return known, texts
    recognized_text = " ".join(word.text for word in known)
    before = Segment(segment.start, segment.end, recognized_text, words=tuple(known))
    return replace_segment_text(before, segment.text).words, atoms


def _attributed(
    utterances: Sequence[_Utterance], turns: Sequence[SpeakerTurn], *, fitted: bool
) -> list[tuple[Segment, _Utterance, slice]]:
    """Return the segments, each with its utterance and the words of it that it has."""
    beside, dominant = list[_Utterance](), list[_Utterance]()
    for utterance in utterances:
        own_speaker = fitted and utterance.segment.speaker is not None
        (beside if own_speaker else dominant).append(utterance)
    lookup = word_attribution.SpeakerLookup(turns)
    if fitted:
        segments = word_attribution.attribute_words([one.segment for one in dominant], turns)
    else:
        segments = [cut for one in dominant for cut in lookup.attributed(one.segment)]
    of = {id(unit.word): (one, at) for one in utterances for at, unit in enumerate(one.units)}
    wordless = iter([one for one in dominant if not one.segment.words])
    origins: list[tuple[_Utterance, slice]] = []
    for segment in segments:
        utterance, first = of[id(segment.words[0])] if segment.words else (next(wordless), 0)
        count = len(segment.words) or len(utterance.units)
        origins.append((utterance, slice(first, first + count)))
    segments = word_attribution.extend_over_overlaps(segments, turns)
    if fitted:
        segments = word_attribution.fit_to_turns(segments, turns)
    labelled = list[tuple[Segment, _Utterance, slice]]()
    for segment, (utterance, units) in zip(segments, origins, strict=True):
        had = any(own.speaker is not None for own in utterance.of.values())
        if turns and had and segment.speaker is None:  # somebody rewrote it as `[Music]`
            usual = utterance.segment.speaker or 0
            speaker = lookup.voice(segment.start, segment.end, usual)
            segment = replace(segment, speaker=speaker)
        labelled.append((segment, utterance, units))
    for utterance in beside:
        own = utterance.segment
        speaker = lookup.voice(own.start, own.end, own.speaker or 0)
        labelled.append((replace(own, speaker=speaker), utterance, slice(0, len(utterance.units))))
    if fitted:
        labelled.sort(key=lambda one: (one[0].start, one[0].end))
    return labelled


def _carried_names(
    transcript: Transcript, segments: Sequence[Segment]
) -> tuple[dict[int, SpeakerProfile], tuple[str, ...]]:
    """Return the profiles with names by their new speakers, and the names that none has."""
    shared = speaker_identification.overlap_seconds(
        speaker_turns_of(transcript.segments), speaker_turns_of(segments)
    )
    carried: dict[int, SpeakerProfile] = {}
    named = [one for one in transcript.voices if one.name is not None]
    best = {
        one.speaker: max(
            ((seconds, -new) for (old, new), seconds in shared.items() if old == one.speaker),
            default=(0.0, 1),
        )
        for one in named
    }
    for profile in sorted(named, key=lambda one: (-best[one.speaker][0], one.speaker)):
        seconds, new = best[profile.speaker]
        if seconds and -new not in carried:
            carried[-new] = profile
    names = {one.name for one in carried.values()}
    lost = dict.fromkeys(one.name for one in named if one.name and one.name not in names)
    return carried, tuple(lost)


def _profiles(
    kept: KeptDiarization,
    transcript: Transcript,
    labels: Mapping[int, int],
    named_profiles: Mapping[int, SpeakerProfile],
) -> tuple[SpeakerProfile, ...]:
    """Return the speakers' profiles; ``labels``: the diarizer's label of each speaker."""
    printed = any(one.print is not None for one in transcript.voices)
    compared = printed or any(one.seconds for one in transcript.voices)
    vectors = kept.window_speakers.speakers(kept.end_s).voices if compared else {}
    profiles: list[SpeakerProfile] = []
    for speaker, label in sorted(labels.items()):
        profile, vector = named_profiles.get(speaker), vectors.get(label)
        if profile is None and vector is None:
            continue
        own = SpeakerProfile(speaker, round(vector.seconds, 2) if vector else 0.0)
        if vector is not None and printed:
            own = replace(own, print=speaker_identification.embedding_if_long_enough(vector))
        if profile is not None:
            own = replace(own, person=profile.person, name=profile.name, likeness=profile.likeness)
        profiles.append(own)
    return tuple(profiles)
