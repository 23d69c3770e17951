"""What telling speakers apart costs, and what it is worth: CPU-seconds against errors.

The clips with references for speakers go through the engine at the settings that the service
offers, at a row of steps (seconds between two looks at who speaks), and through the library's own
stream at its default. One process per row; CPU-seconds (user + system) per second of audio,
recognition included, and the wall time beside. BLAS has one thread, as in a worker.

With ``--rounds`` all are measured in turns, and the least of each row is told in the end: other
work makes a round dearer, never cheaper. What a core does in a second of its time stands beside, so
that two machines can be compared by arithmetic per second of audio (GFLOP/s).

    python -m bench.diarization
    python -m bench.diarization --rows library balanced 5.0
    python -m bench.diarization --rows balanced again
    python -m bench.diarization --rows none balanced --rounds 3    # text only beside speakers
    python -m bench.diarization --before ../earlier     # another checkout's 'balanced' besides
    python -m bench.diarization --rows balanced --before ../earlier --rounds 3
    python -m bench.diarization --services --before ../earlier --rounds 3

The row `again` is what another diarization (`POST /v1/jobs/ID/diarize`) makes of `balanced` when it
is told the number of speakers in the reference.

With ``--services`` whole services of both checkouts get the same uploads, with speakers and
without: all processes count, and each service sets the threads of its worker itself.
"""

import argparse
import os
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path

from bench import serving
from bench.accuracy import Hypothesis, library_side
from bench.metrics import Clip, Piece, Scores, check_packages, clips, score

SIZE, ROUNDS = 512, 60
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
ROWS = ("library", "accurate", "balanced", "1.25", "2.5", "5.0", "10.0")


def gigaflops() -> float:
    """Billions of multiplications and additions that one core does in a second of its time: of two
    float32 matrices of 512 by 512, which are in the cache, in a process of its own."""
    measured = [sys.executable, "-m", "bench.diarization", "--one", "gigaflops"]
    done = subprocess.run(
        measured, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}
    )
    return float(done.stdout)


def gigaflops_here() -> float:
    """The best of `ROUNDS`: what else runs on the machine makes a round slower, never faster."""
    import numpy as np

    matrix = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    times_s = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        matrix @ matrix
        times_s.append(time.thread_time() - begun)
    return 2 * SIZE**3 / min(times_s) / 1e9


def engine_row(clip: Clip, row: str) -> Hypothesis:
    """The engine at a setting, or at a step."""
    from sidecar.audio.audio_decoder import open_audio, probe_audio
    from sidecar.diarization import diarizer
    from sidecar.diarization.clustering import SpeakerCount
    from sidecar.diarization.kept_diarization import KeptDiarization
    from sidecar.diarization.rediarization import diarize_again
    from sidecar.engines import moonshine
    from sidecar.interfaces.engine_interface import (
        DiarizationEffort,
        LoadOptions,
        TranscribeOptions,
        TranscriptionRequest,
    )
    from sidecar.transcripts.transcript import Finished, ResumePoint

    options = TranscribeOptions(diarize=row != "none", keeps_diarization=row == "again")
    if row in list(DiarizationEffort):
        options = TranscribeOptions(diarization=DiarizationEffort(row))
    elif row not in ("none", "again"):
        diarizer.STEPS_S = {options.diarization: float(row)}
    engine = moonshine.MoonshineEngine()
    list(engine.load(LoadOptions()))
    with clip.path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 1e5)
        with open_audio(file.fileno(), facts, rate=16_000, max_s=1e5) as audio:
            request = TranscriptionRequest(audio, options, lambda: False)
            *_, kept, last = engine.transcribe(request)
    assert isinstance(last, Finished)
    transcript = last.transcript
    if row == "again":
        assert isinstance(kept, ResumePoint)
        known = KeptDiarization.from_bytes(b64decode(kept.state["data"]))
        people = len({turn[2] for turn in clip.turns or ()})
        count = SpeakerCount(people, people, exact=True)
        found = diarize_again(known, transcript, known.word_ranges, count)
        transcript = found.result.applied(transcript)
    return [
        Piece(segment.start, segment.end, str(segment.speaker), segment.text)
        for segment in transcript.segments
    ]


