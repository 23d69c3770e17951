"""Errors and cost of separate channels beside those of the mix, over calls of two people.

Each call has one person in each channel, made from the utterances of a clip with two speakers: who
speaks next begins before the other has ended. Each is measured as it is, and with bleed: each
microphone has the other person, too, 20 dB lower and 8 ms later. All ways of `channels` go through
``POST /transcribe`` of one service in turn. WER of the text from start to end (words in the order
of the talk), cpWER (meeteval: words of the right speaker), DER (0.25 s collar, overlap scored), and
seconds of processor for a second of the call.

The clips are those of bench.accuracy (VIBEVOICE_BENCH_AUDIO); without them, two recordings of the
moonshine-voice wheel at once. It needs the extra 'bench' (`pip install -e '.[bench]'`).

    python -m bench.channels
    python -m bench.channels --only dialog --overlap 0
"""

from __future__ import annotations

import io
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench import serving
from bench.metrics import Clip, Piece, Scores, check_packages, clips, score, wheel_clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file

RATE = 16_000
MAX_UTTERANCES = 12
"""The first so many of a clip."""
GAP_S = 0.3
"""Pause between two utterances of one person."""
NOISE = 0.0003
"""Level of the noise of each microphone: -70 dB."""
BLEED, BLEED_S = 0.1, 0.008
WAYS = {
    "mix": {"channels": "mix"},
    "separate": {"channels": "separate"},
    "separate, one person each": {"channels": "separate", "diarize": "false"},
}


@dataclass(frozen=True)
class Call:
    """A call: samples of each channel, shape (2, samples), and the clip of its references."""

    channels: Block
    clip: Clip

    def recording(self, bleed: bool) -> bytes:
        """The call as a WAV."""
        late = np.zeros((2, round(BLEED_S * RATE)), np.float32)
        other = np.concatenate((late, self.channels[::-1]), axis=1)[:, : self.channels.shape[1]]
        noise = np.random.default_rng(0).normal(0, NOISE, self.channels.shape)
        heard = self.channels + (BLEED * other if bleed else 0) + noise
        content = io.BytesIO()
        with wave.open(content, "wb") as file:
            file.setparams((2, 2, RATE, 0, "NONE", "NONE"))
            samples = np.clip(heard, -1, 1).T * 32767
            file.writeframes(samples.astype("<i2").tobytes())
        return content.getvalue()


def call_of(clip: Clip, overlap_s: float) -> Call:
    """The call of a clip with two speakers, the next of whom begins ``overlap_s`` too early, or at
    half of a shorter utterance."""
    assert clip.utterances is not None
    audio = decode_audio_file(clip.path, RATE)
    people = sorted({who for _, _, who, _ in clip.utterances})
    channels = np.zeros((2, len(audio) + RATE * len(clip.utterances)), np.float32)
    placed: list[tuple[float, float, str, str]] = []
    ends = dict.fromkeys(people, 0.0)
    for start, end, who, text in sorted(clip.utterances)[:MAX_UTTERANCES]:
        begin = ends[who] and ends[who] + GAP_S
        if placed and placed[-1][2] != who:
            before_s = placed[-1][1] - placed[-1][0]
            early_s = min(overlap_s, before_s / 2, (end - start) / 2)
            begin = max(begin, placed[-1][1] - early_s)
        at, sound = round(begin * RATE), audio[round(start * RATE) : round(end * RATE)]
        channels[people.index(who), at : at + len(sound)] += sound
        ends[who] = begin + end - start
        placed.append((begin, ends[who], who, text))
    return _call(clip, channels[:, : round((max(ends.values()) + GAP_S) * RATE)], placed)


def wheel_call() -> Call:
    """Two people of the wheel's who speak at once."""
    both = [clip for clip in wheel_clips() if clip.text][:2]
    sounds = [decode_audio_file(clip.path, RATE) for clip in both]
    channels = np.zeros((2, max(map(len, sounds))), np.float32)
    for row, sound in zip(channels, sounds, strict=True):
        row[: len(sound)] = sound
    placed = [(0.0, clip.duration_s, clip.name, clip.text or "") for clip in both]
    return _call(both[1], channels, placed)


def _call(clip: Clip, channels: Block, placed: list[tuple[float, float, str, str]]) -> Call:
    duration_s = channels.shape[1] / RATE
    turns = [(start, end, who) for start, end, who, _ in placed]
    text = " ".join(text for *_, text in sorted(placed))
    return Call(channels, Clip(clip.name, clip.path, duration_s, "en", text, turns, placed))


def calls(only: str, overlap_s: float) -> Iterator[Call]:
    """The calls."""
    found = [one for one in clips() if one.utterances and only in one.name]
    pairs = [one for one in found if len({who for _, _, who, _ in one.utterances or ()}) == 2]
    if pairs or only:
        yield from (call_of(one, overlap_s) for one in pairs)
    else:
        yield wheel_call()


def main() -> None:
    """Measure and print."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--only", default="", help="part of a clip's name")
    parser.add_argument(
        "--overlap", type=float, default=1.0, metavar="S", help="seconds of two people at once"
    )
    args = parser.parse_args()
    check_packages()
    print(
        "| call | bleed | channels | WER | DER | cpWER | CPU-s/s |\n|---|---|---|---|---|---|---|"
    )
    pooled = {(bleed, way): Scores() for bleed in (False, True) for way in WAYS}
    spent_s, audio_s, count = dict.fromkeys(pooled, 0.0), 0.0, 0
    with serving.workshop() as folder, serving.ours(folder, engine="moonshine") as server:
        server.transcribe(serving.clip("beckett.wav").read_bytes())  # it loads the engine
        for call in calls(args.only, args.overlap):
            count, audio_s = count + 1, audio_s + call.clip.duration_s
            for (bleed, way), scores in pooled.items():
                print(f"{call.clip.name}: {way} …", file=sys.stderr)
                begun_s = serving.cpu_s(server.tree())
                answer = server.transcribe(call.recording(bleed), **WAYS[way])
                cost_s = serving.cpu_s(server.tree()) - begun_s
                pieces = [
                    Piece(one["start_time"], one["end_time"], one["speaker"], one["text"])
                    for one in answer["segments"]
                ]
                found = score(call.clip, pieces)
                scores += found
                spent_s[bleed, way] += cost_s
                print(_row(call.clip.name, bleed, way, found, cost_s / call.clip.duration_s))
    for (bleed, way), scores in pooled.items():
        name = f"**pooled, {count}**"
        print(_row(name, bleed, way, scores, spent_s[bleed, way] / max(audio_s, 1e-9)))


def _row(name: str, bleed: bool, way: str, scores: Scores, cost: float) -> str:
    cells = (name, "yes" if bleed else "no", way, scores.row())
    return f"| {' | '.join(cells)} | {cost:.3f} |"


if __name__ == "__main__":
    main()
