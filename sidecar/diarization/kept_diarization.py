"""What is kept of a diarization, and diarization from it with another number of speakers.

An engine reports it as its last resume point (`transcript.KEPT_DIARIZATION`): the windows with
their embeddings, and the words as they were recognized, with times. An hour takes about half a
megabyte (docs/editing.md). The audio is not needed again.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, Self

import numpy as np

from sidecar.diarization import speaker_identification, word_attribution
from sidecar.diarization.clustering import SpeakerCount
from sidecar.diarization.speaker_models import EMBEDDING_SIZE
from sidecar.diarization.window_embeddings import (
    MAX_WINDOW_SPEAKERS,
    WINDOW_FRAMES,
    DiarizationWindow,
)
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.transcripts.diarized_pieces import DiarizedPiece, DiarizedPieces, SegmentPart
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    number_speakers_by_appearance,
    speaker_turns_of,
)
from sidecar.transcripts.transcript import (
    KEPT_DIARIZATION,
    ResumePoint,
    Segment,
    SpeakerProfile,
    Transcript,
    Word,
    words_confidence,
)
from sidecar.transcripts.transcript_edits import replace_segment_text
from sidecar.transcripts.word_timing import split_at_words, split_atoms

MAX_KEPT_BYTES = 8 << 20
"""Limit of one recording, some ten hours of talk: of a longer one nothing is kept."""
_VECTOR_STEPS = 127
"""Steps of an embedding's values, relative to the largest one: the error of a cosine is below
0.01."""
_MS = 1000
_PACKED_BYTES = -(-WINDOW_FRAMES * MAX_WINDOW_SPEAKERS // 8)

Place = tuple[int, int, int]
"""Line of a segment, and which of its words the segment has: from the first to before the last."""


@dataclass(frozen=True, slots=True)
class KeptDiarization:
    """Diarization of a recording of ``end_s`` seconds.

    ``lines``: utterances as they were recognized, before they were cut at speaker changes; the
    speaker of one is the diarizer's decision at that time, None if there was none. ``places``: of
    the transcript's segments. ``fitted``: the ends of segments are moved to those of turns
    (`word_attribution.fit_to_turns`).
    """

    found: WindowSpeakers
    end_s: float
    lines: Sequence[Segment]
    places: Sequence[Place]
    fitted: bool = False

    def resume_point(self) -> ResumePoint | None:
        """Return it as an event of the engine; None if it is too large."""
        data = self.to_bytes()
        if len(data) > MAX_KEPT_BYTES:
            return None
        return ResumePoint(self.end_s, KEPT_DIARIZATION, state={"data": b64encode(data).decode()})

    def to_bytes(self) -> bytes:
        """Return it compressed."""
        windows = self.found.windows
        heard = np.array([one.heard for one in windows], np.bool_).reshape(-1, MAX_WINDOW_SPEAKERS)
        vectors = np.array([one.vectors for one in windows], np.float32)
        vectors = vectors.reshape(*heard.shape, EMBEDDING_SIZE)[heard]
        scales = np.abs(vectors).max(axis=1, initial=1e-6)
        arrays = {
            "starts": np.array([one.start for one in windows], "<i4"),
            "packed": np.array([one.packed for one in windows], np.uint8),
            "alone": np.array([one.alone_s for one in windows], "<f2"),
            "heard": heard,
            "persons": self.found.persons.astype("<i2"),
            "vectors": np.rint(vectors / scales[:, None] * _VECTOR_STEPS).astype(np.int8),
        }
        values = {
            "end_s": self.end_s,
            "fitted": self.fitted,
            "places": self.places,
            "lines": list(map(_line_to_json, self.lines)),
            "arrays": {name: len(one.tobytes()) for name, one in arrays.items()},
        }
        head = json.dumps(values, separators=(",", ":")).encode()
        parts = [head, *(one.tobytes() for one in arrays.values())]
        return zlib.compress(len(head).to_bytes(4, "little") + b"".join(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the output of `to_bytes`."""
        raw = zlib.decompress(data)
        head = 4 + int.from_bytes(raw[:4], "little")
        values, at, arrays = json.loads(raw[4:head]), head, dict[str, bytes]()
        for name, size in values["arrays"].items():
            arrays[name] = raw[at : at + size]
            at += size
        starts = np.frombuffer(arrays["starts"], "<i4")
        count, each = len(starts), MAX_WINDOW_SPEAKERS
        packed = np.frombuffer(arrays["packed"], np.uint8).reshape(count, _PACKED_BYTES)
        alone_s = np.frombuffer(arrays["alone"], "<f2").reshape(count, each).astype(np.float32)
        heard = np.frombuffer(arrays["heard"], np.bool_).reshape(count, each)
        some = np.frombuffer(arrays["vectors"], np.int8).reshape(-1, EMBEDDING_SIZE)
        lengths = np.maximum(np.linalg.norm(some.astype(np.float32), axis=1, keepdims=True), 1e-6)
        vectors = np.zeros((count, each, EMBEDDING_SIZE), np.float16)
        vectors[heard] = (some / lengths).astype(np.float16)
        persons = np.frombuffer(arrays["persons"], "<i2").reshape(count, each)
        found = WindowSpeakers()
        found.windows = [
            DiarizationWindow(int(start), packed[at], vectors[at], alone_s[at], heard[at])
            for at, start in enumerate(starts)
        ]
        found.persons = persons.astype(np.int64)
        lines = list(map(_line_from_json, values["lines"]))
        places = [(line, first, last) for line, first, last in values["places"]]
        return cls(found, values["end_s"], lines, places, values["fitted"])


