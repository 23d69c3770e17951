"""Speakers of meetings that are mixed from recordings of one speaker each: errors and their number.

Two to six people take turns of 0.7 to 14 s, some overlap, and nearly half of the people say little:
at most five seconds, less than two at a time. Each meeting is clean, in a room (reverberation of
0.25 to 0.5 s), far (0.4 to 0.9 s, people up to 9 dB apart, noise at 10 to 18 dB), or by telephone.
Every ninth has one person. Only diarization runs. Each is measured without a number of speakers,
with the right one as a hint, and with the right one as another diarization gets it. The clips with
turns of bench.accuracy come besides (VIBEVOICE_BENCH_AUDIO), and recordings of your own.

``--voices`` is a folder with a folder for each speaker, of recordings in which only this one
speaks, as LibriSpeech has them; without it the voices are those of the clips. It needs the extra
'bench' (`pip install -e '.[bench]'`).

    python -m bench.meetings --voices LibriSpeech/test-other
    python -m bench.meetings --voices voices --meetings 18 --recordings mine
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.metrics import Clip, Piece, Scores, check_packages, clips, own_clips, score
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.clustering import SpeakerCount
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_models import SpeakerModels, load_models
from sidecar.transcripts.speaker_turns import SpeakerTurn

PEOPLE = (1, 2, 2, 3, 3, 4, 4, 5, 6)
KINDS = ("clean", "room", "telephone", "far")
LEVEL = 0.06
QUIET_SHARE = 0.45
"""Probability that a person, who is not the first, says little."""
QUIET_S = 4.5
NUMBERS = ("none", "hint", "exact")
Turns = list[tuple[float, float, str]]


@dataclass
class Row:
    """Scores of meetings of one kind, and how many have each difference of the number of
    speakers."""

    scores: Scores = field(default_factory=Scores)
    few: int = 0
    right: int = 0
    many: int = 0

    def add(self, scores: Scores, found: int, real: int) -> None:
        """Add a meeting."""
        self.scores += scores
        self.few, self.right = self.few + (found < real), self.right + (found == real)
        self.many += found > real


def voices_in(folder: Path) -> dict[str, list[Block]]:
    """Utterances of each speaker."""
    return {
        speaker.name: [
            _trimmed(decode_audio_file(path, SAMPLE_RATE))
            for path in sorted(speaker.rglob("*"))
            if path.suffix in (".flac", ".wav", ".mp3", ".opus", ".m4a")
        ]
        for speaker in sorted(folder.iterdir())
        if speaker.is_dir()
    }


def voices_of(known: Iterable[Clip]) -> dict[str, list[Block]]:
    """Utterances of the speakers of clips whose turns do not overlap; a speaker is told by the clip
    and the name there."""
    found: dict[str, list[Block]] = defaultdict(list)
    for clip in known:
        audio = decode_audio_file(clip.path, SAMPLE_RATE)
        for start, end, speaker, _ in clip.utterances or ():
            if end - start > 1:
                part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
                found[f"{clip.name} {speaker}"].append(_trimmed(part))
    return dict(found)


def _trimmed(sound: Block) -> Block:
    """The sound without silence at its ends."""
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    level = np.sqrt(np.square(frames).mean(axis=1))
    if not len(level):
        return sound
    loud = np.flatnonzero(level > 0.04 * np.percentile(level, 95) + 1e-4)
    return sound[loud[0] * 160 : (loud[-1] + 1) * 160] if len(loud) else sound


def meeting(voices: dict[str, list[Block]], seed: int) -> tuple[str, Block, Turns]:
    """A meeting: its kind, samples at 16 kHz, and turns. The same ``seed`` gives the same one."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    people = random.choice(sorted(voices), min(PEOPLE[seed % len(PEOPLE)], len(voices)), False)
    quiet = {str(one) for one in people[1:] if random.random() < QUIET_SHARE}
    length_s = random.uniform(60, 120)
    spoken_s = dict.fromkeys(map(str, people), 0.0)
    parts: list[tuple[int, Block, str]] = []
    turns: Turns = []
    at_s, last = 0.3, ""
    while at_s < length_s:
        may = [one for one in spoken_s if one not in quiet or spoken_s[one] < QUIET_S]
        who = str(random.choice([one for one in may if one != last] or may))
        shortest, longest = (
            (0.6, 1.9) if who in quiet else [(0.7, 2.5), (2, 6), (5, 14)][random.integers(3)]
        )
        sound = _utterance(voices[who], random.uniform(shortest, longest), random)
        overlaps = turns and who != last and random.random() < 0.15
        gap_s = random.uniform(-1.2, -0.2) if overlaps else random.uniform(0.05, 0.7)
        start = max(0.1, at_s + gap_s)
        end = start + len(sound) / SAMPLE_RATE
        parts.append((round(start * SAMPLE_RATE), sound, who))
        turns.append((start, end, who))
        spoken_s[who] += end - start
        at_s, last = max(at_s, end), who
    tracks = {who: np.zeros(round((at_s + 1) * SAMPLE_RATE), np.float32) for who in spoken_s}
    for begin, sound, who in parts:
        tracks[who][begin : begin + len(sound)] += sound
    return kind, _recorded(list(tracks.values()), kind, random), turns


