"""What is kept of a diarization, so that it can be done again without the audio (`rediarization`).

An engine reports it as its last resume point (`transcript.KEPT_DIARIZATION`): the windows with
their embeddings, and the words as they were recognized, with times. An hour takes about half a
megabyte (docs/editing.md).
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sidecar.diarization.speaker_models import EMBEDDING_SIZE
from sidecar.diarization.window_embeddings import (
    MAX_WINDOW_SPEAKERS,
    WINDOW_FRAMES,
    DiarizationWindow,
)
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.transcripts.diarized_pieces import WordRange
from sidecar.transcripts.transcript import KEPT_DIARIZATION, ResumePoint, Segment, Word

MAX_KEPT_BYTES = 8 << 20
"""Limit of one recording, some ten hours of talk: of a longer one nothing is kept."""
_VECTOR_STEPS = 127
"""Steps of an embedding's values, relative to the largest one: the error of a cosine is below
0.01."""
_MS = 1000
_PACKED_BYTES = -(-WINDOW_FRAMES * MAX_WINDOW_SPEAKERS // 8)


@dataclass(frozen=True, slots=True)
class KeptDiarization:
    """Diarization of a recording of ``end_s`` seconds.

    ``uncut_segments``: utterances as they were recognized, before they were cut at speaker changes;
    the speaker of one is the diarizer's decision at that time, None if there was none.
    ``word_ranges``: of the transcript's segments in them. ``fitted``: the ends of segments are
    moved to those of turns (`word_attribution.fit_to_turns`).
    """

    window_speakers: WindowSpeakers
    end_s: float
    uncut_segments: Sequence[Segment]
    word_ranges: Sequence[WordRange]
    fitted: bool = False

    def resume_point(self, max_bytes: int = MAX_KEPT_BYTES) -> ResumePoint | None:
        """Return it as an event of the engine; None if it has more than ``max_bytes``."""
        data = self.to_bytes()
        if len(data) > max_bytes:
            return None
        return ResumePoint(self.end_s, KEPT_DIARIZATION, state={"data": b64encode(data).decode()})

    def to_bytes(self) -> bytes:
        """Return it compressed."""
        windows = self.window_speakers.windows
        present = np.array([one.present for one in windows], np.bool_).reshape(
            -1, MAX_WINDOW_SPEAKERS
        )
        vectors = np.array([one.vectors for one in windows], np.float32)
        vectors = vectors.reshape(*present.shape, EMBEDDING_SIZE)[present]
        scales = np.abs(vectors).max(axis=1, initial=1e-6)
        arrays = {
            "starts": np.array([one.start for one in windows], "<i4"),
            "packed": np.array([one.packed for one in windows], np.uint8),
            "alone": np.array([one.alone_s for one in windows], "<f2"),
            "heard": present,
            "persons": self.window_speakers.persons.astype("<i2"),
            "vectors": np.rint(vectors / scales[:, None] * _VECTOR_STEPS).astype(np.int8),
        }
        values = {
            "end_s": self.end_s,
            "fitted": self.fitted,
            "places": self.word_ranges,
            "lines": list(map(_segment_to_json, self.uncut_segments)),
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
        present = np.frombuffer(arrays["heard"], np.bool_).reshape(count, each)
        some = np.frombuffer(arrays["vectors"], np.int8).reshape(-1, EMBEDDING_SIZE)
        lengths = np.maximum(np.linalg.norm(some.astype(np.float32), axis=1, keepdims=True), 1e-6)
        vectors = np.zeros((count, each, EMBEDDING_SIZE), np.float16)
        vectors[present] = (some / lengths).astype(np.float16)
        persons = np.frombuffer(arrays["persons"], "<i2").reshape(count, each)
        window_speakers = WindowSpeakers()
        window_speakers.windows = [
            DiarizationWindow(int(start), packed[at], vectors[at], alone_s[at], present[at])
            for at, start in enumerate(starts)
        ]
        window_speakers.persons = persons.astype(np.int64)
        uncut_segments = list(map(_segment_from_json, values["lines"]))
        word_ranges = [WordRange(*one) for one in values["places"]]
        return cls(window_speakers, values["end_s"], uncut_segments, word_ranges, values["fitted"])


def _segment_to_json(segment: Segment) -> list[Any]:
    words, at = list[Any](), 0
    for word in segment.words:
        start, end = round(word.start * _MS), round(word.end * _MS)
        words.append([start - at, end - start, word.text, word.confidence])
        at = end
    return [segment.start, segment.end, segment.text, segment.speaker, words]


def _segment_from_json(values: Sequence[Any]) -> Segment:
    start, end, text, speaker, timed = values
    words, at = list[Word](), 0
    for after, length, word, confidence in timed:
        at += after
        words.append(Word(at / _MS, (at + length) / _MS, word, confidence))
        at += length
    return Segment(start, end, text, speaker, tuple(words))


def word_ranges_of(
    uncut_segments: Sequence[Segment], segments: Iterable[Segment]
) -> list[WordRange]:
    """Return the range of each segment; ``segments``: ``uncut_segments``, or cut from them between
    words. One without words is a segment as it is."""
    known = {
        id(word): (number, at)
        for number, uncut in enumerate(uncut_segments)
        for at, word in enumerate(uncut.words)
    }
    wordless: dict[str, list[int]] = {}
    for number, uncut in enumerate(uncut_segments):
        if not uncut.words:
            wordless.setdefault(uncut.text, []).append(number)
    word_ranges: list[WordRange] = []
    for one in segments:
        if one.words:
            number, first = known[id(one.words[0])]
            word_ranges.append(WordRange(number, first, first + len(one.words)))
        else:
            word_ranges.append(WordRange(wordless[one.text].pop(0), 0, 0))
    return word_ranges