def measure(row: str) -> None:
    """One row of the table, over all clips."""
    pooled, cpu_s, wall_s, audio_s, found = Scores(), 0.0, 0.0, 0.0, []
    for clip in clips():
        if not clip.turns:
            continue
        begun, wall = time.process_time(), time.perf_counter()
        hypothesis = library_side(clip) if row == "library" else engine_row(clip, row)
        cpu_s += time.process_time() - begun
        wall_s += time.perf_counter() - wall
        audio_s += clip.duration_s
        voices = {piece.speaker for piece in hypothesis}
        found.append(f"{len(voices)}/{len({turn[2] for turn in clip.turns})}")
        pooled += score(clip, hypothesis)
    confusion = 100 * pooled.confusion_s / pooled.speech_s if pooled.speech_s else 0.0
    cost = f"{cpu_s / audio_s:.4f} | {wall_s / audio_s:.3f}"
    cells = f"{cost} | {pooled.row()} | {confusion:.1f} | {' '.join(found)}"
    print(f"| {row} | {cells} |", flush=True)


def run_row(row: str, checkout: Path | None) -> float:
    """Print a row, measured in a process of its own; its CPU-seconds per second of audio."""
    env = os.environ | ONE_THREAD
    if checkout:
        env["PYTHONPATH"] = str(checkout.resolve())
    measured = [sys.executable, "-m", "bench.diarization", "--one", row]
    done = subprocess.run(
        measured, check=True, stdout=subprocess.PIPE, text=True, cwd=checkout, env=env
    )
    cells = [cell.strip() for cell in done.stdout.strip().strip("|").split("|")]
    name = f"before, {row}" if checkout else row
    print(f"| {' | '.join([name, *cells[1:]])} |", flush=True)
    return float(cells[1])


def service_of(checkout: Path, folder: Path) -> serving.Server:
    """The service of a checkout, in its defaults but for its port and its folder."""
    port = serving.free_port()
    settings = {"VIBEVOICE_PORT": str(port), "VIBEVOICE_DATA_DIR": str(folder / "data")}
    env = serving.child_env(PYTHONPATH=str(checkout.resolve()), **settings)
    command = [sys.executable, "-m", "sidecar.main"]
    return serving.Server(command, checkout, env, port, folder / f"{port}.log")


def compare_services(earlier: Path, rounds: int) -> None:
    """Print the least CPU-seconds per second of audio of both services for each clip."""
    least: dict[tuple[str, str, str], float] = {}
    with serving.workshop() as folder:
        for _ in range(rounds):
            for side, checkout in (("before", earlier), ("now", serving.ROOT)):
                with service_of(checkout, folder) as server:
                    for clip in (one for one in clips() if one.turns):
                        for diarize in ("true", "false"):
                            begun = serving.cpu_s(server.tree())
                            server.transcribe(clip.path.read_bytes(), diarize=diarize)
                            cost = (serving.cpu_s(server.tree()) - begun) / clip.duration_s
                            row = clip.name, diarize, side
                            least[row] = min(least.get(row, cost), cost)
    print("| clip | speakers | before, CPU-s/s | now | now ÷ before |\n|---|---|---|---|---|")
    for (name, diarize, side), cost in least.items():
        if side == "now":
            before = least[name, diarize, "before"]
            print(f"| {name} | {diarize} | {before:.4f} | {cost:.4f} | {cost / before:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="ROW")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1, help="how often, all in turns")
    parser.add_argument("--services", action="store_true", help="whole services, with --before")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.services and not args.before:
        parser.error("--services compares with --before FOLDER")
    if args.one:
        print(gigaflops_here()) if args.one == "gigaflops" else measure(args.one)
        return
    names = [f"{clip.name} ({clip.duration_s:.0f} s)" for clip in clips() if clip.turns]
    if not names:
        sys.exit("No clips with references: set VIBEVOICE_BENCH_AUDIO to a folder with some.")
    if not args.services:
        check_packages()
    core = gigaflops()
    print(f"Clips: {', '.join(names)}\n\nOne core does {core:.0f} GFLOP/s (float32).\n")
    if args.services:
        compare_services(args.before, args.rounds)
        return
    print("| row | CPU-s/s | wall s/s | WER | DER | cpWER | confusion | speakers found/real |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[tuple[str, Path | None]] = [(row, None) for row in args.rows]
    if args.before:
        rows.append(("balanced", args.before))
    least = dict.fromkeys(rows, float("inf"))
    for _ in range(args.rounds):
        for row in rows:
            least[row] = min(least[row], run_row(*row))
    last = "before" if args.before else rows[-1][0]
    print(f"\n| row | least CPU-s/s | GFLOP/s | of {last} |\n|---|---|---|---|")
    for row, cpu_s in least.items():
        of = f"{cpu_s / least[rows[-1]]:.2f}"
        name = f"before, {row[0]}" if row[1] else row[0]
        print(f"| {name} | {cpu_s:.4f} | {cpu_s * core:.1f} | {of} |")


if __name__ == "__main__":
    main()
