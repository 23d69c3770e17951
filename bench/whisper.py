"""Our Whisper engine beside plain faster-whisper: the same recording, the same weights, one run.

Released weights for ``published`` (base, from packages of the extra 'test'). The others have real
widths and random weights: what is written is noise, so each window is bounded to ``--tokens``, as
many as thirty seconds of speech take, and loops and silence are not looked for. Each side is a
process of its own, one after the other:
CPU-seconds and seconds for each second of audio (the best of ``--runs``), windows that were
encoded, memory after the load and at its peak.

    python -m bench.whisper
    python -m bench.whisper --sizes tiny base small --threads 1 --tokens 80

``plain`` is faster-whisper with a window every thirty seconds (its loop over a recording goes by
the times that the model writes, which random ones write at random), ``batched`` its
`BatchedInferencePipeline`, which looks for speech first, one window at a time, ``batched 4`` the
same with four; ``ours`` is without speakers, ``speakers`` with them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.metrics import clips
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)

RATE, LANGUAGE = 16_000, "en"
SHAPES = {
    "tiny": (384, 4, 6, 80),
    "base": (512, 6, 8, 80),
    "small": (768, 12, 12, 80),
    "medium": (1024, 24, 16, 80),
}
"""Width, layers of encoder and decoder, heads, mel bands: of the published configurations."""
SIDES = ("plain", "batched", "batched 4", "ours", "speakers")
EOT, VOCABULARY = 50_257, 51_865
PUBLISHED = "published"


def build(size: str, folder: Path) -> None:
    """A model of CTranslate2's with random weights, and a tokenizer that goes with it; or the
    published one."""
    if size == PUBLISHED:
        sys.path.append("tests/support")  # of its own imports
        from tests.support import whisper_base

        folder.symlink_to(whisper_base.model())
        return
    from ctranslate2.converters.transformers import WhisperLoader
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    width, layers, heads, mels = SHAPES[size]
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY,
            num_mel_bins=mels,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
        )
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"word{number}" for number in range(len(alphabet), EOT - 1)), ""]
    tokenizer = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    languages = [f"<|{code}|>" for code in _LANGUAGE_CODES if code != "yue"]
    marks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *languages]
    special += [f"<|{mark}|>" for mark in marks]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    words += special
    words += [f"<|{0.02 * at:.2f}|>" for at in range(VOCABULARY - len(words))]
    loader = WhisperLoader()
    spec = loader.get_model_spec(model)
    spec.register_vocabulary(words)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], [EOT]
    spec.config.lang_ids = list(range(EOT + 2, EOT + 2 + len(languages)))
    half = range(layers // 2, layers)
    spec.config.alignment_heads = [(layer, head) for layer in half for head in range(heads)][:10]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir()
    spec.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": mels}))


class Sound:
    """A recording as the engine gets it."""

    def __init__(self, samples: Block) -> None:
        self._samples, self.total_s = samples, len(samples) / RATE

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), 50_000):
            yield self._samples[at : at + 50_000]


def side(name: str, folder: str, precision: str, tokens: int, runs: int, least_s: float) -> None:
    """Run one side and print what it took."""
    from faster_whisper import WhisperModel

    windows = 0
    encode = WhisperModel.encode

    def counted(model: WhisperModel, features: np.ndarray) -> Any:
        nonlocal windows
        windows += features.shape[0] if features.ndim == 3 else 1
        return encode(model, features)

    WhisperModel.encode = counted
    sound = np.zeros(0, np.float32)
    for clip in clips():
        if clip.language == LANGUAGE and len(sound) < least_s * RATE and clip.duration_s < 120:
            sound = np.concatenate([sound, decode_audio_file(clip.path, RATE)])
    sound = sound[: round(least_s * RATE)]
    work = (
        ours(name, folder, precision, tokens)
        if name in SIDES[3:]
        else plain(name, folder, precision, tokens)
    )
    loaded_mb = peak_mb()
    best = None
    for _ in range(runs):
        windows, cpu, wall = 0, time.process_time(), time.perf_counter()
        work(sound)
        seconds = len(sound) / RATE
        took = (time.process_time() - cpu) / seconds, (time.perf_counter() - wall) / seconds
        best = took if best is None else min(best, took)
    print(json.dumps([*(best or ()), windows, loaded_mb, peak_mb(), len(sound) / RATE]))


def peak_mb() -> float:
    """Of this process; `getrusage` would count the one that started it (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def plain(name: str, folder: str, precision: str, tokens: int) -> Callable[[Block], None]:
    """faster-whisper as it is."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    threads = int(os.environ["OMP_NUM_THREADS"])
    model = WhisperModel(folder, device="cpu", compute_type=precision, cpu_threads=threads)
    how: dict[str, Any] = {
        "language": LANGUAGE,
        "temperature": 0.0,
        "without_timestamps": True,
        "word_timestamps": True,
        "max_new_tokens": 2 * tokens - 4,  # CTranslate2 writes half of the sum with the prompt
    }
    batch = 4 if name.endswith("4") else 1
    pipeline = BatchedInferencePipeline(model)

    def run(sound: Block) -> None:
        if name == "plain":
            end = len(sound) / RATE
            windows = [(at, min(end, at + 30.0)) for at in np.arange(0.0, end, 30.0)]
            how["clip_timestamps"] = [{"start": start, "end": stop} for start, stop in windows]
        for _ in pipeline.transcribe(sound, batch_size=batch, **how)[0]:
            pass

    return run


def ours(name: str, folder: str, precision: str, tokens: int) -> Callable[[Block], None]:
    """The engine; with random weights without its looks at loops: such words are nothing else."""
    from sidecar.engines import create_engine
    from sidecar.engines.whisper import whisper_decoder

    if Path(folder).name != PUBLISHED:
        whisper_decoder.MAX_POSITIONS = 2 * tokens
        whisper_decoder.tokens_before_loop = lambda *_, **__: None
    engine = create_engine("whisper")
    ours = {"float32": Precision.FP32}.get(precision, Precision.INT8)
    for _ in engine.load(LoadOptions(ours, folder, "cpu")):
        pass
    options = TranscribeOptions(language=LANGUAGE, diarize=name == "speakers")

    def run(sound: Block) -> None:
        for _ in engine.transcribe(TranscriptionRequest(Sound(sound), options, lambda: False)):
            pass

    return run


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", nargs="+", default=["tiny", "base", "small"], choices=[*SHAPES, PUBLISHED]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--precision", default="int8", choices=["int8", "float32"])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--sides", nargs="+", default=SIDES)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        name, folder = given.side
        side(name, folder, given.precision, given.tokens, given.runs, given.seconds)
        return
    print("per second of audio")
    print(f"{'':16}{'CPU-s':>8}{'s':>8}{'÷ plain':>9}{'windows':>9}{'MB':>7}{'peak':>7}")
    with tempfile.TemporaryDirectory() as home:
        for size in given.sizes:
            folder = Path(home) / size
            build(size, folder)
            first = 0.0
            for name in given.sides:
                row = measured(name, folder, given)
                first = first or row[0]
                cpu, wall, windows, loaded, peak, _ = row
                print(
                    f"{size + ' ' + name:16}{cpu:8.4f}{wall:8.4f}{cpu / first:9.2f}"
                    f"{windows:9}{loaded:7.0f}{peak:7.0f}",
                    flush=True,
                )


def measured(name: str, folder: Path, given: argparse.Namespace) -> list[float]:
    """One side in a process of its own."""
    words = ["--side", name, str(folder), "--tokens", str(given.tokens), "--runs", str(given.runs)]
    words += ["--precision", given.precision, "--seconds", str(given.seconds)]
    run = subprocess.run(
        [sys.executable, "-m", "bench.whisper", *words],
        env=os.environ | {"OMP_NUM_THREADS": str(given.threads)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return list(json.loads(run.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
