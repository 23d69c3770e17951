"""Chunks of a recording for upstreams, and merging of their transcripts. Pure."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.audio.loudness import quietest_sample
from sidecar.diarization.word_attribution import attribute_words
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions
from sidecar.plugins.upstream.upstream_dialect import TEXT, UpstreamAnswer
from sidecar.transcripts.speaker_turns import (
    SpeakerTurn,
    match_speakers,
    number_speakers_by_appearance,
    speaker_turns_of,
    turn_agreement,
    turns_within,
)
from sidecar.transcripts.transcript import (
    SPEECH_MISSED,
    Notice,
    Segment,
    Transcript,
    speech_missed_notice,
)
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import split_atoms

CUT_SEARCH_S = 60.0
"""Search range of a cut: the last 60 s of a chunk, or its last quarter if that is shorter."""
EVEN_CUT_TOLERANCE_S = 10.0
"""Tolerance of a cut around its even position."""
MIN_EVEN_CHUNK_S = 180.0
"""Minimum length of chunks that are cut evenly: each costs a request, and an engine its context."""
CHUNKS_PER_UPSTREAM = 3
"""Chunks of a long recording for each upstream: a slow one delays the rest by a third of it."""
PAUSE_S = 0.3
_FULL = 32_768

MAX_ALIGNED_S = 28.0
"""Audio whose words are aligned together: less than the 45 s that `align_words` takes."""
_LOUDNESS_S = 0.02

UPSTREAM_NAME = "upstream"
MIN_SHARED_S = 0.5
"""Overlap that a server's speaker and a cluster need to be the same."""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Chunk of a recording that starts ``start_s`` seconds into it, 16 bits a sample. ``last``: the
    recording ends with it."""

    start_s: float
    samples: npt.NDArray[np.int16]
    rate: int
    last: bool

    @property
    def duration_s(self) -> float:
        """Return its duration in seconds."""
        return len(self.samples) / self.rate

    @property
    def end_s(self) -> float:
        """Return its end in the recording, in seconds."""
        return self.start_s + self.duration_s

    def flac(self) -> bytes:
        """Return the chunk as FLAC: lossless, about half the bytes."""
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, self.samples, self.rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def part(self, start_s: float, end_s: float, *, last: bool = False) -> AudioChunk:
        """Return the part of the chunk between two times of the recording."""
        first = max(0, round((start_s - self.start_s) * self.rate))
        samples = self.samples[first : max(first, round((end_s - self.start_s) * self.rate))]
        return AudioChunk(self.start_s + first / self.rate, samples, self.rate, last)

    def parts(self, longest_s: float) -> Iterator[AudioChunk]:
        """Yield it in chunks of at most ``longest_s`` seconds."""
        for one in cut_into_chunks([to_float(self.samples)], self.rate, longest_s):
            yield replace(one, start_s=self.start_s + one.start_s, last=self.last and one.last)

    def halves(self) -> tuple[AudioChunk, AudioChunk]:
        """Split it into two chunks of at most three quarters of its length each."""
        count = len(self.samples)
        cut = count // 4 + _quietest(self.samples[count // 4 : count - count // 4], self.rate)
        at = self.start_s + cut / self.rate
        return self.part(self.start_s, at), self.part(at, self.end_s + 1.0, last=self.last)


def even_chunk_s(total_s: float | None, upstreams: int, longest_s: float) -> float | None:
    """Return the length of chunks that keeps all upstreams busy to the end; None to cut only where
    ``longest_s`` requires it."""
    most_s = longest_s - 2 * EVEN_CUT_TOLERANCE_S
    if upstreams < 2 or total_s is None or most_s < MIN_EVEN_CHUNK_S:
        return None
    count = min(max(1, int(total_s / MIN_EVEN_CHUNK_S)), CHUNKS_PER_UPSTREAM * upstreams)
    if count > upstreams:
        count -= count % upstreams
    if count * most_s < total_s:
        count = math.ceil(total_s / most_s / upstreams) * upstreams
    return total_s / count if count > 1 else None


def cut_into_chunks(
    audio: Iterable[Block], rate: int, longest_s: float, *, even: float | None = None
) -> Iterator[AudioChunk]:
    """Yield the recording in chunks of at most ``longest_s`` seconds; hold one in memory at a time.

    ``even``: desired length, which the cuts follow as far as pauses allow.
    """
    held: list[npt.NDArray[np.int16]] = []
    count, start, number = 0, 0, 1

    def sized() -> tuple[int, int]:
        """Return the number of samples needed before the next cut, and the range of that cut."""
        if even is None:
            size = max(rate, round(longest_s * rate))
            return size, min(round(CUT_SEARCH_S * rate), size // 4)
        size = round((number * even + EVEN_CUT_TOLERANCE_S) * rate) - start
        return size, round(2 * EVEN_CUT_TOLERANCE_S * rate)

    size, zone = sized()
    for block in audio:
        held.append(to_16_bit(block))
        count += len(block)
        while count > size:
            samples = np.concatenate(held)
            cut = size - zone + _quietest(samples[size - zone : size], rate)
            yield AudioChunk(start / rate, samples[:cut], rate, last=False)
            held = [samples[cut:].copy()]
            del samples  # the yielded chunk owns it
            count, start, number = count - cut, start + cut, number + 1
            size, zone = sized()
    if count:
        yield AudioChunk(start / rate, np.concatenate(held), rate, last=True)


def to_16_bit(block: Block) -> npt.NDArray[np.int16]:
    """Convert samples in [-1, 1] to integers; exact for samples that came from 16 bits."""
    return np.clip(np.rint(block * _FULL), -_FULL, _FULL - 1).astype(np.int16)


def to_float(samples: npt.NDArray[np.int16]) -> Block:
    """Convert 16-bit samples to floats in [-1, 1]: the inverse of `to_16_bit`."""
    return samples.astype(np.float32) / np.float32(_FULL)


def _quietest(samples: npt.NDArray[np.int16], rate: int) -> int:
    return quietest_sample(to_float(samples), rate, PAUSE_S)


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """Result of a chunk between two times of the recording, and the server (host and port) that
    gave it. ``missed``: starts in the recording of speech without words, and its seconds."""

    start_s: float
    end_s: float
    answer: UpstreamAnswer
    server: str
    missed: tuple[tuple[float, float], ...] = ()


def time_words(chunk: AudioChunk, answer: UpstreamAnswer) -> UpstreamAnswer:
    """Return the answer with times for its words, of the audio that was sent, if the server gave
    none."""
    if answer.form != TEXT:
        return answer
    segments = list[Segment]()
    for one in answer.segments:
        audio = chunk.part(chunk.start_s + one.start, chunk.start_s + one.end)
        if one.is_speech and len(audio.samples):
            segments += shift_segments([*_aligned_parts(audio, one)], audio.start_s - chunk.start_s)
        else:
            segments.append(one)
    return replace(answer, segments=tuple(segments))


def _aligned_parts(chunk: AudioChunk, segment: Segment) -> Iterator[Segment]:
    """Yield a segment of all this audio in parts with aligned words. A part is no longer than
    `MAX_ALIGNED_S`, and has as much of the text as it has of the loud audio."""
    samples, frame = to_float(chunk.samples), max(1, round(_LOUDNESS_S * chunk.rate))
    level = np.add.reduceat(np.abs(samples), range(0, len(samples), frame))
    loud = np.cumsum(level >= level.mean() / 2)
    atoms = split_atoms(" ".join(segment.text.split()))
    letters = np.cumsum([len(one) for one in atoms])
    parts = [*cut_into_chunks([samples], chunk.rate, MAX_ALIGNED_S)]
    done = 0
    for part in parts:
        until = round(part.end_s * chunk.rate) // frame
        share = 1.0 if part.last else loud[min(until, len(loud) - 1)] / loud[-1]
        here = int(np.searchsorted(letters, share * letters[-1], side="right"))
        if text := "".join(atoms[done:here]).strip():
            whole = replace(segment, start=part.start_s, end=part.end_s, text=text)
            yield align_words(whole, to_float(part.samples), chunk.rate, part.start_s)
        done = max(done, here)


def without_words(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments without word times."""
    return [replace(one, words=(), words_by="") for one in segments]


