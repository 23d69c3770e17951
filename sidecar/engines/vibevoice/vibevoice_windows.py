"""Windows of a long recording, their speakers, and stitching.

A window's segments have the model's own speaker numbers, which mean nothing in the next window.

The models of `sidecar.diarization` find pauses and compare speakers. They run on the CPU once a
window, over some seconds of audio, however long the window is.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.loudness import quietest_sample
from sidecar.diarization import speaker_models
from sidecar.diarization.clustering import detect_speech
from sidecar.diarization.diarizer import array_from_base64, array_to_base64
from sidecar.diarization.speaker_identification import SpeakerVector
from sidecar.interfaces.engine_interface import AudioStream
from sidecar.serialization import to_plain
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    longest_solo_spans,
    match_speakers,
    speaker_turns_of,
    turn_agreement,
    turns_within,
    uncovered_spans,
)
from sidecar.transcripts.transcript import (
    LOOP_FLAG,
    NON_SPEECH_FLAG,
    Segment,
    segments_from_plain,
)

SpeechSpans = Sequence[tuple[float, float]]
"""Spans of speech: (start, end) in seconds, in order."""
SpeechDetector = Callable[[Block, int], SpeechSpans]
"""Function that finds speech in samples, shape (samples,), at a rate."""

OVERLAP_S = 10.0
"""Overlap of two windows in seconds: enough for a sentence on either side of the border."""
BORDER_SEARCH_S = 120.0
"""Seconds at the end of a window in which its border lies."""
VAD_LEAD_S = 3.0
"""Seconds of audio before that which the detector gets to adapt."""
MIN_PAUSE_S = 0.2
"""Minimum pause in seconds: a shorter gap is inside a word as often as between two."""
_PAUSE_S = 0.2

SAME_SPEAKER_SIMILARITY = 0.4
"""Similarity of one speaker in two windows: the cosine between embeddings, and the share of an
overlap.

Of 153480 pairs of LibriSpeech readers (`bench.windows --voices` at 9d96464c) one in 250 reaches it
with 3 s of each speaker; of 810 pairs of one reader one in 60 falls short. With 5 s: one in 175,
and none. In the conversations of the benchmark no two speakers are as similar with 3 s or more.
"""
SHARED, SHARED_BESIDE = 0.8, 0.2
"""Weights of the share of seconds that two windows give to one speaker, without and with
embeddings. Without an embedding half of the seconds are enough. With embeddings the share decides
for a speaker with little speech, but joins no two that differ: a window may give a speaker's words
to another."""
MIN_SHARED_SPEECH_S = 1.0
"""Seconds of speech in the overlap that two windows must give to the same speaker to count."""
HALF_COVERED, WHOLLY_COVERED = 0.5, 0.9
"""Shares of a segment's time. If the previous window's segments cover `HALF_COVERED` of it, it is
a repetition and is dropped. If a longer one of the next window covers `WHOLLY_COVERED`, that
replaces it."""
EMBEDDING_PIECE_S = 4.0
"""Maximum span of one embedding in seconds: so short that a speaker has several. If the model gave
a speaker some words of another's, most of the embeddings are still right."""
MAX_EMBEDDING_PIECES = 6
"""Maximum number of embeddings per speaker in a window; more hardly change the result."""
MIN_EMBEDDING_S = 1.5
"""Seconds to which shorter spans are joined. A speaker with less is not compared: with 1.5 s of
each, one speaker in seven is not matched again (`SAME_SPEAKER_SIMILARITY`)."""
MIN_TURN_S = 0.5
"""Seconds below which a turn is left out: the model's times are not that exact."""
MIN_PIECE_SIMILARITY = 0.35
"""Cosine between two embeddings of one speaker, below which one of them is another speaker's."""


@dataclass(frozen=True, slots=True)
class VibeVoiceWindow:
    """Window of a recording, shape (samples,), that begins at ``start_s``.

    Speech from ``border_s`` on belongs to the next window; it is `None` in the last window.
    """

    start_s: float
    samples: Block
    border_s: float | None