def _line_to_json(line: Segment) -> list[Any]:
    words, at = list[Any](), 0
    for word in line.words:
        start, end = round(word.start * _MS), round(word.end * _MS)
        words.append([start - at, end - start, word.text, word.confidence])
        at = end
    return [line.start, line.end, line.text, line.speaker, words]


def _line_from_json(values: Sequence[Any]) -> Segment:
    start, end, text, speaker, timed = values
    words, at = list[Word](), 0
    for after, length, word, confidence in timed:
        at += after
        words.append(Word(at / _MS, (at + length) / _MS, word, confidence))
        at += length
    return Segment(start, end, text, speaker, tuple(words))


def places_of(lines: Sequence[Segment], segments: Iterable[Segment]) -> list[Place]:
    """Return the place of each segment; ``segments``: ``lines``, or cut from them between words.
    A line without words is a segment as it is."""
    known = {
        id(word): (number, at)
        for number, line in enumerate(lines)
        for at, word in enumerate(line.words)
    }
    wordless: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        if not line.words:
            wordless.setdefault(line.text, []).append(number)
    found: list[Place] = []
    for one in segments:
        if one.words:
            number, first = known[id(one.words[0])]
            found.append((number, first, first + len(one.words)))
        else:
            found.append((wordless[one.text].pop(0), 0, 0))
    return found


@dataclass(frozen=True, slots=True)
class DiarizedAgain:
    """Result of another diarization; ``lost_names``: names that no speaker has now."""

    result: DiarizedPieces
    lost_names: tuple[str, ...]


