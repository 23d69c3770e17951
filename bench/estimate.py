"""``python -m bench.estimate``: how well the wait of jobs is predicted, by what was measured
(`jobs.duration_prediction`) and by the constant that counted before anything was, on the same jobs
of one run.

A service works on a few recordings of mixed lengths, one after the other, and is started anew, so
that what it knows is what it kept. Then recordings come at once. What each is told of its wait
once all are there is held against when it begins; the constant's word is the sum of `pace.GUESS`
for those before it. Errors are relative: |predicted - waited| / waited.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

from bench.serving import FORM_TYPE, Server, form, looped, ours, workshop
from sidecar.jobs.duration_prediction import DEFAULT_WORK_PER_AUDIO_S

LOOK_S = 0.02
ENGINES: dict[str, dict[str, str]] = {
    "scripted, 10 times as fast as speech": {"engine": "scripted", "scripted_speed": "10"},
    "scripted, 100 times": {"engine": "scripted", "scripted_speed": "100"},
    "embedded": {"engine": "moonshine"},
}


def submit(server: Server, recording: Path) -> str:
    """A job's id."""
    headers = {"Content-Type": FORM_TYPE}
    job = server.request("POST", "/v1/jobs", form(recording.read_bytes()), headers)
    return str(job["id"])


def jobs(server: Server) -> dict[str, Any]:
    """All jobs by their ids."""
    return {job["id"]: job for job in server.request("GET", "/v1/jobs?limit=100")["jobs"]}


def warm_up(server: Server, recordings: list[Path]) -> None:
    """Have it work on these, one after the other."""
    for recording in recordings:
        job_id = submit(server, recording)
        while jobs(server)[job_id]["state"] in ("queued", "running"):
            time.sleep(LOOK_S)


def errors(server: Server, recordings: list[tuple[Path, int]]) -> tuple[list[float], list[float]]:
    """Relative errors of what was said and of the constant, for all but the first that come."""
    ids = [submit(server, recording) for recording, _ in recordings]
    asked, states = time.monotonic(), jobs(server)
    told = {one: states[one]["estimated_wait_seconds"] for one in ids}
    begun: dict[str, float] = {}
    while len(begun) < len(ids):
        for one, job in jobs(server).items():
            if one in ids and job["state"] != "queued":
                begun.setdefault(one, time.monotonic() - asked)
        time.sleep(LOOK_S)
    by_pace, by_guess, before_s = [], [], 0.0
    for one, (_, seconds) in zip(ids, recordings, strict=True):
        if told[one] is not None and begun[one] > 0.0:
            by_pace.append(abs(told[one] - begun[one]) / begun[one])
            by_guess.append(abs(before_s - begun[one]) / begun[one])
        before_s += DEFAULT_WORK_PER_AUDIO_S * seconds
    return by_pace, by_guess


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    lengths = [5, 10, 20, 40, 60]
    print(
        "| engine | jobs | median error, measured pace | worst | median error, constant | worst |"
    )
    print("|---|---|---|---|---|---|")
    with workshop() as folder:
        files = {seconds: looped(folder, seconds, "wav") for seconds in lengths}
        for number, name in enumerate(asked.engines):
            kept = {**ENGINES[name], "data_dir": str(folder / f"data-{number}")}
            with ours(folder, **kept) as server:
                warm_up(server, list(files.values()))
            mixed = [chance.choice(lengths) for _ in range(asked.jobs)]
            with ours(folder, **kept) as server:
                warm_up(server, [files[5]])  # its engine is there
                said, constant = errors(server, [(files[one], one) for one in mixed])
            cells = [f"{100 * value:.0f} %" for side in (said, constant)
                     for value in (statistics.median(side), max(side))]  # fmt: skip
            print(f"| {name} | {len(said)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