def shift_segments(segments: Sequence[Segment], by_s: float) -> list[Segment]:
    """Return the segments and their words, shifted by ``by_s`` seconds."""
    return [
        replace(
            one,
            start=one.start + by_s,
            end=one.end + by_s,
            words=tuple(
                replace(word, start=word.start + by_s, end=word.end + by_s) for word in one.words
            ),
        )
        for one in segments
    ]


def assign_speakers(
    results: Sequence[ChunkResult], turns: Sequence[SpeakerTurn], *, diarize: bool
) -> list[Segment]:
    """Return the segments of all chunks, with speakers numbered in order of appearance.

    ``turns``: the speaker turns of the whole recording, none if it was not diarized here. If one
    server diarized the whole recording, its speakers are kept. With several chunks each has its
    own speakers, which are matched with the turns. Words of chunks that no server diarized go to
    the speakers of the turns.
    """
    assigned: list[Segment] = []
    for number, one in enumerate(results):
        segments = shift_segments(one.answer.segments, one.start_s)
        if not diarize:
            segments = [replace(segment, speaker=None) for segment in segments]
        elif not one.answer.diarized:
            segments = attribute_words(segments, turns)
        elif len(results) > 1:
            segments = _link_speakers(segments, turns, 1000 * (number + 1), one)
        assigned += segments
    return number_speakers_by_appearance(sorted(assigned, key=lambda one: (one.start, one.end)))


