"""How surely the embedded engine notices that a recording is not in English (`language_doubtful`).

Each folder is a row: how many of its recordings have words enough to be judged, how many of those
are warned of, and the mean logarithmic likelihood of a token in the least sure, the median and the
surest. Short files (prompts of a telephone system) are joined to recordings of ``--join`` seconds.

    python -m bench.doubtful_language LibriSpeech/test-other
    python -m bench.doubtful_language --join 15 /usr/share/asterisk/sounds/es_MX_f_Allison
    python -m bench.doubtful_language --noise 5 LibriSpeech/test-other    # white noise at 5 dB
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.diarizer import SPEECH_STEP_S, Diarizer
from sidecar.diarization.speaker_models import SpeakerModels, load_models
from sidecar.engines.moonshine.moonshine_decoder import SAMPLE_RATE
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineRecognizer, load_recognizer
from sidecar.engines.moonshine.moonshine_transcription import MoonshineTranscription
from sidecar.interfaces.engine_interface import TranscribeOptions, TranscriptionRequest
from sidecar.transcripts.language_detection import LEAST_TOKENS, Confidence

SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".mp4"}
LONGEST_S = 60
"""So much of a recording is heard."""
PAUSE_S = 0.4


class Recording:
    """Samples as an audio stream."""

    def __init__(self, samples: Block) -> None:
        self._samples = samples
        self.total_s: float | None = len(samples) / SAMPLE_RATE

    def __iter__(self) -> Iterator[Block]:
        yield self._samples


def recordings(folder: Path, join_s: float, every: int, first: int) -> Iterator[Block]:
    """Those of a folder, short ones joined."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    parts: list[Block] = []
    for path in found[first::every]:
        samples = decode_audio_file(path, SAMPLE_RATE)[: LONGEST_S * SAMPLE_RATE]
        parts += [samples, np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)]
        if sum(map(len, parts)) >= join_s * SAMPLE_RATE:
            yield np.concatenate(parts)
            parts = []


def confidence(
    recognizer: MoonshineRecognizer, models: SpeakerModels, samples: Block
) -> Confidence:
    """Of the engine in what it makes of a recording."""
    follower = Diarizer(models, SPEECH_STEP_S, tell_apart=False)
    options = TranscribeOptions(diarize=False)
    request = TranscriptionRequest(Recording(samples), options, lambda: False)
    work = MoonshineTranscription(recognizer, follower, request)
    list(work.events())
    return work.confidence


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--join", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--every", type=int, default=1, help="each so manieth recording")
    parser.add_argument("--first", type=int, default=0, help="from that one on")
    parser.add_argument("--noise", type=float, metavar="DB", help="with white noise below speech")
    args = parser.parse_args()
    recognizer, models, chance = load_recognizer(), load_models(), np.random.default_rng(1)
    print("| folder | recordings | judged | warned of | least sure, median, surest |")
    print("|---|---|---|---|---|", flush=True)
    for folder in args.folders:
        count, found = 0, list[Confidence]()
        for samples in recordings(folder, args.join, args.every, args.first):
            count += 1
            if args.noise is not None:
                loud = np.sqrt(np.square(samples).mean()) * 10 ** (-args.noise / 20)
                samples = samples + chance.normal(0, loud, len(samples)).astype(np.float32)
            heard = confidence(recognizer, models, samples)
            if heard.tokens >= LEAST_TOKENS:
                found.append(heard)
        means = [one.total / one.tokens for one in found] or [float("nan")]
        spread = ", ".join(f"{one:.2f}" for one in (min(means), np.median(means), max(means)))
        warned = sum(one.doubtful for one in found)
        print(f"| {folder.name} | {count} | {len(found)} | {warned} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
