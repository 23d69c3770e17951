"""How well people are known again by their voices: false accepts, false rejects, equal error.

Of every speaker of the clips with turns (and of clips of one voice) what is said alone is cut into
pieces of so many seconds, each becomes a vector, and every piece is held against every other, and
against persons who are known by some pieces more ("known by": their mean, the piece itself left
out). A trial weighs so that each speaker counts the same among the true pairs, and each pair of
speakers among the false ones. The interval is a bootstrap over speakers (95 %): pieces of one voice
are no independent trials.

    python -m bench.speaker_identification
    python -m bench.speaker_identification --seconds 5 --curve

With ``--held-out`` the border is fitted on one half of the speakers (the middle of where both
rates are equal) and both rates are measured among the other half, over many halvings. Beside it are
the counts at the product's own border, and how much may be true, at 95 %, of what was never seen:
the rule of three, of pairs of speakers or of speakers, for trials of one voice are not independent.

    python -m bench.speaker_identification --held-out

With ``--clips`` it is how often clips by which somebody is to become known are taken: of one voice,
which should be, and of two after a pause, which should not.

    python -m bench.speaker_identification --clips
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from bench.metrics import Clip, clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.speaker_enrolment import enrolment_embedding
from sidecar.diarization.speaker_identification import SAME_SPEAKER_SIMILARITY
from sidecar.diarization.speaker_models import SAMPLE_RATE, SpeakerEncoder, load_models
from sidecar.errors import SidecarError

Floats = npt.NDArray[np.float64]

MOST = 12
"""Pieces of one voice in one recording."""
KNOWN_BY_S = 10.0
"""Seconds of voice that a person is known by, at the most."""
DRAWS = 300
HALVINGS = 200
UNCLEAR = frozenset({("beckett", "two_cities")})
"""Recordings of which nobody says whether it is one reader; they are no trial."""
LEAST_TURN_S = 0.3
CLIPS = 20
"""Of each kind, at the most."""
PAUSE_S = 0.4


@dataclass(frozen=True)
class Piece:
    """Some seconds of one voice; ``sound``: which recording it is of."""

    speaker: str
    sound: str
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trials:
    """Likenesses with the speakers that they are between, and whether it is one."""

    likeness: Floats
    pairs: list[tuple[str, str]]

    @property
    def true(self) -> npt.NDArray[np.bool_]:
        """Whether it is one speaker."""
        return np.array([one == other for one, other in self.pairs], np.bool_)


def voices(clip: Clip) -> Iterator[tuple[str, Block]]:
    """What each speaker of a clip says alone."""
    samples = decode_audio_file(clip.path, SAMPLE_RATE)
    if not clip.turns:
        yield re.sub(r"(?<=[a-z])\d.*|_\d.*", "", clip.path.stem), samples
        return
    busy = np.zeros(len(samples), np.int8)
    owner: dict[str, npt.NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(samples), np.bool_))
    for start, end, speaker in clip.turns:
        if end - start >= LEAST_TURN_S:
            owner[speaker][round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = True
        busy[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] += 1
    for speaker, mask in owner.items():
        yield speaker, samples[mask & (busy == 1)]


def pieces(encoder: SpeakerEncoder, heard: list[tuple[str, str, Block]], s: float) -> list[Piece]:
    """Vectors of pieces of ``s`` seconds, from all over each recording."""
    found, size = [], round(s * SAMPLE_RATE)
    for speaker, sound, samples in heard:
        count = len(samples) // size
        starts = np.linspace(0, len(samples) - size, min(count, MOST)).astype(int)
        found += [
            Piece(speaker, sound, encoder.vector(samples[at : at + size]))
            for at in (starts if count else ())
        ]
    return found


def against_each_other(found: list[Piece]) -> Trials:
    """Every piece against every other."""
    matrix = np.stack([one.vector for one in found])
    alike = matrix @ matrix.T
    values, pairs = [], []
    for first, second in combinations(range(len(found)), 2):
        if _unclear(found[first].speaker, found[second].speaker):
            continue
        values.append(float(alike[first, second]))
        pairs.append((found[first].speaker, found[second].speaker))
    return Trials(np.array(values), pairs)


def against_the_known(found: list[Piece], s: float) -> Trials:
    """Every piece against all persons, each known by the mean of some other pieces of one recording
    (another one than the piece's, where there is another)."""
    by: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, piece in enumerate(found):
        by[piece.speaker][piece.sound].append(number)
    values, pairs = [], []
    for number, piece in enumerate(found):
        for speaker, sounds in by.items():
            others = {name: nums for name, nums in sounds.items() if name != piece.sound} or sounds
            for known in others.values():
                rest = [one for one in known if one != number][: max(1, round(KNOWN_BY_S / s))]
                if not rest or _unclear(piece.speaker, speaker):
                    continue
                mean = np.mean([found[one].vector for one in rest], axis=0)
                values.append(float(piece.vector @ mean / np.linalg.norm(mean)))
                pairs.append((piece.speaker, speaker))
    return Trials(np.array(values), pairs)


def _unclear(one: str, other: str) -> bool:
    return tuple(sorted((one, other))) in UNCLEAR


def weights(trials: Trials, times: dict[str, float]) -> Floats:
    """So much each trial counts, if each speaker is there so many ``times``."""
    pairs = [tuple(sorted(pair)) for pair in trials.pairs]
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for pair in pairs:
        counts[pair] += 1
    return np.array(
        [
            (times[a] if a == b else times[a] * times[b]) / counts[a, b]
            for a, b in pairs
        ]
    )  # fmt: skip


def rates(trials: Trials, weight: Floats, border: float) -> tuple[float, float]:
    """False accepts and false rejects in percent where ``border`` decides."""
    true = trials.true
    accepted = trials.likeness >= border
    accepts = weight[~true & accepted].sum() / max(weight[~true].sum(), 1e-12)
    rejects = weight[true & ~accepted].sum() / max(weight[true].sum(), 1e-12)
    return 100 * float(accepts), 100 * float(rejects)


def equal_error(trials: Trials, weight: Floats) -> tuple[float, float]:
    """The error where both rates are equal, in percent, and the border there."""
    order = np.argsort(trials.likeness)
    true, weight = trials.true[order], weight[order]
    rejects = np.cumsum(weight * true) / max((weight * true).sum(), 1e-12)
    accepts = 1 - np.cumsum(weight * ~true) / max((weight * ~true).sum(), 1e-12)
    at = int(np.argmin(np.abs(rejects - accepts)))
    border = trials.likeness[order][min(at + 1, len(order) - 1)]
    return 50 * abs(float(rejects[at] + accepts[at])), float(border)


def interval(trials: Trials, speakers: list[str]) -> tuple[float, float]:
    """The equal error's, by drawing speakers anew."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        drawn = random.choice(len(speakers), len(speakers))
        if len(set(drawn.tolist())) < 2:
            continue
        times = {name: float((drawn == at).sum()) for at, name in enumerate(speakers)}
        found.append(equal_error(trials, weights(trials, times))[0])
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def fitted(trials: Trials, weight: Floats) -> float:
    """The border where both rates are equal; the middle, where that is a stretch."""
    order = np.argsort(trials.likeness)
    true, weight, likeness = trials.true[order], weight[order], trials.likeness[order]
    rejects = np.cumsum(weight * true) / max((weight * true).sum(), 1e-12)
    accepts = 1 - np.cumsum(weight * ~true) / max((weight * ~true).sum(), 1e-12)
    gap = np.abs(rejects - accepts)
    at = np.flatnonzero(gap <= gap.min() + 1e-12)
    return float(likeness[at[0]] + likeness[min(at[-1] + 1, len(likeness) - 1)]) / 2


def held_out(trials: Trials, speakers: list[str]) -> tuple[Floats, tuple[float, float]]:
    """Borders fitted among one half of the speakers, and both rates in percent among the other."""
    random = np.random.default_rng(0)
    borders, found = [], []
    for _ in range(HALVINGS):
        drawn = random.permutation(speakers)
        halves = [within(trials, set(half.tolist())) for half in np.array_split(drawn, 2)]
        for ours, others in (halves, halves[::-1]):
            borders.append(fitted(ours, even(ours)))
            found.append(rates(others, even(others), borders[-1]))
    accepts, rejects = np.mean(found, axis=0)
    return np.array(borders), (float(accepts), float(rejects))


def within(trials: Trials, speakers: set[str]) -> Trials:
    """Those between these speakers."""
    kept = [at for at, pair in enumerate(trials.pairs) if speakers.issuperset(pair)]
    return Trials(trials.likeness[kept], [trials.pairs[at] for at in kept])


def even(trials: Trials) -> Floats:
    """Weights by which each speaker is there once."""
    return weights(trials, defaultdict(lambda: 1.0))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", nargs="+", type=float, default=[2.0, 3.0, 5.0, 10.0])
    parser.add_argument("--curve", action="store_true", help="both rates at every border")
    parser.add_argument("--held-out", action="store_true", help="the border fitted on others")
    parser.add_argument("--clips", action="store_true", help="how many clips are taken")
    args = parser.parse_args()
    heard = [
        (speaker, clip.name, sound)
        for clip in clips(english_only=False)
        for speaker, sound in voices(clip)
    ]
    if args.clips:
        enrolments(heard)
        return
    encoder = SpeakerEncoder()
    if args.held_out:
        print(
            f"| s of voice | against | wrong names at {SAME_SPEAKER_SIMILARITY}: of trials"
            " | of pairs of speakers | at most | unknown: of trials"
            " | of speakers | at most | fitted on one half | on the other: wrong, % | unknown, % |"
        )
        print("|---" * 11 + "|")
        for s in args.seconds:
            for name, trials in ways_of(pieces(encoder, heard, s), s).items():
                report_held_out(s, name, trials)
        return
    print("| s of voice | against | speakers | trials, true + false | EER, % | 95 % | its border |"
          f" at {SAME_SPEAKER_SIMILARITY}: false accepts, % | false rejects, % |")  # fmt: skip
    print("|---" * 9 + "|")
    for s in args.seconds:
        for name, trials in ways_of(pieces(encoder, heard, s), s).items():
            report(s, name, trials, curve=args.curve)


def ways_of(found: list[Piece], s: float) -> dict[str, Trials]:
    """The trials, by what pieces of ``s`` seconds are held against."""
    known = f"known by {max(s, KNOWN_BY_S):g} s"
    return {"each other": against_each_other(found), known: against_the_known(found, s)}


def report_held_out(s: float, name: str, trials: Trials) -> None:
    """A row of the table of `held_out`."""
    true, taken = trials.true, trials.likeness >= SAME_SPEAKER_SIMILARITY
    speakers = sorted({one for pair in trials.pairs for one in pair})
    cells = [f"{s:g}", name]
    for wrong, asked in ((~true & taken, ~true), (true & ~taken, true)):
        units = {tuple(sorted(trials.pairs[at])) for at in np.flatnonzero(asked)}
        at_fault = {tuple(sorted(trials.pairs[at])) for at in np.flatnonzero(wrong)}
        cells += [f"{wrong.sum()} of {asked.sum()}", f"{len(at_fault)} of {len(units)}"]
        cells.append("" if at_fault else f"{300 / len(units):.0f} %")
    borders, (accepts, rejects) = held_out(trials, speakers)
    low, high = np.percentile(borders, [2.5, 97.5])
    cells += [f"{low:.2f} to {high:.2f}", f"{accepts:.2f}", f"{rejects:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def enrolments(heard: list[tuple[str, str, Block]]) -> None:
    """How many clips are taken, of one voice and of two, by their seconds."""
    models, random = load_models(), np.random.default_rng(0)
    long = [one for one in heard if len(one[2]) >= 10 * SAMPLE_RATE]
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)

    def cut(samples: Block, seconds: float) -> Block:
        at = int(random.integers(len(samples) - round(seconds * SAMPLE_RATE) + 1))
        return samples[at : at + round(seconds * SAMPLE_RATE)]

    def outcome(samples: Block) -> str:
        try:
            enrolment_embedding(models, [samples])
        except SidecarError as error:
            return error.code
        return "taken"

    print("| seconds of voices | clips | taken | refused |\n|---|---|---|---|")
    for seconds in ((3.0,), (5.0,), (9.0,), (3.0, 3.0), (6.0, 3.0), (6.0, 2.0)):
        found: Counter[str] = Counter()
        for _ in range(CLIPS):
            first, second = random.choice(len(long), 2)
            if len(seconds) == 1:
                found[outcome(cut(long[first][2], seconds[0]))] += 1
            elif long[first][0] != long[second][0]:
                parts = [cut(long[first][2], seconds[0]), pause, cut(long[second][2], seconds[1])]
                found[outcome(np.concatenate(parts))] += 1
        taken, words = found.pop("taken", 0), ", ".join(f"{k} {n}" for k, n in found.items())
        spoken = " and ".join(f"{one:g}" for one in seconds)
        print(f"| {spoken} | {taken + found.total()} | {taken} | {words or '–'} |", flush=True)


def report(s: float, name: str, trials: Trials, *, curve: bool) -> None:
    """A row of the table."""
    speakers = sorted({one for pair in trials.pairs for one in pair})
    weight = weights(trials, dict.fromkeys(speakers, 1.0))
    error, border = equal_error(trials, weight)
    low, high = interval(trials, speakers)
    accepts, rejects = rates(trials, weight, SAME_SPEAKER_SIMILARITY)
    true = int(trials.true.sum())
    print(f"| {s:g} | {name} | {len(speakers)} | {true} + {len(trials.pairs) - true} | {error:.2f} "
          f"| {low:.1f} to {high:.1f} | {border:.2f} | {accepts:.2f} | {rejects:.2f} |",
          flush=True)  # fmt: skip
    if curve:
        for at in np.arange(0.3, 0.75, 0.05):
            print(f"    {at:.2f}: %.2f %.2f" % rates(trials, weight, float(at)))


if __name__ == "__main__":
    main()
