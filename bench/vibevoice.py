"""VibeVoice-ASR against its peers. Run ``python -m bench.vibevoice [--only P1 P3 ...]``.

The same checkpoint and the same audio, all sides in turns in one run, the same text asserted: our
engine / plain processor and ``model.generate(sample=False)`` / ``transformers serve`` (its chat
endpoint). Medians after a warm-up, one thread a side. On small checkpoints that the tests train:

P1   our engine / plain generate, wall time from the file to the segments.
P2   the same upload over HTTP, minus our engine in a plain process.
P3   our server / transformers serve.
P8   time to the first segment: our engine's first event, our server's ``GET /jobs/{id}`` / the
     stream of transformers serve.
P9   from a cancel at a random moment to the engine's end, in each phase; memory after it.
P11  load and first transcript / from_pretrained and its first transcript.
P12  memory of the service before the first load, and over ten loads and unloads.
P15  a checkpoint that repeats itself: where we stop, what is kept; plain generate goes on.

With ``--random-weights``, on a checkpoint of the released architecture with random weights, written
here (``--size full``: 16.7 GB, a GPU is needed):

P4   decoding: tokens per second / what the measured copy rate allows / plain generate.
P5   an hour end to end: encode and prefill measured, decode measured at both ends and scaled.
P16  the same in int8 and int4 / plain bf16 generate.

Goals are those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench import serving, vibevoice_lifetime
from bench.vibevoice_sides import normal
from bench.vibevoice_speed import GOALS as SPEED
from bench.vibevoice_speed import speed

SMALL = (*SPEED, "P9", "P11", "P12", "P15")
CARD = ("P4", "P5", "P16")
CANCEL_MINUTES = 4.0


def small(folder: Path, wanted: tuple[str, ...], given: argparse.Namespace) -> None:
    """The figures that a trained checkpoint gives."""
    sys.path.insert(0, str(serving.ROOT / "tests" / "support"))
    import soundfile
    import tiny_vibevoice

    wavs = {name: tiny_vibevoice.clip_wav(name) for name in tiny_vibevoice.CLIPS}
    lengths = {name: soundfile.info(path).duration for name, path in wavs.items()}
    common = {"precision": given.precision, "device": given.device}
    if faster := [goal for goal in SPEED if goal in wanted]:
        clips = {name: (wavs[name], lengths[name]) for name in wavs}
        speed(
            folder, tiny_vibevoice.checkpoint("tiny"), clips, faster, rounds=given.rounds, **common
        )
    if "P9" in wanted:
        vibevoice_lifetime.cancelling(
            folder,
            tiny_vibevoice.checkpoint("tiny"),
            list(wavs.values()),
            minutes=CANCEL_MINUTES,
            times=given.cancels,
            **common,
        )
    first = wavs[tiny_vibevoice.CLIPS[0]]
    if "P11" in wanted:
        folder_of = tiny_vibevoice.checkpoint("tiny")
        vibevoice_lifetime.loading(folder_of, first, rounds=given.rounds, **common)
    if "P12" in wanted:
        folder_of = tiny_vibevoice.checkpoint("tiny")
        vibevoice_lifetime.memory_of_a_life(folder, folder_of, first, rounds=10, **common)
    if "P15" in wanted:
        said = tiny_vibevoice.answers("loop")[tiny_vibevoice.LOOPED]
        whole = normal([(s["Start"], s["End"], s.get("Speaker"), s["Content"]) for s in said])
        looped = tiny_vibevoice.checkpoint("loop")
        vibevoice_lifetime.repeating(looped, wavs[tiny_vibevoice.LOOPED], whole, **common)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=(*SMALL, *CARD), metavar="P")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of all sides")
    parser.add_argument("--cancels", type=int, default=20, help="P9: moments per phase")
    parser.add_argument("--random-weights", action="store_true", help="P4, P5, P16 instead")
    parser.add_argument(
        "--size",
        choices=("tiny", "mid", "full"),
        help="of the random weights; else on a GPU full, on a CPU mid",
    )
    parser.add_argument(
        "--minutes", type=float, nargs="+", help="with --random-weights: lengths of the audio"
    )
    parser.add_argument("--tokens", type=int, default=128, help="P4: tokens decoded per round")
    parser.add_argument("--weights", type=Path, help="folder to keep the random weights in")
    given = parser.parse_args()
    wanted = tuple(given.only or (CARD if given.random_weights else SMALL))
    if given.random_weights != bool(set(wanted) & set(CARD)) or (
        given.random_weights and set(wanted) & set(SMALL)
    ):
        parser.error(f"{', '.join(CARD)} are measured with --random-weights, nothing else is")
    if given.size and not given.random_weights:
        parser.error("a size is for --random-weights only")
    if given.size == "full" and given.device == "cpu":
        parser.error(
            "the full size (8.3 billion parameters) is not measured on a CPU: one token would take "
            "seconds; use --device cuda, or --size mid, which runs the same code"
        )
    given.precision = given.precision or ("fp32" if given.device == "cpu" else "bf16")
    os.environ["OMP_NUM_THREADS"] = "1" if given.device == "cpu" else "8"
    print(serving.machine())
    with serving.workshop() as folder:
        if given.random_weights:
            from bench import vibevoice_card

            vibevoice_card.card(folder, wanted, given)
        else:
            small(folder, wanted, given)


if __name__ == "__main__":
    main()