def diarize_again(
    kept: KeptDiarization,
    transcript: Transcript,
    places: Sequence[Place],
    count: SpeakerCount | None,
) -> DiarizedAgain:
    """Cluster the speakers anew, and attribute the words to them as they are in ``transcript``,
    with all edits of text. A name goes to the speaker who has most of the time of the one that had
    it.

    ``places``: of the segments of ``transcript``. ``count``: None for the default.
    """
    kept.found.cluster_anew(count)
    turns = kept.found.turns(kept.end_s)
    lines = list(_current_lines(kept, transcript.segments, places))
    labelled = _attributed(lines, turns, fitted=kept.fitted)
    numbered = number_speakers_by_appearance([segment for segment, _, _ in labelled])
    pieces = [
        replace(line.piece(units), start=one.start, end=one.end, speaker=one.speaker)
        for one, (_, line, units) in zip(numbered, labelled, strict=True)
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
class _Line:
    """Segments that are one utterance, with the words as they are now. ``last``: the recognized
    word after it. ``of``: the segments by their numbers."""

    number: int
    segment: Segment
    units: Sequence[_Unit]
    last: int
    of: Mapping[int, Segment]

    def piece(self, units: slice) -> DiarizedPiece:
        """Return some of the line as a piece, without its times and its speaker."""
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
        return DiarizedPiece(
            0.0, 0.0, None, confidence, self.number, inside[0].at, last, tuple(parts)
        )


def _merged(parts: Sequence[SegmentPart]) -> SegmentPart:
    return replace(parts[0], end=parts[-1].end, last=parts[-1].last)


def _current_lines(
    kept: KeptDiarization, segments: Sequence[Segment], places: Sequence[Place]
) -> Iterator[_Line]:
    """Yield the utterances with the words as they are now. What somebody marked as no speech stands
    alone."""
    numbered = zip(range(len(segments)), segments, places, strict=True)
    for (number, _, _), group in groupby(
        numbered, lambda one: (one[2][0], one[1].flags, bool(kept.lines[one[2][0]].words))
    ):
        run, line = list(group), kept.lines[number]
        pieces = split_at_words(line.text, [word.text for word in line.words])
        spaces = [True, *(piece[-1:].isspace() for piece in pieces)]
        units = [
            unit
            for at, segment, (_, first, last) in run
            for unit in _units(at, segment, line.words[first:last], first, space=spaces[first])
        ]
        whole = run[0][2][1] == 0 and run[-1][2][2] == len(line.words)
        words = tuple(unit.word for unit in units) if line.words else ()
        start, end = (line.start, line.end) if whole else (run[0][1].start, run[-1][1].end)
        flags = run[0][1].flags
        segment = Segment(
            start, end, " ".join(one.text for one in words), line.speaker, words, flags
        )
        of = {at: one for at, one, _ in run}
        yield _Line(number, segment, units, run[-1][2][2], of)


def _units(
    at: int, segment: Segment, recognized: Sequence[Word], first: int, *, space: bool
) -> Iterator[_Unit]:
    """Yield the words of a segment as they are now; ``recognized``: those that were, the first of
    which has the number ``first`` in its line."""
    words, texts = _timed_words(segment, recognized)
    same = len(words) == len(recognized)
    begin = 0
    for number, (word, text) in enumerate(zip(words, texts, strict=True)):
        end = begin + len(text)
        of = (number, number + 1) if len(words) == len(segment.words) else (0, len(segment.words))
        origin = number
        if number and not same:  # the first stands for all up to it, so that none is left out
            origin = sum(one.start < word.start for one in recognized)
        yield _Unit(
            replace(word),  # of its own: words are told apart by identity
            SegmentPart(at, begin, end, *of, space and not begin),
            first + origin,
        )
        begin = end


def _timed_words(segment: Segment, recognized: Sequence[Word]) -> tuple[Sequence[Word], list[str]]:
    """Return the words of a segment as they are now with their times, and its text cut at them."""
    known = segment.words or recognized
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
    lines: Sequence[_Line], turns: Sequence[SpeakerTurn], *, fitted: bool
) -> list[tuple[Segment, _Line, slice]]:
    """Return the segments, each with its line and the words of it that it has."""
    beside = [line for line in lines if fitted and line.segment.speaker is not None]
    dominant = [line for line in lines if not (fitted and line.segment.speaker is not None)]
    lookup = word_attribution.SpeakerLookup(turns)
    if fitted:
        found = word_attribution.attribute_words([line.segment for line in dominant], turns)
    else:
        found = [piece for line in dominant for piece in lookup.attributed(line.segment)]
    of = {id(unit.word): (line, at) for line in lines for at, unit in enumerate(line.units)}
    wordless = iter([line for line in dominant if not line.segment.words])
    where: list[tuple[_Line, slice]] = []
    for one in found:
        line, first = of[id(one.words[0])] if one.words else (next(wordless), 0)
        where.append((line, slice(first, first + (len(one.words) or len(line.units)))))
    found = word_attribution.extend_over_overlaps(found, turns)
    if fitted:
        found = word_attribution.fit_to_turns(found, turns)
    for at, (one, (line, _)) in enumerate(zip(found, where, strict=True)):
        had = any(own.speaker is not None for own in line.of.values())
        if turns and had and one.speaker is None:  # somebody rewrote it as `[Music]`
            speaker = lookup.voice(one.start, one.end, line.segment.speaker or 0)
            found[at] = replace(one, speaker=speaker)
    labelled = [(one, *place) for one, place in zip(found, where, strict=True)]
    for line in beside:
        own = line.segment
        speaker = lookup.voice(own.start, own.end, own.speaker or 0)
        labelled.append((replace(own, speaker=speaker), line, slice(0, len(line.units))))
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
    found: dict[int, SpeakerProfile] = {}
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
        if seconds and -new not in found:
            found[-new] = profile
    carried = {one.name for one in found.values()}
    lost = dict.fromkeys(one.name for one in named if one.name and one.name not in carried)
    return found, tuple(lost)


def _profiles(
    kept: KeptDiarization,
    transcript: Transcript,
    labels: Mapping[int, int],
    named: Mapping[int, SpeakerProfile],
) -> tuple[SpeakerProfile, ...]:
    """Return the speakers' profiles; ``labels``: the diarizer's label of each speaker."""
    printed = any(one.print is not None for one in transcript.voices)
    compared = printed or any(one.seconds for one in transcript.voices)
    vectors = kept.found.speakers(kept.end_s).voices if compared else {}
    found: list[SpeakerProfile] = []
    for speaker, label in sorted(labels.items()):
        profile, vector = named.get(speaker), vectors.get(label)
        if profile is None and vector is None:
            continue
        own = SpeakerProfile(speaker, round(vector.seconds, 2) if vector else 0.0)
        if vector is not None and printed:
            own = replace(own, print=speaker_identification.embedding_if_long_enough(vector))
        if profile is not None:
            own = replace(own, person=profile.person, name=profile.name, likeness=profile.likeness)
        found.append(own)
    return tuple(found)