def _link_speakers(
    segments: Sequence[Segment], turns: Sequence[SpeakerTurn], first: int, result: ChunkResult
) -> list[Segment]:
    """Map a chunk's own speakers to those of the turns; one without a match is a new speaker."""
    chunk_turns = turns_within(turns, result.start_s, result.end_s)
    speakers = match_speakers(
        turn_agreement(chunk_turns, speaker_turns_of(segments), MIN_SHARED_S), 0.0
    )
    return [
        one
        if one.speaker is None
        else replace(one, speaker=speakers.get(one.speaker, first + one.speaker))
        for one in segments
    ]


def assemble_transcript(
    results: Sequence[ChunkResult],
    segments: Sequence[Segment],
    options: TranscribeOptions,
    duration_s: float,
    *,
    diarized: bool,
) -> Transcript:
    """Return the transcript of all chunks; its ``engine`` lists the servers."""
    servers = dict.fromkeys(one.server for one in results)
    language = options.language
    if language == AUTO or any("language" in one.answer.ignored for one in results):
        language = _first_known(one.answer.language for one in results)
    return Transcript(
        segments=tuple(segments),
        language=language,
        duration=duration_s,
        engine=f"{UPSTREAM_NAME} {', '.join(servers)}".rstrip(),
        precision=_first_known(one.answer.precision for one in results),
        diarized=diarized,
        notices=tuple(_notices(results)),
    )


def _notices(results: Sequence[ChunkResult]) -> list[Notice]:
    notices: dict[str, Notice] = {}
    ignored: dict[str, None] = {}
    if missed := [span for one in results for span in one.missed]:
        notices[SPEECH_MISSED] = speech_missed_notice(missed)
    for one in results:
        for notice in one.answer.notices:
            notices.setdefault(notice.code, notice)
        ignored |= dict.fromkeys(one.answer.ignored)
    if ignored:
        fields = ", ".join(ignored)
        notices["option_ignored"] = Notice(
            "option_ignored", f"The upstream does not take these options: {fields}."
        )
    return list(notices.values())


def _first_known(values: Iterable[str]) -> str:
    """Return the first value that is not 'auto', or 'auto'."""
    return next((value for value in values if value != AUTO), AUTO)
