"""Times of words: how far off they are, beside a plain rule, and what they cost.

Two references. *Joined*: the clips' speech, cut where it is quiet, joined again with silences of
known lengths (none to 0.6 s, filled with noise as loud as the clip's own): there the begin of the
first word of each piece and the end of its last are known to the sample. *Turns*: the same two
words of each utterance in clips that come with utterances (VIBEVOICE_BENCH_AUDIO). What is heard
is matched with what should be, and words that were not recognized, or whose neighbour was not, are
left out. The rule beside it spreads the characters of each segment evenly over it
(`sidecar.transcripts.word_timing`), over the same segments.

    python -m bench.word_times
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

import numpy as np

from bench.metrics import Clip, clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.moonshine import MoonshineEngine
from sidecar.engines.moonshine.moonshine_decoder import SAMPLE_RATE
from sidecar.engines.moonshine.moonshine_recognizer import (
    MoonshineRecognizer,
    frame_silence,
    model_folder,
)
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, TranscriptionRequest
from sidecar.transcripts.transcript import Finished, Segment
from sidecar.transcripts.word_timing import estimate_word_times

SILENCES_S = (0.0, 0.05, 0.12, 0.3, 0.6)
BUTTED_S = 0.06
"""Two pieces with less between them are as good as spoken on."""
_FRAME = SAMPLE_RATE // 100
_LEAST_S, _MOST_S = 0.25, 4.0
_QUIET_S = 0.08
_ROUNDS = 5


@dataclass(frozen=True)
class Spoken:
    """Words known to be said from ``start`` to ``end``; nothing is known of the times between.

    ``alone``: from 0.06 s on of silence before them, and behind them.
    """

    start: float
    end: float
    words: tuple[str, ...]
    alone: tuple[bool, bool] = (True, True)


class Blocks:
    """A recording as engines take it."""

    def __init__(self, audio: Block) -> None:
        self._audio = audio
        self.total_s = len(audio) / SAMPLE_RATE

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self._audio), SAMPLE_RATE):
            yield self._audio[start : start + SAMPLE_RATE]


@dataclass
class Errors:
    """Milliseconds, off in either direction."""

    all: list[float] = field(default_factory=list)
    butted: list[float] = field(default_factory=list)

    def cells(self) -> str:
        """As cells of a table."""
        return " | ".join(
            f"{np.median(one):.0f} | {np.percentile(one, 95):.0f}" if one else "– | –"
            for one in (self.all, self.butted)
        )


def plain(text: str) -> tuple[str, ...]:
    """The words without marks and capitals."""
    return tuple(filter(None, (re.sub(r"[^a-z0-9']", "", one.lower()) for one in text.split())))


def pieces(audio: Block) -> list[tuple[int, int]]:
    """Stretches of speech between two quiet places, in samples."""
    frames = len(audio) // _FRAME
    loud = np.flatnonzero(frame_silence(audio, _FRAME, frames) < 0)
    if not len(loud):
        return []
    gaps = np.flatnonzero(np.diff(loud) > _QUIET_S * 100)
    starts = [loud[0], *loud[gaps + 1]]
    ends = [*loud[gaps], loud[-1]]
    found = [(int(a) * _FRAME, (int(b) + 1) * _FRAME) for a, b in zip(starts, ends, strict=True)]
    return [(a, b) for a, b in found if _LEAST_S <= (b - a) / SAMPLE_RATE <= _MOST_S]


def joined(audio: Block, recognizer: MoonshineRecognizer, seed: int) -> tuple[Block, list[Spoken]]:
    """The pieces of a recording with other silences between them, and where each is now."""
    chance = random.Random(seed)
    parts: list[Block] = [np.zeros(SAMPLE_RATE // 4, np.float32)]
    found: list[Spoken] = []
    at, before_s = len(parts[0]), 1.0
    for start, end in pieces(audio):
        words = plain(recognizer.text(audio[start:end]))
        if not words:
            continue
        piece = audio[start:end].copy()
        fade = np.linspace(0, 1, SAMPLE_RATE // 200, dtype=np.float32)
        piece[: len(fade)] *= fade
        piece[-len(fade) :] *= fade[::-1]
        gap_s = chance.choice(SILENCES_S)
        parts += [piece, np.zeros(int(gap_s * SAMPLE_RATE), np.float32)]
        alone = before_s >= BUTTED_S, gap_s >= BUTTED_S
        found.append(Spoken(at / SAMPLE_RATE, (at + len(piece)) / SAMPLE_RATE, words, alone))
        at += len(piece) + len(parts[-1])
        before_s = gap_s
    whole = np.concatenate(parts)
    frames = audio[: len(audio) // _FRAME * _FRAME].reshape(-1, _FRAME)
    noise = max(3e-4, float(np.sqrt(np.percentile(np.square(frames).mean(axis=1), 8))))
    hiss = np.random.default_rng(seed).normal(0, noise, len(whole))
    return (whole + hiss).astype(np.float32), found


def heard(
    engine: MoonshineEngine, audio: Block, words: bool = True, diarize: bool = False
) -> tuple[Segment, ...]:
    """The engine's segments."""
    options = TranscribeOptions(diarize=diarize, words=words)
    for event in engine.transcribe(TranscriptionRequest(Blocks(audio), options, lambda: False)):
        if isinstance(event, Finished):
            return event.transcript.segments
    raise AssertionError("no end")


