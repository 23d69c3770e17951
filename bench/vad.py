"""Live voice activity: speech found, how soon that is known, and what it costs.

On the clips with turns, in frames of 10 ms; beginnings and ends of speech where nobody speaks for a
while before or after. Beside ours stands what the Silero package's own ``VADIterator`` would decide
from the same probabilities. Then CPU of the detector per second of sound of a session, for so
many sessions at once, beside onnxruntime with the same model; they take turns, so that each finds
its weights out of the cache, as it does beside other work.

    python -m bench.vad
    python -m bench.vad FOLDER_WITH_A_MANIFEST
    python -m bench.vad --threads 2
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from bench.metrics import clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.checkpoints import onnx_models
from sidecar.checkpoints.onnx_models import find_embedded_models
from sidecar.interfaces.live_options import EndpointingOptions
from sidecar.live.runtime.endpointing import Endpointer, UtteranceBegan, UtteranceEnded
from sidecar.live.runtime.vad import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    SILERO_MODEL,
    SileroVad,
    VadState,
    load_vad_weights,
)

CELL_S = 0.01
APART_S = 0.75
"""So long must nobody speak before a beginning, or after an end, whose delay is measured."""
EARLY_S = 0.3
"""References are no more exact than that: so much before an end it may be decided."""
SESSIONS = (1, 8, 32, 100)
SECONDS_HEARD = 120

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """Speech as found, and when it was known that it began and ended; seconds."""

    begin: float
    end: float
    known_begin: float
    known_end: float


@dataclass(frozen=True)
class Talk:
    """A clip: when somebody speaks, as known (seconds, no two overlap), and as heard."""

    name: str
    duration_s: float
    spoken: list[tuple[float, float]]
    probabilities: npt.NDArray[np.float32]


def ours(talk: Talk, by: EndpointingOptions) -> Iterator[Stretch]:
    """What `Endpointer` makes of it."""
    endpointer, begin, known = Endpointer(by), 0, 0
    for number in range(len(talk.probabilities) + 1):
        last = number == len(talk.probabilities)
        heard = endpointer.position + (0 if last else FRAME_SAMPLES)
        told = endpointer.finish() if last else endpointer.feed(talk.probabilities[number])
        for event in told:
            if isinstance(event, UtteranceBegan):
                begin, known = event.at, heard
            elif isinstance(event, UtteranceEnded):
                yield Stretch(
                    begin / SAMPLE_RATE,
                    event.at / SAMPLE_RATE,
                    known / SAMPLE_RATE,
                    heard / SAMPLE_RATE,
                )


def iterator(
    talk: Talk, silence_s: float, pad_s: float, threshold: float = 0.5
) -> Iterator[Stretch]:
    """What the package's ``VADIterator`` would tell (silero-vad 6.2, utils_vad.py)."""
    speaking, quiet, begin, known = False, 0.0, 0.0, 0.0
    for number, probability in enumerate(talk.probabilities):
        start, heard = (
            number * FRAME_SAMPLES / SAMPLE_RATE,
            (number + 1) * FRAME_SAMPLES / SAMPLE_RATE,
        )
        if probability >= threshold:
            quiet = 0.0
            if not speaking:
                speaking, begin, known = True, max(0.0, start - pad_s), heard
        elif probability < threshold - 0.15 and speaking:
            quiet = quiet or heard
            if heard - quiet >= silence_s:
                yield Stretch(begin, quiet + pad_s - FRAME_SAMPLES / SAMPLE_RATE, known, heard)
                speaking, quiet = False, 0.0
    if speaking:
        yield Stretch(begin, talk.duration_s, known, talk.duration_s)


def talks(detector: SileroVad) -> Iterator[Talk]:
    """The clips with turns, heard."""
    for clip in clips():
        if not clip.turns:
            continue
        sound = decode_audio_file(clip.path, SAMPLE_RATE)
        frames = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        state = [VadState()]
        said = [detector.probabilities(frame[None], state)[0] for frame in frames]
        yield Talk(clip.name, clip.duration_s, joined(clip.turns), np.array(said))