class VibeVoiceWindows:
    """Iterator of the windows of a recording at ``rate``, each at most ``window_s`` long.

    It holds one window, with samples that are valid until the next. ``listen`` detects the speech
    at a window's end. If it is `None`, or finds no pause, the border is at the lowest level.
    """

    def __init__(
        self, audio: AudioStream, rate: int, window_s: float, listen: SpeechDetector | None = None
    ) -> None:
        self._blocks = iter(audio)
        self._rate = rate
        self._size = max(1, round(window_s * rate))
        self._listen = listen
        claimed = round((audio.total_s or 0.0) * rate) + rate
        self._held = np.empty(min(self._size, claimed), np.float32)
        self._count = 0
        self._rest: Block = self._held[:0]
        self._start = 0
        self._used = 0

    @property
    def end_s(self) -> float:
        """Return the end of the recording so far, in seconds."""
        return (self._start + self._count) / self._rate

    @property
    def position(self) -> tuple[int, int]:
        """Return the first sample of the next window, and the samples of the longest window."""
        return self._start + self._used, self._size

    def go_on(self, start: int, size: int) -> None:
        """Begin at a `position` of the same recording."""
        self._start, self._size = start, size
        self._blocks = _samples_from(self._blocks, start)

    def again(self, window_s: float) -> None:
        """Begin the last window anew, in windows of ``window_s``: it was too long."""
        self._used = 0
        self._size = max(1, round(window_s * self._rate))

    def __iter__(self) -> Iterator[VibeVoiceWindow]:
        while True:
            left = self._count - self._used  # the audio before the next window is dropped
            self._held[:left] = self._held[self._used : self._count]
            self._start, self._count, self._used = self._start + self._used, left, 0
            ended = not self._fill()
            if not self._count:
                return
            last = ended and self._count <= self._size
            samples = self._held[: min(self._count, self._size)]
            border = None if last else self._border(samples)
            self._used = self._count if border is None else border - self._overlap // 2
            start_s = self._start / self._rate
            yield VibeVoiceWindow(start_s, samples, border and start_s + border / self._rate)
            if self._used == self._count and ended:
                return

    @property
    def _overlap(self) -> int:
        return min(round(OVERLAP_S * self._rate), self._size // 6)

    def _fill(self) -> bool:
        """Read audio until the window is full; return false if the recording ended before."""
        while self._count < self._size or not len(self._rest):
            if not len(self._rest):
                following = next(self._blocks, None)
                if following is None:
                    return False
                self._rest = following
            part = self._rest[: max(0, self._size - self._count)]
            self._rest = self._rest[len(part) :]
            needed = self._count + len(part)
            if needed > len(self._held):
                self._held = np.resize(self._held, max(needed, min(self._size, 2 * needed)))
            self._held[self._count : needed] = part
            self._count = needed
        return True

    def _border(self, samples: Block) -> int:
        """Return the border in samples: late enough for a long window, with enough overlap after
        it."""
        end = len(samples) - self._overlap // 2
        begin = end - min(round(BORDER_SEARCH_S * self._rate), self._size // 4)
        first = max(0, begin - round(VAD_LEAD_S * self._rate))
        zone = (begin - first) / self._rate, (end - first) / self._rate
        pause = None
        if self._listen is not None:
            pause = longest_pause(self._listen(samples[first:end], self._rate), *zone)
        if pause is None:
            return begin + quietest_sample(samples[begin:end], self._rate, _PAUSE_S)
        return first + round(pause * self._rate)


def _samples_from(blocks: Iterator[Block], start: int) -> Iterator[Block]:
    """Yield the blocks without the first ``start`` samples."""
    for block in blocks:
        if len(rest := block[start:]):
            yield rest
        start = max(0, start - len(block))


def longest_pause(speech: SpeechSpans, begin_s: float, end_s: float) -> float | None:
    """Return the middle of the longest gap between ``begin_s`` and ``end_s``; `None` without a gap.

    Of equally long gaps the latest; of a gap that extends beyond, only the part inside counts.
    """
    gaps = uncovered_spans(begin_s, end_s, speech)
    gaps = [(start, end) for start, end in gaps if end - start >= MIN_PAUSE_S]
    best = max(gaps, key=lambda gap: (round(gap[1] - gap[0], 3), gap[1]), default=None)
    return best and sum(best) / 2


class TranscriptStitcher:
    """Transcript that grows window by window: `begin`, `place` each segment as it comes, `end`.

    ``segments`` are final, with speakers from 0. All times are the recording's. ``remember``: the
    listener stores all speakers until the end, not only those needed to link the next window.
    """

    def __init__(self, matcher: WindowSpeakerMatcher | None, *, remember: bool = False) -> None:
        self.segments: list[Segment] = []
        self._matcher = matcher
        self._remember = remember
        self._linked: list[Segment] = []
        self._held: list[Segment] = []
        self._persons = 0
        self._seen: dict[int, int] = {}
        self._tail: list[Segment] = []
        self._border_s: float | None = None
        self._before: list[Segment] = []
        """Segments of the last snapshot."""

    def snapshot(self) -> dict[str, Any]:
        """Return the state between two windows as plain values, with those segments only that are
        not the same as in the last snapshot."""
        pairs = zip(self._before, self.segments, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
        self._before = [*self.segments]
        return {
            "same": same,
            "segments": to_plain(self.segments[same:]),
            "linked": to_plain(self._linked),
            "held": to_plain(self._held),
            "persons": self._persons,
            "voices": self._matcher.snapshot() if self._matcher is not None else [],
        }

    def go_on(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Begin with the state of snapshots of the same recording: all there are, in order."""
        for part in parts:
            self.segments[part["same"] :] = segments_from_plain(part["segments"])
        last = parts[-1]
        self._before = [*self.segments]
        self._linked = segments_from_plain(last["linked"])
        self._held = segments_from_plain(last["held"])
        self._persons = last["persons"]
        if self._matcher is not None:
            self._matcher.go_on(last["voices"])

    def begin(self, window: VibeVoiceWindow) -> None:
        """Begin a window: the next segments are its own."""
        self._border_s = window.border_s
        self._seen = {}
        self._tail = [one for one in self.segments if one.end > window.start_s]

    def place(self, segment: Segment) -> Segment | None:
        """Return a segment with a speaker number that may be revised; `None` if another window has
        it.

        Segments after the border are the next window's. In the overlap before it, the previous
        window's count.
        """
        if not self._is_ours(segment) or self._is_said(segment):
            return None
        if segment.speaker is None:
            return segment
        person = self._seen.setdefault(segment.speaker, self._persons + len(self._seen))
        return replace(segment, speaker=person)

    def end(
        self, window: VibeVoiceWindow, segments: Sequence[Segment], *, gaps: bool = False
    ) -> None:
        """End the window with all its segments: link its speakers, and choose the segments to
        keep.

        ``gaps``: windows inside this one follow, with `fill`.
        """
        linked = self._link(window, segments, more=gaps or window.border_s is not None)
        new = [one for one in linked if not self._is_said(one)]
        kept = [one for one in new if self._is_ours(one)]
        held = [one for one in new if not self._is_ours(one)]
        known = [*self._tail, *kept, *held]
        missed = [one for one in self._held if covered_share(one, known) < HALF_COVERED]
        again = {id(one) for one in self._tail if covered_share(one, kept) >= WHOLLY_COVERED}
        self.segments = [one for one in self.segments if id(one) not in again] + missed + kept
        self._linked, self._held = linked, held

    def fill(self, window: VibeVoiceWindow, segments: Sequence[Segment]) -> None:
        """End a window inside an earlier one: add those of its segments that are missing there.
        Skipped audio that has words now is no longer skipped."""
        linked = self._link(window, segments, more=True)
        words = [one for one in (*self.segments, *linked) if one.is_speech]
        self.segments = [
            one
            for one in self.segments
            if LOOP_FLAG not in one.flags or covered_share(one, words) < HALF_COVERED
        ]
        self.segments += [one for one in linked if covered_share(one, self.segments) < HALF_COVERED]

    def _is_ours(self, segment: Segment) -> bool:
        return self._border_s is None or (segment.start + segment.end) / 2 < self._border_s

    def _is_said(self, segment: Segment) -> bool:
        return covered_share(segment, self._tail) >= HALF_COVERED

    def _link(
        self, window: VibeVoiceWindow, segments: Sequence[Segment], *, more: bool
    ) -> list[Segment]:
        """Return the segments with the recording's speaker numbers; new ones in order of
        appearance. ``more``: another window has to be linked to this one."""
        labels = {one.speaker: None for one in segments if one.speaker is not None}
        first = not self._persons
        voices: Mapping[int, SpeakerVector] = {}
        needed = self._remember or more or not first
        if self._matcher is not None and labels and needed:
            voices = self._matcher.hear(window.samples, speaker_turns_of(segments, window.start_s))
        signs = {} if first else self._signs(window, segments, voices)
        persons = match_speakers(signs, SAME_SPEAKER_SIMILARITY)
        for label in labels:
            if label not in persons:
                persons[label] = self._persons
                self._persons += 1
        if self._matcher is not None and voices and (self._remember or more):
            self._matcher.remember(voices, persons)
        return [
            one if one.speaker is None else replace(one, speaker=persons[one.speaker])
            for one in segments
        ]

    def _signs(
        self,
        window: VibeVoiceWindow,
        segments: Sequence[Segment],
        vectors: Mapping[int, SpeakerVector],
    ) -> dict[tuple[int, int], float]:
        """Return the similarity of pairs of speaker and label, by the overlap's segments and
        embeddings."""
        both = window.start_s, max((one.end for one in self._linked), default=0.0)
        before, after = speaker_turns_of(self._linked), speaker_turns_of(segments)
        shared = turn_agreement(
            turns_within(before, *both), turns_within(after, *both), MIN_SHARED_SPEECH_S
        )
        alike: Mapping[tuple[int, int], float] = {}
        if self._matcher is not None and vectors:
            alike = self._matcher.likenesses(vectors)
        signs = dict(alike)
        for pair, share in shared.items():
            signs[pair] = alike[pair] + SHARED_BESIDE * share if pair in alike else SHARED * share
        return signs


def covered_share(segment: Segment, other_segments: Iterable[Segment]) -> float:
    """Return the share of a segment's time that others cover, from 0 to 1; a non-speech segment
    does not cover words."""
    spans = sorted(
        (other.start, other.end)
        for other in other_segments
        if NON_SPEECH_FLAG not in other.flags or NON_SPEECH_FLAG in segment.flags
    )
    if segment.end <= segment.start:
        return float(any(start <= segment.start <= end for start, end in spans))
    at, shared = segment.start, 0.0
    for start, end in spans:
        shared += max(0.0, min(end, segment.end) - max(start, at))
        at = max(at, end)
    return shared / (segment.end - segment.start)


def detect_window_speech(samples: Block, rate: int) -> list[tuple[float, float]]:
    """Return the spans with speech, (start, end) in seconds; none if the models are not
    installed."""
    models = speaker_models.available_speaker_models()
    if models is None:
        return []
    return detect_speech(models, resample_for_diarization(samples, rate))


class WindowSpeakerMatcher:
    """Embeddings of the speakers in a recording at ``rate``.

    A speaker's embedding is the mean over all windows, weighted by seconds, so that each window
    makes it more reliable. Nothing is loaded before two windows are compared. Without the encoder,
    which is logged once, only the windows' overlap links speakers.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._known: dict[int, speaker_models.Vector] = {}
        self._seconds: dict[int, float] = {}

    @property
    def persons(self) -> Mapping[int, SpeakerVector]:
        """Return the embeddings of all remembered speakers."""
        return {
            person: SpeakerVector(total / np.linalg.norm(total), self._seconds[person])
            for person, total in self._known.items()
        }

    def snapshot(self) -> list[tuple[int, str, float]]:
        """Return the embeddings of all remembered speakers as plain values."""
        return [(one, array_to_base64(self._known[one]), self._seconds[one]) for one in self._known]

    def go_on(self, snapshot: Iterable[tuple[int, str, float]]) -> None:
        """Remember the speakers of a snapshot."""
        for person, vector, seconds in snapshot:
            self._known[person] = array_from_base64(vector, np.float32)
            self._seconds[person] = seconds

    def hear(self, samples: Block, turns: Sequence[SpeakerTurn]) -> Mapping[int, SpeakerVector]:
        """Return the embedding of each label of a window that has enough speech.

        ``samples``: the window, shape (samples,); the times of ``turns`` count from its start.
        """
        found: dict[int, SpeakerVector] = {}
        for label in {turn.label: None for turn in turns}:
            stretches = longest_solo_spans(turns, label, EMBEDDING_PIECE_S, MIN_TURN_S)
            pieces = self._pieces(samples, stretches)
            if pieces and self._encoder is not None:
                seconds = [len(piece) / self._rate for piece in pieces]
                vectors = [
                    self._encoder.vector(resample_for_diarization(piece, self._rate))
                    for piece in pieces
                ]
                found[label] = majority_vector(np.stack(vectors), np.array(seconds, np.float32))
        return found

    def _pieces(self, samples: Block, stretches: Sequence[tuple[float, float]]) -> list[Block]:
        """Return the audio of at most `MAX_EMBEDDING_PIECES` spans; short ones are joined."""
        pieces: list[Block] = []
        held = samples[:0]
        for start, end in stretches:
            first, last = round(max(0.0, start) * self._rate), round(end * self._rate)
            held = np.concatenate([held, samples[first:last]])
            if len(held) >= MIN_EMBEDDING_S * self._rate:
                pieces.append(held)
                held = samples[:0]
            if len(pieces) == MAX_EMBEDDING_PIECES:
                break
        return pieces

    def likenesses(self, vectors: Mapping[int, SpeakerVector]) -> Mapping[tuple[int, int], float]:
        """Return the cosine, from -1 to 1, for each pair of a remembered speaker and a label."""
        return {
            (person, label): float(known @ voice.vector / np.linalg.norm(known))
            for person, known in self._known.items()
            for label, voice in vectors.items()
        }

    def remember(self, vectors: Mapping[int, SpeakerVector], persons: Mapping[int, int]) -> None:
        """Add a window's embeddings; ``persons``: the speaker of each label."""
        for label, voice in vectors.items():
            weighted = voice.vector * voice.seconds
            self._known[persons[label]] = self._known.get(persons[label], 0.0) + weighted
            self._seconds[persons[label]] = self._seconds.get(persons[label], 0.0) + voice.seconds

    @cached_property
    def _encoder(self) -> speaker_models.SpeakerEncoder | None:
        models = speaker_models.available_speaker_models()
        return speaker_models.SpeakerEncoder(models) if models is not None else None


def majority_vector(
    vectors: npt.NDArray[np.float32], seconds: npt.NDArray[np.float32]
) -> SpeakerVector:
    """Return the embedding that most of the ``seconds`` agree on, of spans that are said to be one
    speaker's.

    ``vectors``: shape (pieces, size), each of length 1.
    """
    alike = vectors @ vectors.T
    middle = int((alike @ seconds).argmax())
    kin = alike[middle] >= MIN_PIECE_SIMILARITY
    mean = seconds[kin] @ vectors[kin]
    return SpeakerVector(mean / np.linalg.norm(mean), float(seconds[kin].sum()))


def resample_for_diarization(samples: Block, rate: int) -> Block:
    """Return the samples at the rate of the detector and the encoder."""
    if rate == SAMPLE_RATE:
        return samples
    import soxr

    resampled: Block = soxr.resample(samples, rate, SAMPLE_RATE)
    return resampled