def errors(spoken: Sequence[Spoken], segments: Sequence[Segment]) -> Errors:
    """How far the words at the edges of each piece are off."""
    said = [word for segment in segments for word in segment.words if plain(word.text)]
    theirs = [plain(word.text)[0] for word in said]
    ours = [word for one in spoken for word in one.words]
    match = {
        block.a + step: block.b + step
        for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        for step in range(block.size)
    }
    found = Errors()
    at = 0
    for one in spoken:
        first, last = at, at + len(one.words) - 1
        at = last + 1
        for index, neighbour, edge, alone in (
            (first, first - 1, "start", one.alone[0]),
            (last, last + 1, "end", one.alone[1]),
        ):
            place = match.get(index)
            inside = 0 <= neighbour < len(ours)
            if place is None or (inside and match.get(neighbour) != place + neighbour - index):
                continue
            off_ms = 1000 * abs(getattr(said[place], edge) - getattr(one, edge))
            found.all.append(off_ms)
            if not alone:
                found.butted.append(off_ms)
    return found


def utterances(clip: Clip) -> list[Spoken]:
    """What a clip's reference says of its utterances."""
    return [Spoken(start, end, plain(text)) for start, end, _, text in clip.utterances or ()]


def measured(
    name: str, engine: MoonshineEngine, recordings: Sequence[tuple[Block, list[Spoken]]]
) -> None:
    """Rows of the table: the attention's times and the rule's."""
    ours, rule = Errors(), Errors()
    for audio, spoken in recordings:
        segments = heard(engine, audio)
        guessed = [estimate_word_times(replace(one, words=())) for one in segments]
        for found, of in ((ours, segments), (rule, guessed)):
            some = errors(spoken, of)
            found.all += some.all
            found.butted += some.butted
    print(f"| {name}, {len(ours.all)} borders: attention | {ours.cells()} |")
    print(f"| the same, spread evenly | {rule.cells()} |", flush=True)


def cpu_s(engine: MoonshineEngine, audio: Block, words: bool) -> float:
    """CPU-seconds for each second of a recording, speakers told apart as the service does."""
    before = time.process_time()
    heard(engine, audio, words, diarize=True)
    return (time.process_time() - before) / len(audio) * SAMPLE_RATE


def main() -> None:
    """Measure, and print a table."""
    engine, recognizer = MoonshineEngine(), MoonshineRecognizer(model_folder())
    list(engine.load(LoadOptions()))
    chosen = [(clip, decode_audio_file(clip.path, SAMPLE_RATE)) for clip in clips()]
    print("| ms | median | p95 | without a pause: median | p95 |\n|---|---|---|---|---|")
    made = [joined(audio, recognizer, seed) for seed, (_, audio) in enumerate(chosen)]
    measured("joined", engine, [one for one in made if one[1]])
    told = [(audio, utterances(clip)) for clip, audio in chosen if clip.utterances]
    if told:
        measured("turns", engine, told)
    speech = np.concatenate([audio for clip, audio in chosen if "two_cities" in clip.name])
    costs: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for words, found in costs.items():
            found.append(cpu_s(engine, speech, words))
    without, with_words = min(costs[False]), min(costs[True])
    print(
        f"\nCPU-s/s: {without:.3f} without words, {with_words:.3f} with "
        f"({100 * (with_words / without - 1):+.1f} %); best of {_ROUNDS}"
    )


if __name__ == "__main__":
    main()