def joined(turns: list[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """When anybody speaks."""
    stretches: list[tuple[float, float]] = []
    for begin, end, _ in sorted(turns):
        if stretches and begin <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((begin, end))
    return stretches


def cells(stretches: Sequence[tuple[float, float]], duration_s: float) -> Flags:
    """Whether each 10 ms have speech in their middle."""
    flags = np.zeros(round(duration_s / CELL_S), np.bool_)
    for begin, end in stretches:
        flags[round(begin / CELL_S) : round(end / CELL_S)] = True
    return flags


def begin_delays(talk: Talk, found: list[Stretch]) -> Iterator[float]:
    """From where speech begins after silence to where that is known, where it is."""
    before = -APART_S
    for begin, end in talk.spoken:
        if begin - before >= APART_S:
            known = [one.known_begin for one in found if begin - EARLY_S < one.known_begin < end]
            if known and not any(one.known_begin <= begin - EARLY_S < one.end for one in found):
                yield known[0] - begin
        before = end


def end_delays(talk: Talk, found: list[Stretch]) -> Iterator[float]:
    """From where speech ends before silence to where that is known, where it is in time."""
    for number, (_, end) in enumerate(talk.spoken):
        last = number == len(talk.spoken) - 1
        behind = talk.duration_s if last else talk.spoken[number + 1][0]
        known = [one.known_end for one in found if end - EARLY_S < one.known_end < behind]
        if behind - end >= APART_S and known:
            yield known[-1] - end


def row(name: str, heard: list[tuple[Talk, list[Stretch]]]) -> None:
    """One line of the table: of all clips together."""
    truth = [cells(talk.spoken, talk.duration_s) for talk, _ in heard]
    said = [
        cells([(one.begin, one.end) for one in found], talk.duration_s) for talk, found in heard
    ]
    hits = sum(int((one & other).sum()) for one, other in zip(truth, said, strict=True))
    precision = hits / sum(int(one.sum()) for one in said)
    recall = hits / sum(int(one.sum()) for one in truth)
    figures = (
        f"{precision:.3f} | {recall:.3f} | {2 * precision * recall / (precision + recall):.3f}"
    )
    begins = [1000 * delay for one in heard for delay in begin_delays(*one)]
    ends = [1000 * delay for one in heard for delay in end_delays(*one)]
    print(f"| {name} | {figures} | {spread(begins)} | {spread(ends)} |", flush=True)


def spread(delays: list[float]) -> str:
    """Median and 95th percentile, and of how many."""
    if not delays:
        return "–"
    return f"{np.percentile(delays, 50):.0f} / {np.percentile(delays, 95):.0f} ({len(delays)})"


def accuracy(detector: SileroVad) -> None:
    """The first table."""
    heard = list(talks(detector))
    if not heard:
        print("Lacking: clips with turns, in a folder with a manifest.json; none is measured.\n")
        return
    print(", ".join(f"{talk.name} {talk.duration_s:.0f} s" for talk in heard) + "\n")
    print("| decided by | precision | recall | F1 | begin known, ms p50 / p95 | end known |")
    print("|---|---|---|---|---|---|")
    for silence_s, pad_s in ((0.1, 0.03), (0.3, 0.1), (0.5, 0.1)):
        name = f"VADIterator, silence {silence_s} s, pad {pad_s} s"
        row(name, [(talk, list(iterator(talk, silence_s, pad_s))) for talk in heard])
    default = EndpointingOptions()
    bare = replace(default, pre_roll_s=0, post_roll_s=0)
    for name, by in (
        ("ours", default),
        ("ours, without what is before and behind", bare),
        ("ours, silence 0.3 s", replace(default, silence_s=0.3)),
        ("ours, silence 0.8 s", replace(default, silence_s=0.8)),
    ):
        row(name, [(talk, list(ours(talk, by))) for talk in heard])
    print()


def cost(detector: SileroVad) -> None:
    """The second table, on whatever clips there are."""
    sound = np.concatenate([decode_audio_file(clip.path, SAMPLE_RATE) for clip in clips()[:3]])
    frames = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    print("CPU-ms per second of a session's sound\n")
    print("| sessions | ours, in one batch | onnxruntime, in one batch | onnxruntime, one by one |")
    print("|---|---|---|---|")
    model = onnx_models.create_session(
        find_embedded_models((SILERO_MODEL,))[SILERO_MODEL], onnx_models.session_options()
    )
    rate = np.array(SAMPLE_RATE, np.int64)

    def run(sounds: Block, state: Block) -> Block:
        return np.asarray(model.run(None, {"input": sounds, "state": state, "sr": rate})[1])

    for sessions in SESSIONS:
        steps = max(60, round(SECONDS_HEARD * SAMPLE_RATE / FRAME_SAMPLES / sessions))
        places = (np.arange(steps)[:, None] + np.arange(sessions) * 37) % len(frames)
        heard = [frames[place] for place in places]
        with_past = [np.concatenate([one[:, -64:], one], axis=1) for one in heard]
        states = [VadState() for _ in range(sessions)]
        together = np.zeros((2, sessions, 128), np.float32)
        each = [np.zeros((2, 1, 128), np.float32) for _ in range(sessions)]
        spent = [0.0, 0.0, 0.0]
        for own, others in zip(heard, with_past, strict=True):
            marks = [time.process_time()]
            detector.probabilities(own, states)
            marks.append(time.process_time())
            together = run(others, together)
            marks.append(time.process_time())
            each = [run(others[at : at + 1], each[at]) for at in range(sessions)]
            marks.append(time.process_time())
            spent = [one + more for one, more in zip(spent, np.diff(marks), strict=True)]
        figures = [1000 * one / (steps * sessions * FRAME_SAMPLES / SAMPLE_RATE) for one in spent]
        print(f"| {sessions} | {' | '.join(f'{one:.2f}' for one in figures)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", nargs="?", help="folder of clips, with a manifest.json")
    parser.add_argument("--threads", type=int, default=1, help="let numpy use so many")
    given = parser.parse_args()
    if given.audio:
        os.environ["VIBEVOICE_BENCH_AUDIO"] = given.audio
    detector = SileroVad(load_vad_weights())
    threadpool_limits(given.threads, user_api="blas")
    accuracy(detector)
    cost(detector)


if __name__ == "__main__":
    main()