def _utterance(sounds: list[Block], length_s: float, random: np.random.Generator) -> Block:
    """A part of one of the sounds, at a level that differs by some decibels."""
    sound = sounds[random.integers(len(sounds))]
    length = min(len(sound), round(length_s * SAMPLE_RATE))
    begin = random.integers(len(sound) - length + 1)
    part = _trimmed(sound[begin : begin + length]).copy()
    edge = min(len(part) // 4, 240)
    part[:edge] *= np.linspace(0, 1, edge)
    part[len(part) - edge :] *= np.linspace(1, 0, edge)
    louder = 10 ** (random.normal(0, 2.5) / 20)
    level = float(np.sqrt(np.square(part).mean())) + 1e-9
    return as_block(part * (LEVEL * louder / level))


def _recorded(tracks: list[Block], kind: str, random: np.random.Generator) -> Block:
    """What a microphone hears of people who speak at once."""
    if kind == "clean":
        return as_block(np.sum(tracks, axis=0))
    if kind == "telephone":
        sound = _filtered(np.sum(tracks, axis=0), 300, 3400)
        companded = np.log1p(255 * np.minimum(np.abs(sound) * 3, 1)) / np.log(256)
        steps = np.round(companded * 127) / 127
        return as_block(np.sign(sound) * np.expm1(steps * np.log(256)) / 255 / 3)
    far = kind == "far"
    heard = np.zeros(len(tracks[0]))
    for track in tracks:
        echo = _room(random, *((0.4, 0.9, 0.8, 1.8) if far else (0.25, 0.5, 0.4, 0.9)))
        size = 1 << (len(track) + len(echo)).bit_length()
        wet = np.fft.irfft(np.fft.rfft(track, size) * np.fft.rfft(echo, size), size)[: len(track)]
        heard += wet * (10 ** (random.uniform(-9, 0) / 20) if far else 1)
    snr_db = random.uniform(10, 18) if far else 25
    noise = np.convolve(random.standard_normal(len(heard)), np.exp(-np.arange(40) / 8), "same")
    noise *= np.sqrt(np.square(heard).mean() / np.square(noise).mean()) * 10 ** (-snr_db / 20)
    return as_block(heard + noise)


def _room(
    random: np.random.Generator, shortest_s: float, longest_s: float, least: float, most: float
) -> Block:
    """An impulse response: the direct sound, and noise that decays by 60 dB in the time of
    reverberation, with ``least`` to ``most`` times the direct sound's amplitude."""
    length = round(random.uniform(shortest_s, longest_s) * SAMPLE_RATE)
    tail = random.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail[:48] = 0
    tail *= random.uniform(least, most) / np.sqrt(np.square(tail).sum())
    tail[0] = 1
    return as_block(tail)


def _filtered(sound: Block, low_hz: float, high_hz: float) -> Block:
    spectrum = np.fft.rfft(sound)
    rates = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    spectrum[(rates < low_hz) | (rates > high_hz)] = 0
    return as_block(np.fft.irfft(spectrum, len(sound)))


def as_block(samples: npt.NDArray[np.floating[Any]]) -> Block:
    """Samples in single precision."""
    found: Block = samples.astype(np.float32)
    return found


def diarized(models: SpeakerModels, sound: Block, people: int) -> Iterator[list[SpeakerTurn]]:
    """Turns for each of `NUMBERS`."""
    diarizer = Diarizer(models)
    for begin in range(0, len(sound), 10 * SAMPLE_RATE):
        diarizer.feed(sound[begin : begin + 10 * SAMPLE_RATE])
    diarizer.finish()
    yield diarizer.turns
    for exact in (False, True):
        diarizer.found.cluster_anew(SpeakerCount(people, people, exact=exact))
        yield diarizer.turns


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", type=Path, help="a folder for each speaker")
    parser.add_argument("--meetings", type=int, default=72)
    parser.add_argument(
        "--recordings", type=Path, help="recordings with turns: talk.wav, talk.rttm"
    )
    given = parser.parse_args()
    check_packages()
    models = load_models()
    known = clips()
    voices = voices_in(given.voices) if given.voices else voices_of(known)
    if not voices:
        raise SystemExit("No voices: name a folder with a folder for each speaker, by --voices.")
    rows: dict[tuple[str, str], Row] = defaultdict(Row)

    def measure(kind: str, name: str, sound: Block, turns: Turns) -> None:
        end_s = len(sound) / SAMPLE_RATE
        clip = Clip(name, Path(name), end_s, "en", None, turns, None)
        people = len({who for *_, who in turns})
        for number, found in zip(NUMBERS, diarized(models, sound, people), strict=True):
            pieces = [Piece(one.start, one.end, str(one.label), "") for one in found]
            labels = len({one.label for one in found})
            rows[kind if people > 1 else "one person", number].add(
                score(clip, pieces), labels, people
            )

    for seed in range(given.meetings):
        kind, sound, turns = meeting(voices, seed)
        measure(kind, f"meeting {seed}", sound, turns)
    for clip in [*known, *(own_clips(given.recordings) if given.recordings else ())]:
        if clip.turns:
            measure("clips", clip.name, decode_audio_file(clip.path, SAMPLE_RATE), clip.turns)
    print("| | number given | DER % | of it confusion | right number | too few | too many |")
    print("|---|---|---|---|---|---|---|")
    for (kind, number), row in sorted(rows.items()):
        confusion = 100 * row.scores.confusion_s / row.scores.speech_s
        cells = f"{row.scores.der:.1f} | {confusion:.1f} | {row.right} | {row.few} | {row.many}"
        print(f"| {kind} | {number} | {cells} |")


if __name__ == "__main__":
    main()
