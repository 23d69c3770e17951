"""Memory and speed over a long recording. Run ``python -m bench.long --minutes 180``.

The wheel's clips (three voices) go round until ``--minutes``; the file is named to a fresh server
by its path, the job is watched until it ends. Every second the resident memory of the API process
and of the engine's process is taken, together with how far the job is. The comparison is with the
same run's own first tenth: memory that does not depend on the length stays where it was there.
Also printed: the real-time factor and the CPU-seconds per second of audio, the number of speakers
(the clips have three; more means that one voice was taken for several), the first segment's moment.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import serving
from bench.serving import Server, ours, table, verdict

GOAL_MB = 1000.0
MARKS = (0.10, 0.25, 0.50, 1.00)


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of the run; memory in MB."""

    fraction: float
    api: float
    worker: float


@dataclass(frozen=True, slots=True)
class Run:
    """What came out of it."""

    samples: list[Sample]
    seconds: float
    cpu_s: float
    first_segment_s: float
    segments: int
    speakers: int


def follow(server: Server, recording: Path, diarize: bool) -> Run:
    """Have a recording transcribed, and look on."""
    request = {"audio_path": str(recording), "diarize": diarize}
    headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
    begun = time.perf_counter()
    job = server.request("POST", "/transcribe", json.dumps(request).encode(), headers)
    samples: list[Sample] = []
    first: float | None = None
    while True:
        job = server.request("GET", f"/jobs/{job['id']}")
        now = time.perf_counter() - begun
        if first is None and job["segments"]:
            first = now
        samples.append(sample(server, job["progress"]["fraction"] or 0.0))
        if job["state"] not in ("queued", "running"):
            break
        time.sleep(1.0 if first is not None else 0.1)
    if job["state"] != "done":
        raise RuntimeError(f"the job ended as {job['state']}: {job.get('error')}")
    metadata = job["result"]["metadata"]
    worker = psutil.Process(server.request("GET", "/health")["worker_pid"]).cpu_times()
    cpu_s = worker.user + worker.system + worker.children_user + worker.children_system
    return Run(samples, now, cpu_s, first or now, len(job["segments"]), metadata["num_speakers"])


def sample(server: Server, fraction: float) -> Sample:
    """The memory of now."""
    worker = server.request("GET", "/health")["worker_pid"]
    engine = [psutil.Process(worker)] if worker and psutil.pid_exists(worker) else []
    return Sample(fraction, serving.rss([psutil.Process(server.pid)]), serving.rss(engine))


def at(samples: list[Sample], fraction: float) -> Sample:
    """The first sample that had got so far."""
    return next((one for one in samples if one.fraction >= fraction), samples[-1])


def main() -> None:
    """Make the recording, follow it, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="length (the goal: 180)")
    parser.add_argument("--no-speakers", action="store_true", help="without diarization")
    parser.add_argument("--engine", default="moonshine", help="'whisper' with --model, too")
    parser.add_argument("--model", default="", metavar="FOLDER", help="the engine's model")
    given = parser.parse_args()
    print(serving.machine())
    settings = {"engine": given.engine, "max_audio_hours": f"{given.minutes / 60 + 1:.1f}"}
    if given.model:
        settings["model_path"] = given.model
    with serving.workshop() as folder, ours(folder, **settings) as server:
        recording = serving.looped(folder, given.minutes * 60, "wav")
        run = follow(server, recording, not given.no_speakers)
    tenth = at(run.samples, MARKS[0])
    rows = []
    for mark in MARKS:
        here = at(run.samples, mark)
        growth = here.worker / tenth.worker if tenth.worker else float("nan")
        rows.append((f"{mark:.0%}", f"{here.api:.0f}", f"{here.worker:.0f}", f"{growth:.2f}"))
    peak = max(one.api + one.worker for one in run.samples)
    table(
        f"memory: {given.minutes:g} min of audio",
        ("of the audio", "API MB", "engine MB", "engine / at 10 %"),
        rows,
    )
    audio_s = given.minutes * 60
    table(
        "the run",
        ("quantity", "value", "goal"),
        [
            ("peak of API + engine, MB", f"{peak:.0f}", verdict(peak, GOAL_MB)),
            ("real-time factor", f"{run.seconds / audio_s:.3f}", ""),
            ("CPU-seconds of the engine per second", f"{run.cpu_s / audio_s:.3f}", ""),
            ("segments", f"{run.segments}", ""),
            ("speakers (3 voices)", f"{run.speakers}", ""),
            ("first segment after, s", f"{run.first_segment_s:.1f}", ""),
            ("first segment / total", f"{run.first_segment_s / run.seconds:.3f}", ""),
        ],
    )


if __name__ == "__main__":
    main()
